"""`dg.core.dilate`'s searches on an accelerator: exact, by looking at everything."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_ROWS_AT_ONCE = 8  # of 1024^2 texels: 67 MB a temporary
_PAIRS_AT_ONCE = 1 << 25  # distances: 0.13 GB, twice


def nearest_known(known: Bool[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    """Flat index of the nearest known texel of each texel; of equally near ones the first in its row of columns.

    Exact (Saito and Toriwaki 1994): first along the columns, then over all columns at once.
    """
    height, width = known.shape
    row = torch.arange(height, device=known.device)[:, None].expand(height, width)
    far = 4 * max(height, width)
    above = torch.where(known, row, -far).cummax(0).values
    below = torch.where(known, row, far).flip(0).cummin(0).values.flip(0)
    source = torch.where(row - above <= below - row, above, below)  # in the same column
    squared = (source - row).square()
    column = torch.arange(width, device=known.device)
    best = torch.full((height, width), torch.iinfo(torch.int64).max, device=known.device)
    for first in range(0, width, _ROWS_AT_ONCE):
        other = column[first : first + _ROWS_AT_ONCE]
        key = squared[:, other].T[:, :, None] + (other[:, None] - column).square()[:, None]  # [n h w]
        best = torch.minimum(best, (key * width + other[:, None, None]).amin(0))
    chosen = best % width
    return source.gather(1, chosen).clamp(0, height - 1) * width + chosen


def nearest_points(
    points: Float[Tensor, "n 3"], among: Float[Tensor, "m 3"], k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Distances to the k nearest and which they are, ascending."""
    found = []
    for part in points.split(max(1, _PAIRS_AT_ONCE // len(among))):
        squared = torch.zeros(len(part), len(among), device=points.device)
        for a, b in zip(part.T, among.T, strict=True):  # torch.cdist takes a block of threads for each pair
            apart = a[:, None] - b
            squared.addcmul_(apart, apart)
        found.append(squared.topk(k, dim=1, largest=False))
    return torch.cat([f.values.sqrt() for f in found]), torch.cat([f.indices for f in found])
