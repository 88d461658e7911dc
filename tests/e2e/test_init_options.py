"""Every start runs ten steps of stage 1; a wrong file ends the run in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dg.io.mesh import load_mesh
from dg.io.ply import read_ply
from tests.config.test_options_docs import options
from tests.runs import BARE, exit_code_of, run, series
from tests.unit.test_init_points import RGB, XYZ, point_e_ply, write

STAGE = (*BARE, "stages=[gaussians]", "prior=silhouette", "iters=10", "name=run")


@pytest.mark.parametrize("option", sorted(options("init")))
def test_ten_steps(option: str, tmp_path: Path) -> None:
    kind = {"pointcloud": "obj", "shape_e": "npz"}.get(option)
    own = [] if kind is None else [f"init.file={write(kind, tmp_path)}"]
    folder = run(tmp_path, [*STAGE, f"init={option}", *own])
    assert [row["train/num_gaussians"] for row in series(folder)] == [600] * 10
    assert len(read_ply(folder / "gaussians.ply")) > 300  # the last pruning takes some


def test_ten_steps_and_a_mesh_from_depth_pictures(tmp_path: Path) -> None:
    stages = ("stages=[gaussians,mesh]", "mesh=tsdf", "mesh.tsdf.views=12", "mesh.tsdf.size=64")
    folder = run(tmp_path, [*STAGE, *stages, "init=visual_hull", "init.num_points=1500", "init.opacity=0.7"])
    told = json.loads((folder / "metrics.json").read_text())
    assert told["mesh/closed"] and told["mesh/silhouette_iou"] > 0.8 and -1 < told["mesh/level"] < 1
    assert len(load_mesh(folder / "coarse.glb").faces) > 100


def test_another_file_of_the_same_name_begins_again(tmp_path: Path) -> None:
    file = point_e_ply(tmp_path / "p.ply", XYZ, RGB)
    own = [*STAGE, "init=pointcloud", f"init.file={file}"]
    first = (run(tmp_path, own) / "gaussians.ply").read_bytes()
    assert (run(tmp_path, own) / "gaussians.ply").read_bytes() == first
    point_e_ply(file, XYZ[::-1].copy(), RGB)
    assert (run(tmp_path, own) / "gaussians.ply").read_bytes() != first


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (["init=pointcloud"], "init.file has no value; give one with init.file="),
        (["init=shape_e", "init.file=none.ply"], "init.file=none.ply: there is no such file"),
        (["init=pointcloud", "init.file=notes.obj"], "is not a point"),
        (["init=pointcloud", "init.file=notes.obj", "init.up=x"], "init.up=x must be one of y, z"),
        (["task=text", "prompt=a", "init=visual_hull", "prior=point"], "init=visual_hull needs a picture"),
    ],
)
def test_a_wrong_start_is_one_clear_line(
    own: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.obj").write_text("v here and there\n")
    assert exit_code_of(tmp_path, [*STAGE, *own]) == 2
    printed = capsys.readouterr().err
    assert said in printed and "Traceback" not in printed
