"""The known view's silhouette."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dg.losses.weighted import Weighted


@dataclass(frozen=True)
class MaskLoss(Weighted):
    """Mean squared error between the render's alpha and the reference's. DreamGaussian's weight: 1000."""

    def __call__(self, alpha: Float[Tensor, "V H W 1"], target: Float[Tensor, "V H W 1"]) -> Tensor:
        return (alpha - target).square().mean()
