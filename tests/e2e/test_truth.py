"""`truth=`: what metrics.json says of a run whose object is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dg.data.known import known_mesh, object_name
from dg.eval.score import score_mesh
from dg.io.mesh import load_mesh, save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.runtime.errors import UserError
from dg.runtime.options import MISSING, REPOSITORY, object_of
from dg.runtime.pipeline import read_metrics
from tests.runs import run, series
from tests.shapes import ball

AS_IT_IS = ("stages=[texture]", "refine=none", "preview=none", "prior=point", "device=cpu", "threads=1", "name=run")


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("balls")
    one = ball(torch.linspace(0.2, 0.8, 8 * 8 * 3).reshape(8, 8, 3), radius=0.4)
    made = {"one": one, "twice": replace(one, vertices=2 * one.vertices + torch.tensor([0.1, 0.0, 0.0]))}
    made["grey"] = ball(torch.full((8, 8, 3), 0.5), radius=0.35)
    for name, mesh in made.items():
        save_mesh(mesh, folder / f"{name}.glb")
    return {name: folder / f"{name}.glb" for name in made}


def figures(tmp_path: Path, *overrides: str) -> dict[str, float]:
    return read_metrics(run(tmp_path, [*AS_IT_IS, *overrides]))


def test_a_truth_with_a_true_framing_is_met_as_it_stands(balls: dict[str, Path], tmp_path: Path) -> None:
    found = figures(tmp_path, f"mesh_file={balls['grey']}", f"truth={balls['one']}", "recenter=false")
    plain = score_mesh(load_mesh(balls["grey"]), load_mesh(balls["one"]), CpuMeshRasterizer())
    assert found["truth/psnr_db"] == pytest.approx(plain.psnr_db, rel=1e-4)
    assert found["truth/silhouette_iou"] == pytest.approx(plain.silhouette_iou, rel=1e-4)
    assert found["truth/volume_iou/unaligned"] == pytest.approx(plain.volume_iou, abs=1e-3)
    assert found["truth/of"] == str(balls["one"]) and {"truth/psnr_db/front", "truth/psnr_db/back"} <= set(found)


@pytest.mark.parametrize(("recenter", "best"), [("true", True), ("false", False)])
def test_a_recentred_picture_has_no_size(balls: dict[str, Path], tmp_path: Path, recenter: str, best: bool) -> None:
    found = figures(tmp_path, f"mesh_file={balls['twice']}", f"truth={balls['one']}", f"recenter={recenter}")
    assert (found["truth/silhouette_iou"] > 0.99 and found["truth/psnr_db"] > 40) == best


def test_a_truth_can_be_added_to_a_finished_run(balls: dict[str, Path], tmp_path: Path) -> None:
    tiny = ("stages=[gaussians]", "prior=point", "prior.image_size=32", "iters=2", "init.num_points=100", "name=run")
    tiny += ("resolution.sizes=[32]", "resolution.boundaries=[]", "resolution.reference=32", "preview=none")
    folder = run(tmp_path, [*tiny, "device=cpu", "threads=1"])
    before = (folder / "gaussians.ply").read_bytes()
    assert not any(name.startswith("truth/") for name in read_metrics(folder))
    assert run(tmp_path, [*tiny, "device=cpu", "threads=1", f"truth={balls['one']}"]) == folder
    found = read_metrics(folder)
    assert 0 < found["truth/psnr_db"] < 40 and "truth/volume_iou/unaligned" in found
    assert found["truth/volume_iou/unaligned"] is None  # splats have no inside
    assert (folder / "gaussians.ply").read_bytes() == before and len(series(folder)) == 2


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("nothing.glb", r"^truth=nothing\.glb: there is no such file"),
        ("object:robt", r"^truth=object:robt: .*there is no object robt; did you mean robot\?"),
    ],
)
def test_a_truth_that_is_not_there(truth: str, message: str, balls: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        figures(tmp_path, f"mesh_file={balls['one']}", f"truth={truth}")


def test_an_objective_without_its_truth_is_no_number(balls: dict[str, Path], tmp_path: Path) -> None:
    own = tmp_path / "own.png"
    own.write_bytes((REPOSITORY / "examples" / "robot.png").read_bytes())
    with pytest.raises(UserError, match=r"objective=truth/psnr_db is no number"):
        figures(tmp_path, f"mesh_file={balls['one']}", f"input={own}", "objective=truth/psnr_db")


def test_known_meshes(balls: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert object_of(str(REPOSITORY / "examples" / "robot.png")) == "object:robot"
    assert object_of("robot.png") == object_of(None) == object_of(["a.png"]) == MISSING
    assert object_name("object:mug") == "mug" and object_name(balls["one"]) is None
    made = ball(torch.zeros(2, 2, 3))
    monkeypatch.setattr("dg.data.objects.make", {"mug": made}.__getitem__)
    assert known_mesh("object:mug") is made
    assert torch.equal(known_mesh(balls["one"]).vertices, load_mesh(balls["one"]).vertices)
