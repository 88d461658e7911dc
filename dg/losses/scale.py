"""Gaussians that are small."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dg.losses.weighted import SplatLoss
from dg.types import Gaussians


@dataclass(frozen=True)
class ScaleSize(SplatLoss):
    """Mean over Gaussians and axes of the standard deviation (world units) beyond `above`.

    Source: 3DGS-MCMC's scale regulariser (arXiv 2404.09591), which is `above` = 0.

    Attributes:
        above: smaller deviations cost nothing.
    """

    above: float = 0.0

    def __call__(self, gaussians: Gaussians) -> Tensor:
        return (gaussians.scales - self.above).clamp_min(0).mean()
