"""A texture's mip levels, and at which of them a pixel is looked up."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.transfer import constant


def mip_levels(texture: Float[Tensor, "h w C"]) -> list[Tensor]:
    """The texture and its halvings down to one texel. Sides are rounded down; a texel is the mean of what it covers."""
    levels = [texture]
    image = texture.permute(2, 0, 1)[None]
    while max(image.shape[-2:]) > 1:
        h, w = image.shape[-2:]
        if h % 2 or w % 2:
            image = F.adaptive_avg_pool2d(image, (max(h // 2, 1), max(w // 2, 1)))
        else:
            image = F.avg_pool2d(image, 2)
        levels.append(image[0].permute(1, 2, 0))
    return levels


def mip_level(uv_dxy: Float[Tensor, "N 4"], size: tuple[int, int], count: int) -> Float[Tensor, " N"]:
    """log2 of the footprint's longer half-axis in texels (the Jacobian's largest singular value), in [0, count - 1]."""
    height, width = size
    jacobian = uv_dxy.double()
    jacobian = jacobian * constant((width, width, height, height), jacobian)
    a = jacobian[:, 0].square() + jacobian[:, 2].square()
    b = jacobian[:, 1].square() + jacobian[:, 3].square()
    c = jacobian[:, 0] * jacobian[:, 1] + jacobian[:, 2] * jacobian[:, 3]
    longest_squared = (a + b) / 2 + ((a - b).square() / 4 + c.square()).sqrt()
    return (0.5 * longest_squared.clamp_min(1e-30).log2()).clamp(0, count - 1)
