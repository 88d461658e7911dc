"""Triangles to pixels in plain torch, on any device: what stage 2 draws with on a GPU that lacks nvdiffrast.

The arithmetic is that of `dg.meshraster.cpu` (homogeneous edge functions in float64, which see), as tensor operations:
faces are spread out to the rows that they may cover, rows to the pixels between their edges, and the nearest face of
each pixel is found by a scattered maximum. Nothing is copied to the CPU but a few counts per view.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dg.core.camera import NEAR
from dg.meshraster.protocol import check_triangles
from dg.types import Fragments

PIXELS_AT_ONCE = 1 << 22  # (face, pixel) pairs in memory together; each takes about 100 bytes


@dataclass(frozen=True)
class _Faces:
    """The faces of one view that may be seen, in ascending order."""

    index: Int[Tensor, " F"]
    edges: Float[Tensor, "F 3 3"]  # edge functions (a, b, c), positive inside
    inverse_w: Float[Tensor, "F 3"]  # the plane of 1 / w: d/dx, d/dy, value at pixel (0, 0)
    least: Float[Tensor, " F"]  # of 1 / w
    greatest: Float[Tensor, " F"]
    crosses: Bool[Tensor, " F"]  # the near plane
    box: Int[Tensor, "F 4"]  # x0, x1, y0, y1, inclusive


class TorchMeshRasterizer:
    """`dg.meshraster.protocol.MeshRasterizer`, with the guarantees of `dg.meshraster.cpu.CpuMeshRasterizer`.

    No gradient reaches `clip`: the result is detached, and attributes interpolated with it are differentiable.
    """

    def __init__(self, near: float = NEAR) -> None:
        if not near > 0:
            raise ValueError(f"near must be positive, got {near}")
        self.near = float(near)

    @torch.no_grad()
    def __call__(self, clip: Float[Tensor, "V P 4"], faces: Int[Tensor, "F 3"], size: tuple[int, int]) -> Fragments:
        """See the protocol. Raises ValueError for wrong shapes and for face indices that have no vertex."""
        height, width = (int(s) for s in size)
        check_triangles(clip, faces)
        faces = faces.long()
        if not len(clip):
            return Fragments(*(x[None][:0] for x in _nothing(clip, height, width)))
        made = [self._view(corners, faces, height, width) for corners in clip.double()]
        return Fragments(*(torch.stack(parts) for parts in zip(*made, strict=True)))

    def _view(
        self, clip: Float[Tensor, "P 4"], faces: Int[Tensor, "F 3"], height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not len(faces) or not height or not width:
            return _nothing(clip, height, width)
        visible = _setup(clip[faces], height, width, self.near)
        nearest = clip.new_zeros(height * width)  # greatest 1 / w so far
        winner = torch.zeros(height * width, dtype=torch.int64, device=clip.device)  # 1 + row of `visible`
        for of, pixel, inverse_w in _covered(visible, width):
            before = nearest
            nearest = before.scatter_reduce(0, pixel, inverse_w, "amax")
            best = inverse_w == nearest[pixel]
            found = torch.full_like(winner, len(faces) + 1)
            found.scatter_reduce_(0, pixel[best], of[best] + 1, "amin")
            winner = torch.where(nearest > before, found, winner)  # of equally deep faces the lower index stays
        return _resolved(visible, winner, height, width)


def _nothing(like: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    empty = torch.zeros(height, width, 7, device=like.device)
    return empty[..., 0].int(), empty[..., 1:3].contiguous(), empty[..., 3:].contiguous()


def _setup(corners: Float[Tensor, "F 3 4"], height: int, width: int, near: float) -> _Faces:
    w = corners[..., 3]
    x, y = (corners[..., 0] + w) * (0.5 * width), (corners[..., 1] + w) * (0.5 * height)
    i, j = [1, 2, 0], [2, 0, 1]  # row k is the cross product of the other two vertices; exactly antisymmetric in them
    rows = y[:, i] * w[:, j] - w[:, i] * y[:, j], w[:, i] * x[:, j] - x[:, i] * w[:, j]
    edges = torch.stack([*rows, x[:, i] * y[:, j] - y[:, i] * x[:, j]], -1)
    det = x[:, 0] * edges[:, 0, 0] + y[:, 0] * edges[:, 0, 1] + w[:, 0] * edges[:, 0, 2]
    far = w.amax(1)
    sound = (det.abs() > 0) & ~det.isinf() & (far >= near)
    box = _boxes(x, y, w, near, height, width)
    index = (sound & (box[:, 0] <= box[:, 1]) & (box[:, 2] <= box[:, 3])).nonzero()[:, 0]
    det, edges, w, far = det[index], edges[index], w[index], far[index]
    edges = torch.where((det < 0)[:, None, None], -edges, edges)
    plane = (edges[:, 0] + edges[:, 1] + edges[:, 2]) / det.abs()[:, None]
    close = w.amin(1)
    return _Faces(index, edges, plane, 1 / far, 1 / close.clamp_min(near), close < near, box[index])


def _boxes(
    x: Float[Tensor, "F 3"], y: Float[Tensor, "F 3"], w: Float[Tensor, "F 3"], near: float, height: int, width: int
) -> Int[Tensor, "F 4"]:
    """The pixels whose centres lie in the bounding box of the part of each face beyond the near plane."""
    after, before = [1, 2, 0], w >= near
    crossing = before != before[:, after]
    share = (near - w) / torch.where(crossing, w[:, after] - w, 1)
    sides = []
    for a, size in ((x, width), (y, height)):
        cut = (a + share * (a[:, after] - a)) / near
        seen, there = torch.cat([a / torch.where(before, w, 1), cut], 1), torch.cat([before, crossing], 1)
        low = torch.where(there, seen, torch.inf).amin(1).nan_to_num(torch.inf)
        high = torch.where(there, seen, -torch.inf).amax(1).nan_to_num(-torch.inf)
        slack = 0.5 + 1e-6  # a rounded division must not lose a centre that lies on the outline
        sides += [(low - slack).clamp(0, size).ceil(), (high - 1 + slack).clamp(-1, size - 1).floor()]
    return torch.stack(sides, 1).long()


def _covered(faces: _Faces, width: int) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]]:
    """(row of `faces`, pixel, 1 / w there) of every pixel whose centre a face covers, faces in ascending order."""
    of, line = _spread(faces.box[:, 3] - faces.box[:, 2] + 1)
    line = line + faces.box[of, 2]
    first, last = _spans(faces, of, line)
    lengths = (last - first + 1).clamp_min(0)
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    marks = PIXELS_AT_ONCE * torch.arange(1, max(-(-total // PIXELS_AT_ONCE), 1), device=of.device)
    cuts = [0, *(torch.searchsorted(ends, marks) + 1).tolist(), len(of)]
    for begin, end in pairwise(cuts):
        part, column = _spread(lengths[begin:end])
        part = part + begin
        yield _inside(faces, of[part], line[part], column + first[part], width)


def _spread(counts: Int[Tensor, " n"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Each index i counts[i] times, and 0, 1, ... counts[i] - 1 beside it."""
    index = torch.repeat_interleave(counts)
    return index, torch.arange(len(index), device=counts.device) - (counts.cumsum(0) - counts)[index]


def _spans(
    faces: _Faces, of: Int[Tensor, " m"], line: Int[Tensor, " m"]
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Of each row the first and last column where all three edges may be positive."""
    first, last = faces.box[of, 0], faces.box[of, 1]
    low, high = first.double(), last.double()
    for k in range(3):
        a, b, c = faces.edges[of, k].unbind(1)
        root = -(b * (line + 0.5) + c) / torch.where(a == 0, 1, a) - 0.5
        root = root.clamp_min(-2).minimum(last + 2.0)
        low = torch.where(a > 0, low.maximum(root.floor()), low)
        high = torch.where(a < 0, high.minimum(root.ceil()), high)
    return low.long(), high.long()


def _inside(
    faces: _Faces, of: Int[Tensor, " n"], line: Int[Tensor, " n"], column: Int[Tensor, " n"], width: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"], Float[Tensor, " k"]]:
    """A centre on an edge is inside when the face lies to its right, or below it on a horizontal edge."""
    x, y = column + 0.5, line + 0.5
    inside = torch.ones_like(of, dtype=torch.bool)
    for k in range(3):
        a, b, c = faces.edges[of, k].unbind(1)
        value = a * x + (b * y + c)
        inside &= (value > 0) | ((value == 0) & ((a > 0) | ((a == 0) & (b > 0))))
    slope_x, slope_y, origin = faces.inverse_w[of].unbind(1)
    inverse_w = slope_x * x + (slope_y * y + origin)
    greatest = faces.greatest[of]
    inside &= ~faces.crosses[of] | ((inverse_w > 0) & (inverse_w <= greatest))
    inverse_w = inverse_w.maximum(faces.least[of]).minimum(greatest)  # nearly edge-on faces lose digits
    return of[inside], (line * width + column)[inside], inverse_w[inside]


def _resolved(faces: _Faces, winner: Int[Tensor, " n"], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentrics b_k = e_k / sum(e) and their screen derivatives by the quotient rule, for the visible faces only."""
    pixel = winner.nonzero()[:, 0]
    of = winner[pixel] - 1
    x, y = pixel % width + 0.5, pixel // width + 0.5
    edges = faces.edges[of]
    values = edges[..., 0] * x[:, None] + (edges[..., 1] * y[:, None] + edges[..., 2])
    total = values.sum(1, keepdim=True)
    total = torch.where(total > 0, total, torch.inf)  # else only after underflow
    bary = values[:, :2] / total
    sums = edges[..., :2].sum(1, keepdim=True)
    slopes = (edges[:, :2, :2] - bary[..., None] * sums) / total[..., None]
    face_id, all_bary, all_slopes = _nothing(winner, height, width)
    face_id.view(-1)[pixel] = (faces.index[of] + 1).int()
    all_bary.view(-1, 2)[pixel] = bary.float()
    all_slopes.view(-1, 4)[pixel] = slopes.flatten(1).float()
    return face_id, all_bary, all_slopes
