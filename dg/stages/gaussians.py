"""Stage 1: 3D Gaussians by score distillation, with the known view as an anchor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from dg.core import optim_edit
from dg.core.camera import spherical
from dg.core.densify import DensityRule, Statistics, accumulate
from dg.core.distill import Distillation
from dg.core.gaussians import RawGaussians, activate
from dg.core.optim_edit import LearningRates
from dg.core.rng import generator
from dg.core.schedule import ResolutionRamp, log_linear
from dg.priors.magic123 import Member, members
from dg.priors.protocol import Prior
from dg.raster.protocol import Rasterizer
from dg.stages.report import report
from dg.stages.views import OrbitSampler, RandomBackground
from dg.types import Cameras, Reference, Render


class _From(Sampler[int]):
    """Indices start .. iters - 1. Its length stays `iters`: a resumed Lightning loop counts the steps already taken."""

    def __init__(self, iters: int, start: int) -> None:
        self.iters, self.start = iters, start

    def __len__(self) -> int:
        return self.iters

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.iters))


def steps(iters: int, start: int = 0) -> DataLoader:
    """The loader of one run: the step numbers start + 1 .. iters, since optimising one scene has no data set.

    Not an IterableDataset: Lightning warns about every one that has a length.
    """
    return DataLoader(range(1, iters + 1), batch_size=None, sampler=_From(iters, start))


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
        loss: Mapping[str, Any],
        optim: LearningRates,
        resolution: ResolutionRamp,
        iters: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.reference, self.prompt = reference, prompt
        self.prior, self.raster = prior, raster
        self.camera, self.background, self.resolution = camera, background, resolution
        self.densify, self.anneal, self.distill, self.losses, self.rates = densify, anneal, distill, loss, optim
        self.iters, self.seed = iters, seed
        self.params = nn.ParameterDict({name: nn.Parameter(value) for name, value in raw.as_dict().items()})
        self.stats = Statistics.zeros(len(raw))
        self.step = 0  # steps taken; not Lightning's global_step, which a loaded checkpoint owns
        self.logged: dict[str, float] = {}
        self.reference_elevation_deg = 0.0
        if reference is not None:
            self.reference_elevation_deg = float(spherical(reference.cameras)[0][0])
        self._known: tuple[Any, Tensor, Tensor] | None = None

    def raw(self) -> RawGaussians:
        """The current parameters, detached."""
        return RawGaussians(**{name: p.detach() for name, p in self.params.items()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optim_edit.make_adam(self.params, self.rates)

    def on_fit_start(self) -> None:
        self.stats = Statistics(*(x.to(self.device) for x in vars(self.stats).values()))

    def training_step(self, batch: Any, batch_index: int) -> None:
        self.step = int(batch)
        frac = self.step / self.iters
        optimizer = self.optimizers()
        lr = log_linear(frac / self.rates.means_until, self.rates.means_init, self.rates.means_final)
        optim_edit.set_lr(optimizer.optimizer, "means", lr)
        known = self._known_view_loss(frac)
        score, render, logs = self._score_loss(frac)
        penalty = self.densify.penalty(self._live())
        total = score + sum(known.values()) + (0 if penalty is None else penalty)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(total)
        self._check_finite(total)
        self._gather(render)
        optimizer.step()
        noise = self.densify.noise(self.raw(), lr, generator(self.seed, "densify/noise", self.step))
        if noise is not None:
            optim_edit.shift(self.params, "means", noise)
        counts = self._densify(optimizer.optimizer)
        logs |= {f"loss/{name}": value.detach() for name, value in known.items()}
        logs |= {"loss/score": score.detach(), "loss/total": total.detach(), "num_gaussians": len(self.stats.count)}
        logs |= {"weight/score": self.distill.weight, "lr/means": lr} | counts
        logs |= {f"weight/{name}": loss.weight_at(frac) for name, loss in self.losses.items()}
        self.logged = report(self, self.step, logs, "train")

    def on_train_end(self) -> None:
        if self.step >= self.iters:
            result = self.densify.final(self.raw(), self.stats)
            optim_edit.apply(self.optimizers().optimizer, self.params, result.edit)

    def _known_view_loss(self, frac: float) -> dict[str, Tensor]:
        if self.reference is None or not any(loss.weight for loss in self.losses.values()):
            return {}
        cameras, rgb, alpha = self._known_view()
        render = self.raster(activate(self._live()), cameras, torch.ones(3, device=self.device))
        pairs = {"rgb": (render.rgb, rgb), "mask": (render.alpha, alpha)}
        return {k: loss.weight_at(frac) * loss(*pairs[k]) for k, loss in self.losses.items() if loss.weight}

    def _known_view(self) -> tuple[Any, Float[Tensor, "R H W 3"], Float[Tensor, "R H W 1"]]:
        """The reference at the resolution it is compared at, on white."""
        if self._known is None:
            size = self.resolution.reference
            rgba = self.reference.rgba.permute(0, 3, 1, 2).to(self.device)
            premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
            mode = {"mode": "area"} if rgba.shape[-1] % size == 0 else {"mode": "bilinear", "antialias": True}
            small = nn.functional.interpolate(premultiplied, (size, size), **mode).permute(0, 2, 3, 1)
            cameras = self.reference.cameras.resized(size, size).to(self.device)
            self._known = cameras, (small[..., :3] + 1 - small[..., 3:]).contiguous(), small[..., 3:].contiguous()
        return self._known

    def _score_loss(self, frac: float) -> tuple[Tensor, Render, dict[str, float]]:
        draw = generator(self.seed, "views", self.step)
        size, per_sample = self.resolution(frac), self.prior.views_per_sample
        cameras = self.camera.sample(draw, self.reference_elevation_deg, size, per_sample).to(self.device)
        background = self.background.sample(draw, self.camera.batch_size, per_sample).to(self.device)
        wanted = {"absgrad": True} if self.densify.absolute_gradient and self.densify.gathers(self.step) else {}
        render = self.raster(activate(self._live()), cameras, background, **wanted)
        t = self.anneal(frac, generator(self.seed, "timestep", self.step), len(self.prior.alpha_bar))
        losses = {
            name: self._member_loss(name, member, member.timestep(t), render, cameras, background)
            for name, member in members(self.prior).items()
        }
        logs = {f"loss/score_{name}": loss.detach() for name, loss in losses.items() if name}
        return sum(losses.values()), render, {"t": t, "resolution": size} | logs

    def _member_loss(
        self, name: str, member: Member, t: int, render: Render, cameras: Cameras, background: Tensor
    ) -> Tensor:
        """The distillation loss of one prior; a prior that works alone has the name ""."""
        prior, distill = member.prior, self.distill
        if name:
            scale = distill.guidance_scale if member.guidance_scale is None else member.guidance_scale
            distill = replace(distill, weight=distill.weight * member.weight, guidance_scale=scale)
        z = prior.encode(render.rgb.clamp(0, 1).permute(0, 3, 1, 2))
        condition = prior.condition(self.reference, self.prompt if member.prompted else None, cameras, background)
        eps = torch.randn(z.shape, generator=generator(self.seed, f"noise/{name}".rstrip("/"), self.step)).to(z)
        return distill.loss(
            lambda z_t, steps_: prior.predict(z_t, steps_, condition),
            z,
            torch.full((len(z),), t, device=self.device),
            eps,
            prior.alpha_bar.to(self.device),
        )

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
        optim_edit.apply(optimizer, self.params, result.edit)
        self.stats = Statistics.zeros(len(self.params["means"]), self.device)
        return {"clones": result.clones, "splits": result.splits, "prunes": result.prunes}

    def _check_finite(self, total: Tensor) -> None:
        if torch.isfinite(total) and all(p.grad is None or torch.isfinite(p.grad).all() for p in self.params.values()):
            return
        bad = [k for k, p in self.params.items() if p.grad is not None and not torch.isfinite(p.grad).all()]
        named = f"the gradient of {', '.join(bad)}" if bad else "the loss"
        raise FloatingPointError(
            f"stage gaussians, step {self.step}: {named} is not finite; the state before the step is kept. "
            "Lower the learning rates (optim.*) or the loss weights"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gaussian_stage"] = {"step": self.step, "stats": {k: v.cpu() for k, v in vars(self.stats).items()}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the checkpoint's number of Gaussians before Lightning copies the values in."""
        for name in self.params:
            self.params[name] = nn.Parameter(torch.empty_like(checkpoint["state_dict"][f"params.{name}"]))
        state = checkpoint["gaussian_stage"]
        self.step = state["step"]
        self.stats = replace(self.stats, **state["stats"])
