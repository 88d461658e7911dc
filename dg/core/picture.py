"""Pictures with alpha."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def over(
    rgba: Float[Tensor, "*B H W 4"], background: float | Float[Tensor, "*B 1 1 3"] = 1.0
) -> Float[Tensor, "*B H W 3"]:
    """A picture with straight alpha, laid over a background (white unless told otherwise)."""
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + background * (1 - alpha)
