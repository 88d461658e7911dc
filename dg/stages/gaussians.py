"""Stage 1: 3D Gaussians by score distillation, with the known view as an anchor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from dg.core import optim_edit
from dg.core.camera import spherical
from dg.core.densify import DensityRule, Statistics, accumulate
from dg.core.distill import Distillation
from dg.core.gaussians import RawGaussians, activate
from dg.core.optim_edit import LearningRates
from dg.core.rng import generator
from dg.core.schedule import ResolutionRamp, log_linear
from dg.core.transfer import upload, upload_cameras
from dg.losses.terms import terms, wanted
from dg.losses.weighted import KnownViewLoss, NovelViewLoss, SplatLoss, Target, Weighted
from dg.priors.protocol import Prior
from dg.raster.protocol import Rasterizer
from dg.raster.together import View, render_together
from dg.stages.readings import Guard, Readings
from dg.stages.report import report
from dg.stages.score import Score
from dg.stages.steps import steps
from dg.stages.views import NovelView, OrbitSampler, RandomBackground
from dg.types import Cameras, Reference, Render

__all__ = ["GaussianStage", "steps"]


class GaussianStage(L.LightningModule):
    """One optimisation of a set of Gaussians.

    Every draw comes from (seed, purpose, step), so the run is a function of its arguments and of the state in the
    checkpoint: parameters, Adam's moments, densification statistics and the step.
    """

    def __init__(
        self,
        *,
        reference: Reference | None,
        prompt: str | None,
        prior: Prior,
        raster: Rasterizer,
        raw: RawGaussians,
        camera: OrbitSampler,
        background: RandomBackground,
        densify: DensityRule,
        anneal: Callable[[float, torch.Generator, int], int],
        distill: Distillation,
        loss: Mapping[str, Weighted],
        optim: LearningRates,
        resolution: ResolutionRamp,
        iters: int,
        seed: int,
        elevation_deg: float = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.reference = reference
        self.prior, self.raster = prior, raster
        self.score = Score(prior=prior, distill=distill, anneal=anneal, reference=reference, prompt=prompt, seed=seed)
        self.camera, self.background, self.resolution = camera, background, resolution
        self.densify, self.distill, self.losses, self.rates = densify, distill, loss, optim
        self.iters, self.seed = iters, seed
        self.params = nn.ParameterDict({name: nn.Parameter(value) for name, value in raw.as_dict().items()})
        self.stats = Statistics.zeros(len(raw))
        self.step = 0  # steps taken; not Lightning's global_step, which a loaded checkpoint owns
        self.logged: dict[str, float] = {}
        self._watch(Readings(self.device))
        self.reference_elevation_deg = elevation_deg  # views are drawn around it, also where there is no picture
        if reference is not None:
            self.reference_elevation_deg = float(spherical(reference.cameras)[0][0])
        self._known: tuple[Cameras, Target] | None = None

    def raw(self) -> RawGaussians:
        """The current parameters, detached."""
        return RawGaussians(**{name: p.detach() for name, p in self.params.items()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optim_edit.make_adam(self.params, self.rates)

    def on_fit_start(self) -> None:
        self.stats = Statistics(*(x.to(self.device) for x in vars(self.stats).values()))
        if self.readings.device != self.device:
            self._watch(Readings(self.device))

    def _watch(self, readings: Readings) -> None:
        self.readings, self.guard = readings, Guard(readings, _not_finite)

    def training_step(self, batch: Any, batch_index: int) -> None:
        self.step = int(batch)
        frac = self.step / self.iters
        optimizer = self.optimizers()
        lr = log_linear(frac / self.rates.means_until, self.rates.means_init, self.rates.means_final)
        optim_edit.set_lr(optimizer.optimizer, "means", lr)
        known, novel = self._renders(frac)
        # the prior first: a GPU is at work on its networks while the rest is launched
        score, logs = self.score.loss(self.step, frac, novel)
        extra = {} if known is None else terms(self.losses, KnownViewLoss, frac, known, self._known_view()[1])
        extra |= self._regularisers(frac, novel)
        penalty = self.densify.penalty(self._live())
        total = score + sum(extra.values()) + (0 if penalty is None else penalty)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(total)
        self.guard.look(self.step, total, self.params, optimizer.optimizer)
        self._gather(novel.render)
        optimizer.step()
        noise = self.densify.noise(self.raw(), lr, generator(self.seed, "densify/noise", self.step))
        if noise is not None:
            optim_edit.shift(self.params, "means", self.guard.spared(noise))
        counts = self._densify(optimizer.optimizer)
        logs |= self.score.learn(self.step)
        logs |= {f"loss/{name}": value.detach() for name, value in extra.items()}
        logs |= {"loss/score": score.detach(), "loss/total": total.detach(), "num_gaussians": len(self.stats.count)}
        logs |= {"weight/score": self.distill.weight, "lr/means": lr} | counts
        logs |= {f"weight/{name}": loss.weight_at(frac) for name, loss in self.losses.items()}
        self.logged = report(self, self.step, logs, "train")

    def on_train_end(self) -> None:
        self.readings.settle()
        if self.step >= self.iters:
            result = self.densify.final(self.raw(), self.stats)
            optim_edit.apply(self.optimizers().optimizer, self.params, result.edit)

    def _regularisers(self, frac: float, novel: NovelView) -> dict[str, Tensor]:
        found = terms(self.losses, NovelViewLoss, frac, novel.render, novel.cameras)
        if wanted(self.losses, SplatLoss):
            found |= terms(self.losses, SplatLoss, frac, activate(self._live()))
        return found

    def _known_view(self) -> tuple[Cameras, Target]:
        """The reference at the resolution it is compared at, on white."""
        if self._known is None:
            size = self.resolution.reference
            rgba = self.reference.rgba.permute(0, 3, 1, 2).to(self.device)
            premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
            mode = {"mode": "area"} if rgba.shape[-1] % size == 0 else {"mode": "bilinear", "antialias": True}
            small = nn.functional.interpolate(premultiplied, (size, size), **mode).permute(0, 2, 3, 1)
            cameras = self.reference.cameras.resized(size, size).to(self.device)
            on_white = (small[..., :3] + 1 - small[..., 3:]).contiguous()
            self._known = cameras, Target(on_white, small[..., 3:].contiguous())
        return self._known

    def _renders(self, frac: float) -> tuple[Render | None, NovelView]:
        """The known view, where a loss looks at it, and the step's novel views."""
        draw = generator(self.seed, "views", self.step)
        size, per_sample = self.resolution(frac), self.prior.views_per_sample
        drawn = self.camera.sample(draw, self.reference_elevation_deg, size, per_sample)
        behind = self.background.sample(draw, self.camera.batch_size, per_sample)
        cameras, background = upload_cameras(drawn, self.device), upload(behind, self.device)
        self.score.expect(cameras, background, (drawn, behind))
        absgrad = self.densify.absolute_gradient and self.densify.gathers(self.step)
        views = [View(cameras, background, absgrad)]
        if self.reference is not None and wanted(self.losses, KnownViewLoss):
            views.insert(0, View(self._known_view()[0], torch.ones(3, device=self.device)))
        *known, novel = render_together(self.raster, lambda: activate(self._live()), views)
        return known[0] if known else None, NovelView(novel, cameras, background)

    def _live(self) -> RawGaussians:
        return RawGaussians(**dict(self.params.items()))

    def _gather(self, render: Render) -> None:
        """Statistics come from the last view alone, as in the release."""
        if self.densify.gathers(self.step) and render.means_px.grad is not None:
            height, width = render.rgb.shape[1:3]
            means_px = render.means_px
            grad = means_px.absgrad if self.densify.absolute_gradient else means_px.grad
            self.stats = accumulate(self.stats, grad[-1], render.radii_px[-1].detach(), height, width)

    def _densify(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        draw = generator(self.seed, "densify", self.step)
        result = self.densify.edit(self.step, self.iters, self.raw(), self.stats, draw)
        if result is None:
            return {}
        self.readings.settle()  # an edit follows no step that was not finite
        optim_edit.apply(optimizer, self.params, result.edit)
        self.stats = Statistics.zeros(len(self.params["means"]), self.device)
        return {"clones": result.clones, "splits": result.splits, "prunes": result.prunes}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.readings.settle()
        checkpoint["gaussian_stage"] = {"step": self.step, "stats": {k: v.cpu() for k, v in vars(self.stats).items()}}
        if self.score.own is not None:
            checkpoint["own_score"] = self.score.own.state()
        checkpoint["saved_answers"] = self.score.saved.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the checkpoint's number of Gaussians before Lightning copies the values in."""
        for name in self.params:
            self.params[name] = nn.Parameter(torch.empty_like(checkpoint["state_dict"][f"params.{name}"]))
        state = checkpoint["gaussian_stage"]
        self.step = state["step"]
        self.stats = replace(self.stats, **state["stats"])
        if self.score.own is not None and "own_score" in checkpoint:
            self.score.own.load(checkpoint["own_score"])
        if "saved_answers" in checkpoint:
            self.score.saved.load(checkpoint["saved_answers"], self.params["means"].device)


def _not_finite(step: int, bad: list[str]) -> str:
    named = f"the gradient of {', '.join(bad)}" if bad else "the loss"
    return (
        f"stage gaussians, step {step}: {named} is not finite; the state before the step is kept. "
        "Lower the learning rates (optim.*) or the loss weights"
    )
