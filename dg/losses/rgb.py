"""The known view's colours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dg.losses.weighted import KnownViewLoss, Target
from dg.types import Render


@dataclass(frozen=True)
class RgbLoss(KnownViewLoss):
    """Mean squared error between the clamped render and the reference, both on white. DreamGaussian's weight: 10000."""

    def __call__(self, render: Render, target: Target) -> Tensor:
        return (render.rgb.clamp(0, 1) - target.rgb).square().mean()
