"""Every loss runs ten steps of stage 1; a weight of 0 changes no bit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dg.io.mesh import load_mesh, save_mesh
from dg.io.ply import read_ply
from tests.config.test_options_docs import options
from tests.fake_alexnet import write_random_alexnet
from tests.runs import BARE, exit_code_of, run, series
from tests.shapes import ball

STAGE = (*BARE, "stages=[gaussians]", "prior=silhouette", "iters=10", "name=run")
SETS = (
    "image,opacity_entropy,depth_smooth",
    "image,scale,normal_smooth",
    "text,anisotropy,depth_smooth",
    "image,lpips",
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("plain"), STAGE)


@pytest.mark.parametrize("names", SETS)
def test_ten_steps(names: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    write_random_alexnet(tmp_path)
    own = [f"loss.{key}" for key in ("lpips.net=alex", "anisotropy.limit=1.01") if key.split(".")[0] in names]
    folder = run(tmp_path, [*STAGE, f"loss=[{names}]", *own])
    rows, alone = series(folder), series(plain)
    added = [name for name in names.split(",") if name not in ("image", "text")]
    for name in added:
        values = [row[f"train/loss/{name}"] for row in rows]
        assert len(values) == 10 and all(math.isfinite(v) for v in values) and max(values) > 0
    for name in ("rgb", "mask"):
        assert rows[0].get(f"train/loss/{name}") == (alone[0][f"train/loss/{name}"] if "image" in names else None)
    before, after = (read_ply(x / "gaussians.ply") for x in (plain, folder))
    assert not torch.equal(before.opacity_logits, after.opacity_logits)


def test_every_option_is_run() -> None:
    assert options("loss") == {name for names in SETS for name in names.split(",")}


def test_no_weight_no_trace(plain: Path, tmp_path: Path) -> None:
    zero = [
        "loss=[image,lpips,depth_smooth,scale]",
        *(f"loss.{x}.weight=0" for x in ("lpips", "depth_smooth", "scale")),
    ]
    folder = run(tmp_path, [*STAGE, *zero])
    assert (folder / "gaussians.ply").read_bytes() == (plain / "gaussians.ply").read_bytes()


@pytest.mark.parametrize(("option", "key"), [("loss=[image,lpips]", "loss.lpips"), ("refine=lpips", "refine.loss")])
def test_lpips_without_weights_ends_the_run_with_the_mend(
    option: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert exit_code_of(tmp_path, [*STAGE, option, "stages=[gaussians,mesh,texture]"]) == 2
    said = capsys.readouterr().err
    assert f"{key}: LPIPS with net=vgg cannot be had" in said and "vgg16-397923af.pth" in said
    assert "Traceback" not in said and "fetch" in said
    assert not (tmp_path / "run" / "gaussians.ply").exists(), "it should be said before anything is computed"


def test_stage_2_by_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    write_random_alexnet(tmp_path)
    save_mesh(ball(torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))), tmp_path / "ball.glb")
    given = (
        "stages=[texture]",
        f"mesh_file={tmp_path / 'ball.glb'}",
        "prior=silhouette",
        "iters_refine=10",
        "name=run",
    )
    folder = run(tmp_path, [*BARE, *given, "refine=lpips", "refine.loss.net=alex", "refine.size=64"])
    losses = [row["refine/loss/novel"] for row in series(folder)]
    assert len(losses) == 10 and min(losses[5:]) < max(losses[:2])
    assert not torch.equal(load_mesh(folder / "mesh.glb").texture, load_mesh(tmp_path / "ball.glb").texture)
