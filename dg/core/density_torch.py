"""`dg.core.density`'s lattice on an accelerator: the same Gaussians in the same blocks, many at once."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_AT_ONCE = 1 << 23  # values per temporary: 67 MB in double precision, a few of them at a time


def sample_blocks(
    means: np.ndarray,
    factors: np.ndarray,
    opacities: np.ndarray,
    q_max: np.ndarray,
    origin: np.ndarray,
    spacing: float,
    start: np.ndarray,
    members: np.ndarray,
    resolution: int,
    side: int,
    device: torch.device | str,
) -> Float[Tensor, "R R R"]:
    """What the compiled kernel of `dg.core.density` computes, in double precision up to the sum's rounding.

    Deterministic. The blocks with the most Gaussians come first, so that the work on their n-th Gaussians is on the
    head of one list and nothing waits for the longest block.

    Args:
        start, members: compressed rows: the Gaussians that each block of side^3 points sees.
    """
    per_axis = -(-resolution // side)
    count = np.diff(start)
    order = np.argsort(-count, kind="stable")
    order = order[: int((count > 0).sum())]
    sizes = count[order]
    put = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)  # noqa: E731
    means_, factors_, opacities_, q_max_ = put(means), put(factors), put(opacities), put(q_max)
    members_, first, sizes_ = put(members.astype(np.int64)), put(start[order]), put(sizes)
    blocks = put(order)
    corner = torch.stack([blocks // per_axis**2, blocks // per_axis % per_axis, blocks % per_axis], 1) * side
    points = corner[:, :, None] + torch.arange(side, device=device)  # lattice coordinates [B 3 side]
    world = put(origin)[:, None] + spacing * points.double()
    total = torch.zeros(len(order), side, side, side, dtype=torch.float64, device=device)
    rank = 0
    while rank < (sizes[0] if len(sizes) else 0):
        active = int(np.searchsorted(-sizes, -rank))  # blocks with more than `rank` Gaussians
        step = min(max(1, _AT_ONCE // (active * side**3)), int(sizes[0]) - rank)
        place = rank + torch.arange(step, device=device)
        inside = place < sizes_[:active, None]
        g = members_[torch.where(inside, first[:active, None] + place, 0)]
        opacity = torch.where(inside, opacities_[g], 0.0)
        total[:active] += _contributions(world[:active], means_[g], factors_[g], opacity, q_max_[g]).sum(1)
        rank += step
    grid = torch.zeros((per_axis * side,) * 3, dtype=torch.float32, device=device)
    cells = grid.view(per_axis, side, per_axis, side, per_axis, side).permute(0, 2, 4, 1, 3, 5)
    i, j, k = (corner // side).unbind(1)
    cells[i, j, k] = total.float()
    return grid[:resolution, :resolution, :resolution].contiguous()


def _contributions(
    world: Float[Tensor, "B 3 s"],
    means: Float[Tensor, "B M 3"],
    factors: Float[Tensor, "B M 3 3"],
    opacities: Float[Tensor, "B M"],
    q_max: Float[Tensor, "B M"],
) -> Float[Tensor, "B M s s s"]:
    """opacity exp(-q / 2) where q <= q_max, else 0."""
    dx, dy, dz = (world[:, None] - means[..., None]).unbind(2)  # [B M s] each
    q = torch.zeros((), dtype=world.dtype, device=world.device)
    for row in range(3):
        a, b, c = (factors[:, :, row, d, None] * delta for d, delta in enumerate((dx, dy, dz)))
        q = q + (a[..., :, None, None] + b[..., None, :, None] + c[..., None, None, :]).square()
    wide = lambda x: x[..., None, None, None]  # noqa: E731
    return torch.where(q <= wide(q_max), wide(opacities) * (-0.5 * q).exp(), 0.0)
