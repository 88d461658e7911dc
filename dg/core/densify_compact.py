"""Compactness-based densification (GSGEN, Chen et al. 2023, arXiv 2309.16585): fill the gaps between neighbours.

Where two near neighbours' surfaces do not touch, a Gaussian is put into the gap. The surface is the ellipsoid of one
standard deviation, the newcomer's scale a sixth of the gap (GSGEN's, as facts), so three deviations reach both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from dg.core.densify import AdaptiveDensity, Densified, Statistics, prune_mask, rows, some_stay
from dg.core.gaussians import RawGaussians
from dg.core.optim_edit import Edit
from dg.core.splat import rotation_from_quat

GAP_SHARE = 1 / 6  # the newcomer's scale


def neighbour_pairs(points: Float[Tensor, "N 3"], k: int) -> Int[Tensor, "P 2"]:
    """Every pair (i < j) in which one is among the other's k nearest, each once, in lexicographic order."""
    n = len(points)
    if n < 2:
        return torch.zeros(0, 2, dtype=torch.long, device=points.device)
    xyz = points.detach().double().cpu().numpy()
    found = torch.from_numpy(cKDTree(xyz).query(xyz, k=min(k + 1, n))[1])
    pairs = torch.stack([torch.arange(n)[:, None].expand_as(found), found], -1).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]].sort(1).values.unique(dim=0).to(points.device)


def surface_distance(raw: RawGaussians, direction: Float[Tensor, "N 3"]) -> Float[Tensor, N]:
    """From the centre to the ellipsoid of one standard deviation along a unit direction: 1 / |S^-1 R^T u|."""
    local = (rotation_from_quat(raw.quats).transpose(1, 2) @ direction[..., None])[..., 0]
    return 1 / (local / raw.log_scales.exp()).norm(dim=-1).clamp_min(1e-12)


def fill_gaps(raw: RawGaussians, k: int) -> RawGaussians:
    """The newcomers: in the middle of every gap, round, with the mean colour and opacity logit of the two sides."""
    pairs = neighbour_pairs(raw.means, k)
    one, two = (RawGaussians(**{n: v[side] for n, v in raw.as_dict().items()}) for side in pairs.unbind(-1))
    apart = two.means - one.means
    distance = apart.norm(dim=-1)
    direction = apart / distance.clamp_min(1e-12)[:, None]
    reach_one, reach_two = surface_distance(one, direction), surface_distance(two, direction)
    gap = distance - reach_one - reach_two
    new = RawGaussians(**{n: (a + two.as_dict()[n]) / 2 for n, a in one.as_dict().items()})
    round_ = torch.zeros_like(new.quats)
    round_[:, 0] = 1
    new = replace(
        new,
        means=one.means + (reach_one + gap / 2)[:, None] * direction,
        log_scales=(gap.clamp_min(1e-12) * GAP_SHARE).log()[:, None].expand(-1, 3),
        quats=round_,
    )
    return rows(new, gap > 0)


@dataclass(frozen=True)
class CompactDensity(AdaptiveDensity):
    """Fills gaps where `AdaptiveDensity` would clone and split; prunes, fires and resets as that does.

    Attributes:
        neighbours: how many nearest ones of each Gaussian are looked at (GSGEN: 3).
    """

    neighbours: int = 3

    def _grow_and_prune(self, raw: RawGaussians, stats: Statistics, generator: torch.Generator) -> Densified:
        limits = {"min_opacity": self.min_opacity, "max_scale": self.prune_scale * self.extent}
        keep = ~prune_mask(raw, **limits)
        new = fill_gaps(rows(raw, keep), self.neighbours)
        if int(keep.sum()) + len(new) > self.max_gaussians:
            new = rows(new, torch.zeros(len(new), dtype=torch.bool, device=keep.device))
        new_goes = prune_mask(new, **limits)
        some_stay(keep, new_goes, **limits)
        return Densified(
            Edit(keep, rows(new, ~new_goes)), clones=len(new), prunes=int((~keep).sum()) + int(new_goes.sum())
        )
