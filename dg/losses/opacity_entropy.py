"""Opacities that are either opaque or gone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dg.losses.weighted import SplatLoss
from dg.types import Gaussians


@dataclass(frozen=True)
class OpacityEntropy(SplatLoss):
    """Mean binary entropy of the opacities, -o ln o - (1 - o) ln(1 - o), in nats: 0 at 0 and 1, ln 2 at 0.5.

    Source: SuGaR (arXiv 2311.12775). Below 0.5 it pushes towards 0: all new Gaussians start at 0.1, so
    without `ramp` it works against every one that the other losses have not raised yet.

    Attributes:
        eps: opacities are clamped to [eps, 1 - eps], beyond which the slope of the logarithm is not usable.
    """

    eps: float = 1e-6

    def __call__(self, gaussians: Gaussians) -> Tensor:
        o = gaussians.opacities.clamp(self.eps, 1 - self.eps)
        return -(torch.xlogy(o, o) + torch.xlogy(1 - o, 1 - o)).mean()
