"""Every distillation and every annealing runs through the pipeline; the pairs cover all options of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from dg.io.mesh import save_mesh
from dg.io.ply import read_ply
from tests.runs import BARE, exit_code_of, run, series
from tests.shapes import ball

STAGE = (*BARE, "stages=[gaussians]")
MINI = ("prior=zero123_mini", "prior.unconditional=true", "iters=2")


@pytest.mark.parametrize(
    ("distill", "anneal"),
    [("sds", "constant"), ("sjc", "dreamtime"), ("x0", "shrinking_interval"), ("sdi", "sqrt"), ("sdi", "uniform")],
)
def test_ten_steps_on_oracle_blur(distill: str, anneal: str, tmp_path: Path) -> None:
    import torch

    save_mesh(ball(torch.full((8, 8, 3), 0.6)), tmp_path / "ball.glb")
    prior = ("prior=oracle_blur", f"prior.mesh={tmp_path / 'ball.glb'}", "prior.image_size=64")
    folder = run(tmp_path, [*STAGE, *prior, f"distill={distill}", f"anneal={anneal}", "iters=10", "name=run"])
    rows = series(folder)
    ts = [row["train/t"] for row in rows if "train/t" in row]
    assert len(read_ply(folder / "gaussians.ply")) > 0 and all(0 < t < 1000 for t in ts) and ts


@pytest.mark.parametrize(("distill", "anneal"), [("csd", "linear"), ("nfsd", "dreamtime"), ("ism", "linear")])
def test_what_needs_the_unconditional_prediction_gets_it(distill: str, anneal: str, tmp_path: Path) -> None:
    folder = run(tmp_path, [*STAGE, *MINI, f"distill={distill}", f"anneal={anneal}", "name=run"])
    assert len(read_ply(folder / "gaussians.ply")) > 0


@pytest.mark.parametrize("distill", ["csd", "nfsd", "ism"])
def test_a_prior_without_it_ends_the_run_with_the_mend(
    distill: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(tmp_path, [*STAGE, "prior=point", f"distill={distill}", "name=run"]) == 2
    said = capsys.readouterr().err
    assert f"stage gaussians, step 1: distill={distill} compares" in said and "Traceback" not in said
    assert "prior.unconditional=true" in said and "distill=sds" in said
