"""The cavities of a sampled solid: what lies below the level and cannot be reached from outside.

One definition in two forms: numpy and scipy, and torch for fields that live on an accelerator. Distances between
lattice points are compared as squares, which are whole numbers, so both forms agree exactly.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from dg.core.slabs import batched

_AT_ONCE = 20_000_000  # values of a temporary: 80 MB, 8 layers of 134^3 points


def outside(values: Float[Tensor, "R R R"], level: float, leak: int = 0) -> Bool[Tensor, "R R R"]:
    """Lattice points below `level`, but for the cavities: what a path of such points does not join to the border.

    Args:
        leak: holes in a cavity's wall up to about 2 * leak points wide do not count as a way in. A cavity is then what
            is wider than that and lies behind a wall thickened by `leak` points, and all that is nearer to it than to
            the way out. Gaps that are narrow all along, as between fingers, are no cavities and stay open.
    """
    solid = F.pad(values.detach() >= level, (leak + 1,) * 6, value=False)
    reached = (_outside_batched if batched(values.device) else _outside_compiled)(solid, leak)
    inner = slice(leak + 1, -leak - 1)
    return reached[inner, inner, inner].contiguous()


def _outside_compiled(solid: Bool[Tensor, "S S S"], leak: int) -> Bool[Tensor, "S S S"]:
    solid = solid.cpu().numpy()
    labels, _ = ndimage.label(~solid)
    reached = labels == labels[0, 0, 0]
    if leak:
        wide = ~_dilated(solid, leak)
        chambers, _ = ndimage.label(wide)
        closed = wide & (chambers != chambers[0, 0, 0]) & reached
        if closed.any():
            box = _box(~wide | closed)  # beyond it lies nothing but wide open space, of which one layer is kept
            reached[box] &= _squared_distance(closed[box]) >= _squared_distance((wide & ~closed)[box])
    return torch.from_numpy(reached)


def _dilated(solid: np.ndarray, reach: int) -> np.ndarray:
    """Within `reach` (Euclidean) of a solid point; the solid keeps that far from the array's border."""
    out = solid.copy()
    n = solid.shape[0]
    for offset in product(range(-reach, reach + 1), repeat=3):
        if 0 < sum(o * o for o in offset) <= reach * reach:
            to = tuple(slice(max(o, 0), n + min(o, 0)) for o in offset)
            of = tuple(slice(max(-o, 0), n + min(-o, 0)) for o in offset)
            out[to] |= solid[of]
    return out


def _box(inside: np.ndarray) -> tuple[slice, ...]:
    """The bounding box of the true points, grown by one."""
    spans = (np.nonzero(inside.any(tuple({0, 1, 2} - {axis})))[0] for axis in range(3))
    return tuple(slice(max(int(s[0]) - 1, 0), int(s[-1]) + 2) for s in spans)


def _squared_distance(sources: np.ndarray) -> np.ndarray:
    nearest = ndimage.distance_transform_edt(~sources, return_distances=False, return_indices=True)
    delta = nearest - np.indices(sources.shape)
    return np.square(delta).sum(0)


def _outside_batched(solid: Bool[Tensor, "S S S"], leak: int) -> Bool[Tensor, "S S S"]:
    reached = _joined_to_corner(~solid)
    if leak:
        wide = nearest_squared(solid) > leak * leak
        closed = wide & ~_joined_to_corner(wide) & reached
        if closed.any():
            reached &= nearest_squared(closed) >= nearest_squared(wide & ~closed)
    return reached


def _joined_to_corner(open_: Bool[Tensor, "S S S"]) -> Bool[Tensor, "S S S"]:
    """What a path of open points (6-connected) joins to the first one."""
    reached = torch.zeros_like(open_)
    reached[0, 0, 0] = True
    while True:
        before = reached
        for axis in range(3):
            for backwards in (False, True):
                reached = _swept(reached, open_, axis, backwards)
        if torch.equal(before, reached):
            return reached


def _swept(reached: Tensor, open_: Tensor, axis: int, backwards: bool) -> Bool[Tensor, "S S S"]:
    """Carries `reached` along an axis as far as the points are open: the last of both kinds before a point counts."""
    a, b = (x.flip(axis) if backwards else x for x in (reached, open_))
    shape = [1, 1, 1]
    shape[axis] = -1
    place = torch.arange(1, a.shape[axis] + 1, dtype=torch.int16, device=a.device).view(shape)
    last_reached = torch.where(a, place, 0).cummax(axis).values
    last_wall = torch.where(b, 0, place).cummax(axis).values
    out = last_reached > last_wall
    return out.flip(axis) if backwards else out


def nearest_squared(sources: Bool[Tensor, "*S"], batch_axes: int = 0) -> Int[Tensor, "*S"]:
    """Squared distance to the nearest source, exactly, one axis after the other (Saito and Toriwaki 1994).

    Args:
        batch_axes: the first so many axes number pictures of their own.

    Where a picture has no source the result is at least 3 * (longest side)^2.
    """
    far = 3 * max(sources.shape[batch_axes:]) ** 2
    squared = _line_squared(sources, batch_axes, far)
    for axis in range(batch_axes + 1, squared.ndim):
        rows = squared.movedim(axis, 0).contiguous()  # so that temporaries and sums run along memory
        place = torch.arange(len(rows), dtype=torch.int32, device=sources.device)
        lines = (place[:, None] - place).square().view(len(rows), len(rows), *[1] * (squared.ndim - 1))
        out = torch.full_like(rows, far)
        layers = max(1, _AT_ONCE // rows.numel())
        for first in range(0, len(rows), layers):
            part = slice(first, first + layers)
            out = torch.minimum(out, (rows[part, None] + lines[part]).amin(0))
        squared = out.movedim(0, axis)
    return squared


def _line_squared(sources: Bool[Tensor, "*S"], axis: int, far: int) -> Int[Tensor, "*S"]:
    """Along one axis alone, by the last source before each point and the first one after it; `far` without any."""
    n = sources.shape[axis]
    shape = [1] * sources.ndim
    shape[axis] = n
    place = torch.arange(n, dtype=torch.int16, device=sources.device).view(shape)
    before = torch.where(sources, place, -n).cummax(axis).values
    after = torch.where(sources, place, 2 * n).flip(axis).cummin(axis).values.flip(axis)
    apart = torch.minimum(place - before, after - place).int()
    return torch.where(apart < n, apart.square(), far)
