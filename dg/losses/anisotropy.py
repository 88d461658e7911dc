"""Gaussians that are no needles and no sheets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dg.losses.weighted import SplatLoss
from dg.types import Gaussians


@dataclass(frozen=True)
class Anisotropy(SplatLoss):
    """Mean of max(longest / shortest axis, limit) - limit.

    Source: PhysGaussian (arXiv 2311.12198).

    Attributes:
        limit: a Gaussian whose axes differ by no more than this costs nothing.
    """

    limit: float = 3.0

    def __call__(self, gaussians: Gaussians) -> Tensor:
        ratio = gaussians.scales.amax(1) / gaussians.scales.amin(1).clamp_min(1e-8)
        return (ratio - self.limit).clamp_min(0).mean()
