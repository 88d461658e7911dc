"""No step of stage 1 or 2 waits for the GPU: counted on a CPU by what it reads, on a GPU by CUDA itself."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import pytest
import torch

from dg.core.camera import orbit
from dg.core.densify import AdaptiveDensity, NoDensity
from dg.core.distill import SDS
from dg.core.gaussians import ball
from dg.core.optim_edit import LearningRates
from dg.core.rng import generator
from dg.core.schedule import LinearAnneal, ResolutionRamp
from dg.losses.mask import MaskLoss
from dg.losses.refine import SDEditMSE
from dg.losses.rgb import RgbLoss
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.zero123 import Zero123
from dg.raster.dense import DenseRasterizer
from dg.stages.gaussians import GaussianStage, steps
from dg.stages.readings import Readings
from dg.stages.texture import RefineOptions, TextureStage
from dg.stages.views import OrbitSampler, RandomBackground
from dg.types import Mesh, Reference
from tests import tiny_checkpoints
from tests.sync_count import Reads

HOST = ("views:sample", "schedule:__call__", "rng:generator", "dense:__call__")  # and the rasteriser, which has its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoints.zero123(tmp_path_factory.mktemp("checkpoint"))


def reference() -> Reference:
    rgba = torch.rand(1, 32, 32, 4, generator=generator(0, "picture"))
    return Reference(rgba, orbit(0, 0, 2.0, height=32))


def stage(folder, device="cpu", raster=None, **changes) -> GaussianStage:
    arguments = {
        "reference": reference(),
        "prompt": None,
        "prior": Zero123(checkpoint=str(folder), image_size=64, device=device),
        "raster": raster or DenseRasterizer(),
        "raw": ball(generator(0, "init"), num_points=60, radius=0.4),
        "camera": OrbitSampler(),
        "background": RandomBackground(),
        "densify": AdaptiveDensity(start=1, interval=1000, grad_threshold=0.1),
        "anneal": LinearAnneal(),
        "distill": SDS(),
        "loss": {"rgb": RgbLoss(10000, True), "mask": MaskLoss(1000, True)},
        "optim": LearningRates(),
        "resolution": ResolutionRamp(sizes=(32,), boundaries=(), reference=32),
        "iters": 6,
        "seed": 0,
    }
    return GaussianStage(**(arguments | changes))


class Lines:
    """A logger that keeps what it is told."""

    name, version, root_dir, log_dir, save_dir = "lines", "", None, None, None

    def __init__(self):
        self.told = []

    def log_metrics(self, metrics, step=None):
        self.told.append((step, metrics))

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def fit(module, iters, *callbacks, device="cpu"):
    L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=[],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    ).fit(module, steps(iters))


class Watched(GaussianStage):
    """Counts from the third step on: the first ones compute what is kept (the reference)."""

    reads: Any

    def training_step(self, batch, batch_index):
        if int(batch) < 3:
            return super().training_step(batch, batch_index)
        with self.reads:
            return super().training_step(batch, batch_index)


def watched(module, reads):
    module.__class__, module.reads = Watched, reads
    return module


def test_no_step_of_stage_1_reads_a_tensor(folder):
    from dg.runtime.callbacks import GradientNorms

    module, reads = stage(folder), Reads(HOST)
    module._watch(Readings(module.device, late=True))
    fit(watched(module, reads), 6, GradientNorms())
    assert module.step == 6 and module.logged["train/loss/total"] > 0
    assert "train/grad_norm/means" in module.logged
    assert not reads.found


def test_the_counter_counts(folder):
    class Peeping(SDS):
        def loss(self, *args):
            loss = super().loss(*args)
            return loss if loss > 0 else loss * 2

    module, reads = stage(folder, distill=Peeping()), Reads(HOST)
    module._watch(Readings(module.device, late=True))
    fit(watched(module, reads), 3)
    assert len(reads.found) == 1
    module, reads = stage(folder), Reads(HOST)  # on a CPU the numbers are read at once
    fit(watched(module, reads), 3)
    assert not module.readings.late


def test_late_numbers_are_the_same_numbers_in_the_same_order(folder):
    told = {}
    for late in (False, True):
        module = stage(folder)
        module._watch(Readings(module.device, late=late))
        lines = Lines()
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=1, logger=[], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.loggers = [lines]
        trainer.fit(module, steps(6))
        told[late] = lines.told
        assert module.logged == lines.told[-1][1]
    assert [step for step, _ in told[True]] == [1, 2, 3, 4, 5, 6]
    assert told[True] == told[False]


class Broken(SDS):
    """Not finite in one step."""

    bad = 3

    def loss(self, *args):
        loss = super().loss(*args)
        return loss * (float("nan") if self.seen() == self.bad else 1)

    counts: list = []  # noqa: RUF012

    def seen(self) -> int:
        self.counts.append(1)
        return len(self.counts)


@pytest.mark.parametrize("rule", [NoDensity(), AdaptiveDensity(start=1, interval=4, grad_threshold=0.0)])
def test_a_late_error_names_the_step_and_keeps_the_state_before_it(folder, rule):
    Broken.counts.clear()
    module, before = stage(folder, distill=Broken(), densify=rule), {}
    module._watch(Readings(module.device, late=True))

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if pl_module.step == 2:
                before.update({k: v.clone() for k, v in pl_module.raw().as_dict().items()})

    with pytest.raises(FloatingPointError, match=r"step 3: the gradient of .*means.* is not finite"):
        fit(module, 6, Keep())
    assert module.step > 3, "the error was late"
    for name, value in module.raw().as_dict().items():
        assert torch.equal(value, before[name]), name


def test_no_state_is_saved_after_a_step_that_was_not_finite(folder, tmp_path):
    Broken.counts.clear()
    module = stage(folder, distill=Broken(), densify=NoDensity())
    module._watch(Readings(module.device, late=True))

    class Save(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if pl_module.step == 3:
                trainer.save_checkpoint(tmp_path / "state.ckpt")

    with pytest.raises(FloatingPointError, match="step 3"):
        fit(module, 6, Save())
    assert not (tmp_path / "state.ckpt").exists()


def sphere() -> Mesh:
    v, u = torch.meshgrid(torch.linspace(0, 1, 7), torch.linspace(0, 1, 7), indexing="ij")
    theta, phi = v * math.pi, u * 2 * math.pi
    xyz = 0.5 * torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], -1).reshape(-1, 3)
    i = (torch.arange(6)[:, None] * 7 + torch.arange(6)).reshape(-1)
    faces = torch.cat([torch.stack([i, i + 7, i + 1], -1), torch.stack([i + 1, i + 7, i + 8], -1)])
    texture = torch.rand(32, 32, 3, generator=generator(0, "texture"))
    return Mesh(xyz, faces, torch.stack([u, v], -1).reshape(-1, 2), faces, texture)


class WatchedTexture(TextureStage):
    reads: Any

    def configure_optimizers(self):
        return torch.optim.Adam([{"name": "texture", "params": [self.logits], "lr": self.options.lr}], fused=True)

    def training_step(self, batch, batch_index):
        if int(batch) < 3:
            return super().training_step(batch, batch_index)
        with self.reads:
            return super().training_step(batch, batch_index)


def texture_stage(folder, device="cpu", mesh_raster=None) -> WatchedTexture:
    return WatchedTexture(
        mesh=sphere().to(device),
        reference=reference(),
        prompt=None,
        prior=Zero123(checkpoint=str(folder), image_size=64, device=device),
        mesh_raster=mesh_raster or CpuMeshRasterizer(),
        camera=OrbitSampler(),
        options=RefineOptions(loss=SDEditMSE(num_steps=10), size=64, reference_size=32),
        iters=6,
        seed=0,
    )


def test_no_step_of_stage_2_reads_a_tensor(folder, monkeypatch):
    from dg.meshraster import render as rendering
    from dg.meshraster.texture import sample_gather

    def every_pixel(fragments, faces):  # as on a GPU
        face_id = fragments.face_id.reshape(-1)
        return torch.arange(len(face_id)), (face_id > 0)[:, None]

    monkeypatch.setattr(rendering, "looked_at", every_pixel)
    monkeypatch.setattr(rendering, "sample", sample_gather)
    module = texture_stage(folder)
    module.reads = Reads(("views:sample", "texture:draw_ssaa", "cpu:__call__"))
    module._watch(Readings(module.device, late=True))
    before = module.mesh().texture
    fit(module, 6)
    assert module.step == 6 and module.logged["refine/loss/total"] > 0
    assert not torch.equal(module.mesh().texture, before)
    assert not module.reads.found


class Unwatched:
    """A rasteriser that may wait: gsplat does once a call for the number of its tiles, nvdiffrast by itself."""

    def __init__(self, raster):
        self.raster = raster

    def __call__(self, *args, **kwargs):
        return self._free(self.raster, *args, **kwargs)

    def together(self, *args):
        return self._free(self.raster.together, *args)

    def _free(self, function, *args, **kwargs):
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return function(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode(mode)


class SyncIsAnError:
    def __enter__(self):
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *error):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_no_step_of_stage_1_waits_for_the_gpu(folder):
    from dg.raster.gsplat import GsplatRasterizer

    module = watched(stage(folder, "cuda", Unwatched(GsplatRasterizer())), SyncIsAnError())
    fit(module, 6, device="cuda")
    assert module.step == 6 and module.readings.late


@pytest.mark.gpu
def test_no_step_of_stage_2_waits_for_the_gpu(folder):
    pytest.importorskip("nvdiffrast", reason="see dg.meshraster.nvdiffrast.INSTALL")
    from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer

    module = texture_stage(folder, "cuda", Unwatched(NvdiffrastMeshRasterizer()))
    module.reads = SyncIsAnError()
    fit(module, 6, device="cuda")
    assert module.step == 6 and module.readings.late
