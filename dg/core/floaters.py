"""Removal of floaters: Gaussians far from all others (statistical outlier removal, Rusu et al. 2008)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from dg.core.densify import Densified, DensityRule, Statistics
from dg.core.gaussians import RawGaussians
from dg.core.optim_edit import Edit


def floaters(points: Float[Tensor, "N 3"], *, neighbours: int, deviations: float) -> Bool[Tensor, N]:
    """True where the mean distance to the k nearest others exceeds the mean of all those by `deviations` deviations.

    Fewer points than `neighbours` + 1 hold no floater.
    """
    if len(points) <= neighbours:
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)
    xyz = points.detach().double().cpu().numpy()
    distance = torch.from_numpy(cKDTree(xyz).query(xyz, k=neighbours + 1)[0][:, 1:].mean(1))
    return (distance > distance.mean() + deviations * distance.std(correction=0)).to(points.device)


@dataclass(frozen=True)
class WithoutFloaters(DensityRule):
    """Another rule, and every `interval` steps, and after the last one, what floats goes.

    Attributes:
        rule: what is otherwise done; where both are due, it comes first.
        neighbours, deviations: see `floaters`.
    """

    rule: DensityRule
    interval: int = 100
    neighbours: int = 16
    deviations: float = 3.0

    @property
    def absolute_gradient(self) -> bool:  # type: ignore[override]
        return self.rule.absolute_gradient

    def inert(self, iters: int) -> list[str]:
        late = [f"densify.interval={self.interval}: floaters go only at the end of {iters} steps"]
        return self.rule.inert(iters) + (late if self.interval > iters else [])

    def gathers(self, step: int) -> bool:
        return self.rule.gathers(step)

    def edit(
        self, step: int, iters: int, raw: RawGaussians, stats: Statistics, generator: torch.Generator
    ) -> Densified | None:
        result = self.rule.edit(step, iters, raw, stats, generator)
        return self._without(raw, result) if step % self.interval == 0 else result

    def final(self, raw: RawGaussians, stats: Statistics) -> Densified:
        return self._without(raw, self.rule.final(raw, stats))

    def penalty(self, raw: RawGaussians) -> Tensor | None:
        return self.rule.penalty(raw)

    def noise(self, raw: RawGaussians, means_lr: float, generator: torch.Generator) -> Float[Tensor, "N 3"] | None:
        return self.rule.noise(raw, means_lr, generator)

    def _without(self, raw: RawGaussians, result: Densified | None) -> Densified:
        edit = Edit(torch.ones(len(raw), dtype=torch.bool, device=raw.means.device)) if result is None else result.edit
        old, new = raw.means[edit.keep], None if edit.append is None else edit.append.means
        goes = floaters(
            old if new is None else torch.cat([old, new]), neighbours=self.neighbours, deviations=self.deviations
        )
        keep = edit.keep.clone()
        keep[edit.keep] = ~goes[: len(old)]
        append = edit.append
        if append is not None:
            append = RawGaussians(**{k: v[~goes[len(old) :]] for k, v in append.as_dict().items()})
        changed = None if edit.replace is None else {k: v[~goes] for k, v in edit.replace.items()}
        base = result or Densified(edit)
        return replace(base, edit=Edit(keep, append, changed), prunes=base.prunes + int(goes.sum()))
