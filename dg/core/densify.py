"""Adaptive density control: statistics -> plan -> an `Edit` that `optim_edit` applies.

Rules and numbers are 3DGS's as DreamGaussian runs them (facts of its gs_renderer.py and main.py). Gradients are per NDC
unit, as the thresholds of the paper and the release are: a pixel gradient times half the picture's size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dg.core.gaussians import RawGaussians
from dg.core.optim_edit import Edit
from dg.core.splat import rotation_from_quat
from dg.core.transfer import constant, upload


@dataclass(frozen=True)
class Statistics:
    """Accumulated since the last densification."""

    grad_sum: Float[Tensor, N]  # sum of |dL/d(x, y)| in NDC units over the steps in which it was visible
    count: Float[Tensor, N]
    max_radius_px: Float[Tensor, N]

    @staticmethod
    def zeros(n: int, device: torch.device | str = "cpu") -> Statistics:
        return Statistics(*(torch.zeros(n, device=device) for _ in range(3)))

    @property
    def mean_grad(self) -> Float[Tensor, N]:
        return torch.where(self.count > 0, self.grad_sum / self.count.clamp_min(1), 0)


def accumulate(
    stats: Statistics, means_px_grad: Float[Tensor, "N 2"], radii_px: Float[Tensor, N], height: int, width: int
) -> Statistics:
    """Adds one view of height x width pixels."""
    visible = radii_px > 0
    ndc = means_px_grad * constant((0.5 * width, 0.5 * height), means_px_grad)
    return Statistics(
        grad_sum=stats.grad_sum + torch.where(visible, ndc.norm(dim=-1), 0),
        count=stats.count + visible,
        max_radius_px=torch.maximum(stats.max_radius_px, radii_px),
    )


@dataclass(frozen=True)
class Plan:
    clone: Bool[Tensor, N]
    split: Bool[Tensor, N]


def plan_growth(mean_grad: Tensor, max_scale: Tensor, *, threshold: float, split_above: float) -> Plan:
    """Clone small and split large Gaussians where the mean gradient reaches the threshold."""
    grow = mean_grad >= threshold
    return Plan(clone=grow & (max_scale <= split_above), split=grow & (max_scale > split_above))


def rows(raw: RawGaussians, which: Bool[Tensor, N] | Int[Tensor, M]) -> RawGaussians:
    """Some of them, by a mask or by their numbers."""
    kept = which.nonzero()[:, 0] if which.dtype == torch.bool else which  # a GPU is waited for once, not six times
    return RawGaussians(**{name: value[kept] for name, value in raw.as_dict().items()})


def concatenate(*parts: RawGaussians) -> RawGaussians:
    dicts = [part.as_dict() for part in parts]
    return RawGaussians(**{name: torch.cat([d[name] for d in dicts]) for name in dicts[0]})


def split_children(parents: RawGaussians, generator: torch.Generator, children: int = 2) -> RawGaussians:
    """Each parent's children lie at draws from the parent itself, with its scales divided by 0.8 * children."""
    many = RawGaussians(**{k: v.repeat(children, *([1] * (v.ndim - 1))) for k, v in parents.as_dict().items()})
    noise = upload(torch.randn(many.means.shape, generator=generator), many.means.device).to(many.means)
    offset = rotation_from_quat(many.quats) @ (noise * many.log_scales.exp())[..., None]
    shrink = torch.log(torch.tensor(0.8 * children))
    return replace(many, means=many.means + offset[..., 0], log_scales=many.log_scales - shrink)


def prune_mask(raw: RawGaussians, *, min_opacity: float, max_scale: float) -> Bool[Tensor, N]:
    """True where a Gaussian goes: too faint, or larger than max_scale (world units) along its longest axis."""
    faint = raw.opacity_logits[:, 0].sigmoid() < min_opacity
    return faint | (raw.log_scales.exp().amax(-1) > max_scale)


def some_stay(keep: Bool[Tensor, N], new_goes: Bool[Tensor, M], *, min_opacity: float, max_scale: float) -> None:
    """Raises:
    FloatingPointError: neither an old nor a new Gaussian would be left.
    """
    if not (keep.any() or (~new_goes).any()):
        raise FloatingPointError(
            f"densification would remove all {len(keep)} Gaussians (opacity below {min_opacity} or scale above "
            f"{max_scale:g}): the losses are not holding them; lower the learning rates or min_opacity"
        )


@dataclass(frozen=True)
class Densified:
    """An edit and what it did, for the log."""

    edit: Edit
    clones: int = 0
    splits: int = 0
    prunes: int = 0


def everyone(raw: RawGaussians) -> Bool[Tensor, N]:
    """The mask that keeps all."""
    return torch.ones(len(raw), dtype=torch.bool, device=raw.means.device)


class DensityRule:
    """What stage 1 asks of a rule. The defaults change nothing, so a rule says only what it does.

    Attributes:
        absolute_gradient: statistics are gathered from sum over pixels of |dL/d(x, y)|, which the rasteriser is then
            asked for, instead of from the absolute value of the sum.
    """

    absolute_gradient: bool = False

    def inert(self, iters: int) -> list[str]:
        """Settings that cannot act in a run of `iters` steps."""
        return []

    def gathers(self, step: int) -> bool:
        """Whether statistics are gathered in optimiser step number `step` (1-based)."""
        return False

    def edit(
        self, step: int, iters: int, raw: RawGaussians, stats: Statistics, generator: torch.Generator
    ) -> Densified | None:
        """What to do after optimiser step number `step`; None where nothing is due."""
        return None

    def final(self, raw: RawGaussians, stats: Statistics) -> Densified:
        """The last change, after the last step."""
        return Densified(Edit(everyone(raw)))

    def penalty(self, raw: RawGaussians) -> Tensor | None:
        """A differentiable term of the loss, scalar; None where there is none."""
        return None

    def noise(self, raw: RawGaussians, means_lr: float, generator: torch.Generator) -> Float[Tensor, "N 3"] | None:
        """What is added to the means after every step, Adam's moments untouched; None where nothing is."""
        return None


@dataclass(frozen=True)
class AdaptiveDensity(DensityRule):
    """Clone, split and prune every `interval` steps; DreamGaussian's release by default.

    Attributes:
        start, end: first and last step (1-based) in which statistics are gathered and densification may happen.
        grad_threshold: mean gradient per NDC unit; belongs to the prior's profile, since it grows with the loss.
        percent_dense: times `extent` is the border between cloning and splitting.
        prune_scale: times `extent` is the largest scale that survives.
        final_max_scale: world units, for the one prune after the last step.
        opacity_reset_interval: 0 is never (so is the release's 700 in 500 steps).
        opacity_reset_to: no opacity is above it after a reset.
        spare_last_interval: no growth in the run's last interval, whose clones nothing would optimise. The release has
            the switch off in effect.
        legacy_screen_prune: the release's last prune by screen radius > 1 px, which empties a model unless the last
            step is a multiple of the interval.
        max_gaussians: growth stops at this many (a guard, not in the release).
        absolute_gradient: see `DensityRule` (AbsGS, arXiv 2404.10484).
    """

    start: int = 100
    end: int = 3000
    interval: int = 100
    grad_threshold: float = 0.01
    percent_dense: float = 0.01
    extent: float = 4.0
    min_opacity: float = 0.01
    prune_scale: float = 0.1
    final_max_scale: float = 0.1
    opacity_reset_interval: int = 0
    opacity_reset_to: float = 0.01
    spare_last_interval: bool = True
    legacy_screen_prune: bool = False
    max_gaussians: int = 200_000
    absolute_gradient: bool = False

    def inert(self, iters: int) -> list[str]:
        found = []
        if self.start > iters:
            found.append(f"densify.start={self.start} lies beyond the last step {iters}: nothing is ever densified")
        elif self.interval > iters:
            found.append(f"densify.interval={self.interval} is longer than the run of {iters} steps")
        if self.opacity_reset_interval > iters:
            found.append(f"densify.opacity_reset_interval={self.opacity_reset_interval} never fires in {iters} steps")
        return found

    def gathers(self, step: int) -> bool:
        return self.start <= step <= self.end

    def fires(self, step: int, iters: int) -> bool:
        last = iters - self.interval if self.spare_last_interval else iters
        return self.gathers(step) and step % self.interval == 0 and step <= last

    def edit(
        self, step: int, iters: int, raw: RawGaussians, stats: Statistics, generator: torch.Generator
    ) -> Densified | None:
        result = self._grow_and_prune(raw, stats, generator) if self.fires(step, iters) else None
        if self.opacity_reset_interval and step % self.opacity_reset_interval == 0 and self.gathers(step):
            return self._with_opacity_reset(raw, result)
        return result

    def _grow_and_prune(self, raw: RawGaussians, stats: Statistics, generator: torch.Generator) -> Densified:
        max_scale = raw.log_scales.exp().amax(-1)
        plan = plan_growth(
            stats.mean_grad, max_scale, threshold=self.grad_threshold, split_above=self.percent_dense * self.extent
        )
        if len(raw) + int(plan.clone.sum()) + int(plan.split.sum()) > self.max_gaussians:
            plan = Plan(torch.zeros_like(plan.clone), torch.zeros_like(plan.split))
        new = concatenate(rows(raw, plan.clone), split_children(rows(raw, plan.split), generator))
        limits = {"min_opacity": self.min_opacity, "max_scale": self.prune_scale * self.extent}
        goes, new_goes = prune_mask(raw, **limits), prune_mask(new, **limits)
        keep = ~(plan.split | goes)
        some_stay(keep, new_goes, **limits)
        return Densified(
            Edit(keep, rows(new, ~new_goes)),
            clones=int(plan.clone.sum()),
            splits=int(plan.split.sum()),
            prunes=int((goes & ~plan.split).sum() + new_goes.sum()),
        )

    def _with_opacity_reset(self, raw: RawGaussians, result: Densified | None) -> Densified:
        result = result or Densified(Edit(everyone(raw)))
        logits = raw.opacity_logits[result.edit.keep]
        if result.edit.append is not None:
            logits = torch.cat([logits, result.edit.append.opacity_logits])
        ceiling = torch.logit(torch.tensor(self.opacity_reset_to)).item()
        return replace(result, edit=replace(result.edit, replace={"opacity_logits": logits.clamp_max(ceiling)}))

    def final(self, raw: RawGaussians, stats: Statistics) -> Densified:
        """The one prune after the last step."""
        goes = prune_mask(raw, min_opacity=self.min_opacity, max_scale=self.final_max_scale)
        if self.legacy_screen_prune:
            goes = goes | (stats.max_radius_px > 1)
        return Densified(Edit(~goes), prunes=int(goes.sum()))


@dataclass(frozen=True)
class NoDensity(DensityRule):
    """The starting Gaussians are all there will ever be (ablation `no_densify`)."""
