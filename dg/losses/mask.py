"""The known view's silhouette."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dg.losses.weighted import KnownViewLoss, Target
from dg.types import Render


@dataclass(frozen=True)
class MaskLoss(KnownViewLoss):
    """Mean squared error between the render's alpha and the reference's. DreamGaussian's weight: 1000."""

    def __call__(self, render: Render, target: Target) -> Tensor:
        return (render.alpha - target.alpha).square().mean()
