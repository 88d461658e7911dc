"""Stage 1 on a small scene with a prior whose optimum is known."""

import lightning as L
import pytest
import torch

from dg.core.camera import orbit
from dg.core.densify import AdaptiveDensity
from dg.core.distill import SDS
from dg.core.gaussians import ball
from dg.core.optim_edit import LearningRates
from dg.core.rng import generator
from dg.core.schedule import LinearAnneal, ResolutionRamp
from dg.losses.mask import MaskLoss
from dg.losses.rgb import RgbLoss
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.silhouette import SilhouettePrior
from dg.raster.numba_cpu import NumbaRasterizer
from dg.stages.gaussians import GaussianStage, steps
from dg.stages.views import OrbitSampler, RandomBackground
from dg.types import Reference

LOSSES = {"rgb": RgbLoss(10000, True), "mask": MaskLoss(1000, True)}


@pytest.fixture(scope="module")
def reference() -> Reference:
    size = 64
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    inside = ((x - 32) ** 2 + (y - 32) ** 2 < 18**2).float()
    rgba = torch.stack([inside, inside * (x < 32), torch.zeros_like(inside), inside], -1)
    return Reference(rgba[None], orbit(0, 0, 2.0, height=size))


def make(reference, iters=20, **changes) -> GaussianStage:
    arguments = {
        "reference": reference,
        "prompt": None,
        "prior": SilhouettePrior(rasterizer=CpuMeshRasterizer(), image_size=32, ssaa=1),
        "raster": NumbaRasterizer(),
        "raw": ball(generator(0, "init"), num_points=300, radius=0.4),
        "camera": OrbitSampler(),
        "background": RandomBackground(),
        "densify": AdaptiveDensity(start=2, interval=5, grad_threshold=0.1),
        "anneal": LinearAnneal(),
        "distill": SDS(),
        "loss": LOSSES,
        "optim": LearningRates(),
        "resolution": ResolutionRamp(sizes=(32,), boundaries=(), reference=32),
        "iters": iters,
        "seed": 0,
    }
    return GaussianStage(**(arguments | changes))


def trainer(**options) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", max_epochs=1, **({"enable_checkpointing": False} | quiet | options))


def front_error(stage: GaussianStage) -> float:
    cameras, target = stage._known_view()
    from dg.core.gaussians import activate

    return float((stage.raster(activate(stage.raw()), cameras, torch.ones(3)).rgb - target.rgb).square().mean())


def test_it_learns_the_picture_and_densifies(reference):
    stage = make(reference, iters=60)
    before = front_error(stage)
    trainer().fit(stage, steps(60))
    assert front_error(stage) < 0.5 * before
    assert stage.step == 60
    assert len(stage.raw()) > 300, "nothing was cloned or split"
    assert torch.isfinite(torch.cat([v.flatten() for v in stage.raw().as_dict().values()])).all()


def test_the_same_seed_gives_the_same_bits_and_another_does_not(reference):
    results = []
    for seed in (0, 0, 1):
        stage = make(reference, iters=8, seed=seed)
        trainer().fit(stage, steps(8))
        results.append(stage.raw().means)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_resumed_run_is_the_unbroken_one(reference, tmp_path):
    whole = make(reference, iters=14)
    trainer().fit(whole, steps(14))

    class SaveAndStop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if pl_module.step == 7:
                trainer.save_checkpoint(tmp_path / "state.ckpt")
                trainer.should_stop = True

    trainer(callbacks=[SaveAndStop()]).fit(make(reference, iters=14), steps(14))
    rest = make(reference, iters=14)
    trainer().fit(rest, steps(14, start=7), ckpt_path=tmp_path / "state.ckpt", weights_only=False)
    assert rest.step == 14
    assert len(whole.raw()) != 300, "the test must cross a densification"
    for name, value in whole.raw().as_dict().items():
        assert torch.equal(value, rest.raw().as_dict()[name]), name


def test_without_the_known_view_the_picture_is_not_rendered(reference):
    calls = []
    raster = NumbaRasterizer()

    def counting(gaussians, cameras, background):
        calls.append(cameras)
        return raster(gaussians, cameras, background)

    stage = make(reference, iters=3, loss={}, raster=counting)
    trainer().fit(stage, steps(3))
    assert len(calls) == 3


def test_a_loss_that_is_not_finite_names_step_and_tensor(reference):
    class Broken(SDS):
        def loss(self, predict, z, *others):
            return (z * float("nan")).sum()

    with pytest.raises(FloatingPointError, match=r"step 1: the gradient of .*means"):
        trainer().fit(make(reference, distill=Broken()), steps(20))


def test_weights_ramp_to_the_release_s():
    assert RgbLoss(10000, True).weight_at(0.5) == 5000
    assert MaskLoss(1000, True).weight_at(1.0) == 1000
    assert RgbLoss(10000, False).weight_at(0.1) == 10000


def test_views_are_drawn_as_in_the_release():
    sampler = OrbitSampler()
    from dg.core.camera import spherical

    elevations, azimuths = [], []
    for step in range(400):
        e, a, r = spherical(sampler.sample(generator(0, "views", step), -30.0, 32))
        elevations.append(float(e[0]))
        azimuths.append(float(a[0]))
        assert float(r[0]) == pytest.approx(2.0, abs=1e-5)
    assert min(elevations) == pytest.approx(-60, abs=0.6) and max(elevations) == pytest.approx(29, abs=0.6)
    assert max(azimuths) > 170 and min(azimuths) < -170
    quad = sampler.sample(generator(0, "views", 0), 0.0, 32, views_per_sample=4)
    e, a, _ = spherical(quad)
    torch.testing.assert_close(a.diff() % 360, torch.full((3,), 90.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(e, e[:1].expand(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("probability", "values"), [(0.0, {1.0}), (1.0, {0.0}), (0.5, {0.0, 1.0})])
def test_black_background_probability(probability, values):
    background = RandomBackground(probability)
    seen = {float(background.sample(generator(0, "bg", i), 1)[0, 0]) for i in range(40)}
    assert seen == values
    four = RandomBackground(0.5).sample(generator(0, "bg"), 8, views_per_sample=4)
    assert four.shape == (32, 3)
    assert all(len(four[4 * i : 4 * i + 4].unique()) == 1 for i in range(8))
