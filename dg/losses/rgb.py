"""The known view's colours."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dg.losses.weighted import Weighted


@dataclass(frozen=True)
class RgbLoss(Weighted):
    """Mean squared error between the clamped render and the reference, both on white. DreamGaussian's weight: 10000."""

    def __call__(self, rgb: Float[Tensor, "V H W 3"], target: Float[Tensor, "V H W 3"]) -> Tensor:
        return (rgb.clamp(0, 1) - target).square().mean()
