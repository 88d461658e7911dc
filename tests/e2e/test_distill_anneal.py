"""Every distillation and every annealing runs through the pipeline; the pairs cover all options of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from dg.io.mesh import save_mesh
from dg.io.ply import read_ply
from tests import tiny_checkpoints
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
def test_with_an_oracle_that_has_one_too(distill: str, tmp_path: Path) -> None:
    prior = ("prior=point", "prior.image_size=32", "prior.unconditional_std=0.5", "iters=3")
    folder = run(tmp_path, [*STAGE, *prior, f"distill={distill}", "distill.mask=0.05", "name=run"])
    assert len(read_ply(folder / "gaussians.ply")) > 0


@pytest.mark.parametrize("prior", ["zero123_mini", "zero123", "sd", "mvdream", "point"])
def test_vsd_trains_an_adapter_of_the_prior(prior: str, tmp_path: Path) -> None:
    asked = [*STAGE, f"prior={prior}", "distill=vsd", "iters=3", "name=run", "init.num_points=60"]
    if prior in tiny_checkpoints.WRITERS:
        place = tiny_checkpoints.WRITERS[prior](tmp_path / "checkpoint")
        asked += [f"prior.checkpoint={place}", "prior.image_size=64"]
    asked += ["task=text", "prompt=a cat"] if prior in ("sd", "mvdream") else []
    rows = [row for row in series(run(tmp_path, asked)) if "train/loss/adapter" in row]
    assert len(rows) == 3 and all(0 < row["train/loss/adapter"] < 100 for row in rows)


def test_vsd_of_several_priors_trains_one_each(tmp_path: Path) -> None:
    asked = ["prior=magic123", "prompt=a cat", "distill=vsd", "iters=2", "name=run", "init.num_points=60"]
    for name in ("zero123", "sd"):
        place = tiny_checkpoints.WRITERS[name](tmp_path / name)
        asked += [f"prior.parts.{name}.checkpoint={place}", f"prior.parts.{name}.image_size=64"]
    rows = series(run(tmp_path, [*STAGE, *asked]))
    assert all(any(f"train/loss/adapter_{name}" in row for row in rows) for name in ("zero123", "sd"))


def test_a_mask_is_an_option_of_the_command_line(tmp_path: Path) -> None:
    ends = []
    for mask in ("null", "0.05"):
        asked = [*STAGE, "prior=point", "prior.image_size=32", f"distill.mask={mask}", "iters=3", f"name=m{mask}"]
        ends.append(read_ply(run(tmp_path, asked) / "gaussians.ply").means)
    assert not ends[0].equal(ends[1])


@pytest.mark.parametrize("distill", ["csd", "nfsd", "ism"])
def test_a_prior_without_it_ends_the_run_with_the_mend(
    distill: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(tmp_path, [*STAGE, "prior=point", f"distill={distill}", "name=run"]) == 2
    said = capsys.readouterr().err
    assert f"stage gaussians, step 1: distill={distill} compares" in said and "Traceback" not in said
    assert "prior.unconditional=true" in said and "distill=sds" in said
