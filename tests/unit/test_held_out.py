"""The held-out objects and the comparison of sampled views."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dg.core import rng
from dg.data import held_out
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.point import PointPrior
from dg.priors.sampling import sample
from experiments.held_out import views
from experiments.held_out.__main__ import table

LIBRARY = Path(__file__).parents[3] / "shared" / "library"


def test_invented_objects_are_none_of_the_trainings() -> None:
    names = [o.name for o in held_out.invented()]
    assert len(set(names)) == 16 and names[0].endswith("_00")
    trained = {rng.key(seed, "procedural", i) for seed in range(30) for i in range(12_000)}
    assert not trained & {rng.key(0, "held-out", i) for i in range(16)}


@pytest.mark.skipif(not LIBRARY.is_dir(), reason="the object library is not here")
def test_sixteen_of_the_library() -> None:
    assert len(held_out.from_library(LIBRARY)) == 16


def test_a_sample_of_a_point_prior_is_the_point() -> None:
    target = torch.rand(3, 8, 8, generator=rng.generator(0, "target"))
    prior = PointPrior(target_rgb=target, image_size=8)
    condition = prior.condition(None, None, views.cameras()[:2], torch.ones(2, 3))
    noise = torch.randn(2, 3, 8, 8, generator=rng.generator(0, "noise"))
    made = prior.decode(sample(prior, condition, noise, steps=7))
    torch.testing.assert_close(made, target.expand(2, -1, -1, -1), atol=1e-3, rtol=0)


def test_the_truth_is_beyond_every_answer_without_prior() -> None:
    meshes = [held_out.as_mesh(o) for o in held_out.invented(3)]
    raster = CpuMeshRasterizer()
    true = [views.truth(mesh, raster) for mesh in meshes]
    best = views.compare(true[0], true[0])
    assert best.psnr_db == 100 and best.silhouette_iou == 1
    answers = views.without_prior(views.reference(meshes[0]), true[1:], raster)
    assert list(answers) == ["input copied", "silhouette inflated", "mean picture"]
    figures = [views.compare(answer, true[0]) for answer in answers.values()]
    assert all(8 < f.psnr_db < 40 and 0 < f.silhouette_iou < 1 for f in figures)


def test_the_table_compares_with_the_best_reference() -> None:
    def line(answer: str, checkpoint: str, psnr: float, iou: float) -> dict:
        return {"answer": answer, "checkpoint": checkpoint, "psnr_db": psnr, "ssim": 0.5, "silhouette_iou": iou}

    rows = [line("input copied", "a", 15, 0.4), line("mean picture", "a", 14, 0.5), line("mean of 8", "a", 18, 0.7)]
    text = table({(r["checkpoint"], r["answer"], "x"): r for r in rows})
    assert "+3.00 dB, +0.200 IoU" in text
