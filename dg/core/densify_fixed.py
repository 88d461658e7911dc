"""A constant number of Gaussians: what goes is replaced, and nothing more. The ablation between `none` and growth."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dg.core.densify import AdaptiveDensity, Densified, Statistics, concatenate, prune_mask, rows, split_children
from dg.core.gaussians import RawGaussians
from dg.core.optim_edit import Edit


@dataclass(frozen=True)
class FixedCount(AdaptiveDensity):
    """Prunes as `AdaptiveDensity`; as many of the rest as went, by the largest mean gradients, are cloned or split.

    Each of those adds one, whatever its gradient, so the number stays what it was, unless fewer than half survive: then
    each survivor is doubled once. There is no prune after the last step. `grad_threshold` has no meaning here.
    """

    def _grow_and_prune(self, raw: RawGaussians, stats: Statistics, generator: torch.Generator) -> Densified:
        max_scale = raw.log_scales.exp().amax(-1)
        goes = prune_mask(raw, min_opacity=self.min_opacity, max_scale=self.prune_scale * self.extent)
        if bool(goes.all()):
            raise FloatingPointError(
                f"densification would remove all {len(raw)} Gaussians (opacity below {self.min_opacity}): the losses "
                "are not holding them; lower the learning rates or min_opacity"
            )
        due = min(int(goes.sum()), int((~goes).sum()))
        grows = torch.zeros_like(goes)
        grows[stats.mean_grad.masked_fill(goes, -1).topk(due).indices] = True
        large = max_scale > self.percent_dense * self.extent
        clone, split = grows & ~large, grows & large
        new = concatenate(rows(raw, clone), split_children(rows(raw, split), generator))
        return Densified(
            Edit(~(goes | split), new), clones=int(clone.sum()), splits=int(split.sum()), prunes=int(goes.sum())
        )

    def final(self, raw: RawGaussians, stats: Statistics) -> Densified:
        return super(AdaptiveDensity, self).final(raw, stats)
