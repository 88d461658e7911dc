"""3DGS as Markov chain Monte Carlo (Kheradmand et al. 2024, arXiv 2404.09591): a set of samples, not a grown tree.

Faint Gaussians move to live ones, the set grows by a fixed share up to a cap, and the means get noise where opacity is
low. Nothing is cloned for its gradient. Numbers are the paper's and gsplat 1.5.3's MCMCStrategy's, as facts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.densify import Densified, DensityRule, Statistics, concatenate, rows
from dg.core.gaussians import RawGaussians
from dg.core.optim_edit import Edit
from dg.core.splat import rotation_from_quat
from dg.core.transfer import upload

MAX_COPIES = 51  # at one place; the alternating sum below loses its digits beyond
GATE_STEEPNESS = 100.0  # of the noise's switch at opacity `min_opacity`


def share(opacity: Float[Tensor, N], copies: Int[Tensor, N]) -> tuple[Float[Tensor, N], Float[Tensor, N]]:
    """(opacity, factor on the scales) of each of `copies` equal Gaussians that together look like one of `opacity`.

    Equation 9 of the paper: o' = 1 - (1 - o)^(1/n), so that the centre looks the same, and the scale that keeps the
    integral of the composited alpha over a line: s'/s = o / sum_i=1..n sum_k=0..i-1 C(i-1, k) (-1)^k o'^(k+1) /
    sqrt(k+1). The double sum is sum_k=0..n-1 C(n, k+1) (-1)^k o'^(k+1) / sqrt(k+1). In float64, at most
    MAX_COPIES copies.
    """
    n = copies.clamp(1, MAX_COPIES).double()
    o = opacity.double().clamp(1e-8, 1 - 1e-8)
    each = -torch.expm1(torch.log1p(-o) / n)
    k = torch.arange(MAX_COPIES, dtype=torch.float64, device=o.device)
    upper = n[:, None]
    log_choose = torch.lgamma(upper + 1) - torch.lgamma(k + 2) - torch.lgamma((upper - k).clamp_min(1))
    terms = torch.exp(log_choose + (k + 1) * each.log()[:, None]) / (k + 1).sqrt() * (-1) ** k
    total = torch.where(k < upper, terms, 0).sum(1)
    return each.to(opacity), (o / total).to(opacity)


def position_noise(
    raw: RawGaussians, generator: torch.Generator, *, amount: float, min_opacity: float
) -> Float[Tensor, "N 3"]:
    """amount * sigmoid(-100 (o - min_opacity)) * Sigma n, n ~ N(0, 1): faint ones move along their shape."""
    n = upload(torch.randn(raw.means.shape, generator=generator), raw.means.device).to(raw.means)
    rotation = rotation_from_quat(raw.quats)
    local = (2 * raw.log_scales).exp() * (rotation.transpose(1, 2) @ n[..., None])[..., 0]
    gate = torch.sigmoid(-GATE_STEEPNESS * (raw.opacity_logits.sigmoid() - min_opacity))
    return amount * gate * (rotation @ local[..., None])[..., 0]


def relocate(raw: RawGaussians, dead: Tensor, added: int, generator: torch.Generator) -> Edit:
    """Dead Gaussians, and `added` new ones, become copies of live ones drawn with probability by opacity.

    A live one that was drawn n times and its n copies share its look (`share`). It counts as new: its moments are zero.
    """
    live = (~dead).nonzero()[:, 0]
    drawn = int(dead.sum()) + added
    if not drawn:
        return Edit(torch.ones_like(dead))
    chance = raw.opacity_logits[live, 0].sigmoid().cpu().double()
    picked = torch.multinomial(chance, drawn, replacement=True, generator=generator).to(live.device)
    times = torch.bincount(picked, minlength=len(live))
    parents = live[times > 0]
    copies = times[times > 0] + 1
    opacity, factor = share(raw.opacity_logits[parents, 0].sigmoid(), copies)
    chosen = rows(raw, parents)
    shared = replace(
        chosen,
        opacity_logits=opacity.clamp(1e-6, 1 - 1e-6).logit()[:, None],
        log_scales=chosen.log_scales + factor.log()[:, None],
    )
    keep = ~dead
    keep[parents] = False
    again = torch.repeat_interleave(torch.arange(len(parents), device=live.device), copies - 1)
    return Edit(keep, concatenate(shared, rows(shared, again)))


@dataclass(frozen=True)
class MCMCDensity(DensityRule):
    """Relocation, growth and noise.

    Attributes:
        start, end, interval: steps (1-based) in which Gaussians move and the set grows.
        min_opacity: a Gaussian at most this opaque is dead.
        growth: share by which the set grows each time.
        max_gaussians: where growth ends (the paper's cap; its 1,000,000 is for scenes).
        noise_lr: times the means' learning rate is the noise's amount. The paper's 5e5 belongs to a rate of 1.6e-4.
        opacity_reg, scale_reg: weights of the mean opacity and of the mean scale (world units) in the loss.
    """

    start: int = 100
    end: int = 3000
    interval: int = 100
    min_opacity: float = 0.005
    growth: float = 0.05
    max_gaussians: int = 200_000
    noise_lr: float = 8e3
    opacity_reg: float = 0.01
    scale_reg: float = 0.01

    def inert(self, iters: int) -> list[str]:
        if self.start > iters or self.interval > iters:
            return [
                f"densify.start={self.start}, densify.interval={self.interval}: no Gaussian ever moves in {iters} steps"
            ]
        return []

    def edit(
        self, step: int, iters: int, raw: RawGaussians, stats: Statistics, generator: torch.Generator
    ) -> Densified | None:
        if not self.start <= step <= self.end or step % self.interval or step > iters - self.interval:
            return None
        dead = raw.opacity_logits[:, 0].sigmoid() <= self.min_opacity
        if bool(dead.all()):
            raise FloatingPointError(
                f"all {len(raw)} Gaussians are fainter than densify.min_opacity={self.min_opacity}: the losses are not "
                "holding them; lower the learning rates or densify.opacity_reg"
            )
        added = max(0, min(self.max_gaussians, math.floor((1 + self.growth) * len(raw))) - len(raw))
        return Densified(relocate(raw, dead, added, generator), clones=added + int(dead.sum()), prunes=int(dead.sum()))

    def final(self, raw: RawGaussians, stats: Statistics) -> Densified:
        dead = raw.opacity_logits[:, 0].sigmoid() <= self.min_opacity
        return Densified(Edit(~dead), prunes=int(dead.sum()))

    def penalty(self, raw: RawGaussians) -> Tensor | None:
        if not (self.opacity_reg or self.scale_reg):
            return None
        return self.opacity_reg * raw.opacity_logits.sigmoid().mean() + self.scale_reg * raw.log_scales.exp().mean()

    def noise(self, raw: RawGaussians, means_lr: float, generator: torch.Generator) -> Float[Tensor, "N 3"] | None:
        if not self.noise_lr:
            return None
        return position_noise(raw, generator, amount=self.noise_lr * means_lr, min_opacity=self.min_opacity)
