"""Every rule of densification runs ten steps of stage 1, with settings under which it acts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dg.io.ply import read_ply
from tests.config.test_options_docs import options
from tests.runs import BARE, run, series

EAGER = (
    "prior.profile.densify_start=1",
    "prior.profile.densify_interval=3",
    "prior.profile.densify_grad_threshold=1e-4",
)


@pytest.mark.parametrize("rule", sorted(options("densify")))
def test_ten_steps(rule: str, tmp_path: Path) -> None:
    stage = (*BARE, "stages=[gaussians]", "prior=silhouette", "iters=10", f"densify={rule}", "name=run")
    folder = run(tmp_path, [*stage, *EAGER])
    rows = series(folder)
    counts = [row["train/num_gaussians"] for row in rows if "train/num_gaussians" in row]
    acted = sum("train/clones" in row for row in rows)
    assert len(read_ply(folder / "gaussians.ply")) > 0 and len(counts) == 10
    assert acted >= 2 if rule != "none" else acted == 0
    if rule in ("none", "fixed_count"):
        assert set(counts) == {600}
    else:
        assert len(set(counts)) > 1
