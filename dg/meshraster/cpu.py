"""Triangles to pixels on the CPU, exactly: homogeneous edge functions, compiled by numba.

Everything follows from one 3x3 matrix per face (Olano and Greer 1997, "Triangle scan conversion using 2D homogeneous
coordinates"): its rows are the vertices as (X, Y, w) with X / w, Y / w in pixels. For a pixel p = (x, y, 1) the numbers
p . inverse are barycentric weights over depth, so they give coverage, perspective-correct barycentrics, 1 / depth and,
as they are linear in p, exact screen derivatives. A face that crosses the near plane needs no clipping.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.camera import NEAR
from dg.meshraster._jit import compiled, side_by_side
from dg.meshraster.protocol import check_triangles
from dg.types import Fragments

_STRIP_PX = 8  # rows that share a list of faces
_NARROW_PX = 8  # below this width testing every pixel of a row is cheaper than finding where the face begins


class CpuMeshRasterizer:
    """`dg.meshraster.protocol.MeshRasterizer` without a GPU.

    Shared edges are drawn once and leave no cracks: an edge function is exactly antisymmetric in its two vertices, and
    pixel centres on an edge belong to the face on its right (or, on a horizontal edge, below it). Of equally deep faces
    the lower index wins. Views are drawn side by side. Faces without area, or seen edge-on, and
    what is nearer than `near` are not drawn.

    No gradient reaches `clip`: the result is detached. (Attributes interpolated with it are differentiable, see
    `dg.meshraster.interpolate`.) Tensors on another device are copied here and back.
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
        views = len(clip)
        face_id = np.zeros((views, height, width), np.int32)
        bary = np.zeros((views, height, width, 2), np.float32)
        bary_dxy = np.zeros((views, height, width, 4), np.float32)
        if len(faces) and height and width:
            triangles = faces.detach().to("cpu", torch.int64).contiguous().numpy()
            corners = clip.detach().to("cpu", torch.float64).contiguous().numpy()

            def draw(v: int) -> None:
                edges, inverse_w, box, crosses = _setup(corners[v], triangles, height, width, self.near)
                start, order = _bin(box, -(-height // _STRIP_PX))
                _draw(edges, inverse_w, box, crosses, start, order, face_id[v])
                _resolve(edges, face_id[v], bary[v], bary_dxy[v])

            side_by_side(draw, range(views))
        return Fragments(*(torch.from_numpy(a).to(clip.device) for a in (face_id, bary, bary_dxy)))


@compiled()
def _setup(clip, faces, height, width, near):
    """Per face: three edge functions (a, b, c), the plane of 1 / w with its range, and the box of pixels it may cover.

    The edge functions are turned so that they are positive inside; their scale is free. An empty box has x1 < x0.
    """
    count = faces.shape[0]
    edges = np.empty((count, 3, 3))
    inverse_w = np.empty((count, 5))  # d/dx, d/dy, value at pixel (0, 0), least, greatest
    box = np.empty((count, 4), np.int32)  # x0, x1, y0, y1, inclusive
    crosses = np.empty(count, np.bool_)
    x, y, w = np.empty(3), np.empty(3), np.empty(3)
    for f in range(count):
        for k in range(3):
            i = faces[f, k]
            w[k] = clip[i, 3]
            x[k] = (clip[i, 0] + w[k]) * (0.5 * width)
            y[k] = (clip[i, 1] + w[k]) * (0.5 * height)
        for k in range(3):  # row k is the cross product of the other two vertices; exactly antisymmetric in them
            i, j = (k + 1) % 3, (k + 2) % 3
            edges[f, k, 0] = y[i] * w[j] - w[i] * y[j]
            edges[f, k, 1] = w[i] * x[j] - x[i] * w[j]
            edges[f, k, 2] = x[i] * y[j] - y[i] * x[j]
        det = x[0] * edges[f, 0, 0] + y[0] * edges[f, 0, 1] + w[0] * edges[f, 0, 2]
        box[f, 0], box[f, 1], box[f, 2], box[f, 3] = 0, -1, 0, -1
        if not (np.abs(det) > 0) or np.isinf(det) or not (w.max() >= near):
            continue
        if det < 0:
            for k in range(3):
                for j in range(3):
                    edges[f, k, j] = -edges[f, k, j]
        for j in range(3):
            inverse_w[f, j] = (edges[f, 0, j] + edges[f, 1, j] + edges[f, 2, j]) / np.abs(det)
        inverse_w[f, 3] = 1 / w.max()
        inverse_w[f, 4] = 1 / max(w.min(), near)
        crosses[f] = w.min() < near
        _bound(x, y, w, near, height, width, box[f])
    return edges, inverse_w, box, crosses


@compiled()
def _bound(x, y, w, near, height, width, box):
    """The pixels whose centres lie in the bounding box of the part of the face beyond the near plane."""
    x0, x1, y0, y1 = np.inf, -np.inf, np.inf, -np.inf
    for i in range(3):
        if w[i] >= near:
            px, py = x[i] / w[i], y[i] / w[i]
            x0, x1, y0, y1 = min(x0, px), max(x1, px), min(y0, py), max(y1, py)
        j = (i + 1) % 3
        if (w[i] < near) != (w[j] < near):
            t = (near - w[i]) / (w[j] - w[i])
            px, py = (x[i] + t * (x[j] - x[i])) / near, (y[i] + t * (y[j] - y[i])) / near
            x0, x1, y0, y1 = min(x0, px), max(x1, px), min(y0, py), max(y1, py)
    slack = 0.5 + 1e-6  # a rounded division must not lose a centre that lies on the outline
    box[0] = int(np.ceil(min(max(x0 - slack, 0.0), width)))
    box[1] = int(np.floor(min(max(x1 - 1 + slack, -1.0), width - 1.0)))
    box[2] = int(np.ceil(min(max(y0 - slack, 0.0), height)))
    box[3] = int(np.floor(min(max(y1 - 1 + slack, -1.0), height - 1.0)))


@compiled()
def _bin(box, strips):
    """Faces by strip of rows, in ascending order within a strip: order[start[s] : start[s + 1]]."""
    start = np.zeros(strips + 1, np.int64)
    for f in range(box.shape[0]):
        if box[f, 0] <= box[f, 1] and box[f, 2] <= box[f, 3]:
            for s in range(box[f, 2] // _STRIP_PX, box[f, 3] // _STRIP_PX + 1):
                start[s + 1] += 1
    for s in range(strips):
        start[s + 1] += start[s]
    cursor = start[:-1].copy()
    order = np.empty(start[strips], np.int32)
    for f in range(box.shape[0]):
        if box[f, 0] <= box[f, 1] and box[f, 2] <= box[f, 3]:
            for s in range(box[f, 2] // _STRIP_PX, box[f, 3] // _STRIP_PX + 1):
                order[cursor[s]] = f
                cursor[s] += 1
    return start, order


@compiled()
def _draw(edges, inverse_w, box, crosses, start, order, face_id):
    """The nearest face of each pixel, strip by strip so that the depths in use stay in the cache."""
    height, width = face_id.shape
    nearest = np.empty((_STRIP_PX, width))  # greatest 1 / w so far
    for s in range(start.shape[0] - 1):
        top, bottom = s * _STRIP_PX, min((s + 1) * _STRIP_PX, height) - 1
        nearest[:] = 0
        for n in range(start[s], start[s + 1]):
            f = order[n]
            for row in range(max(top, box[f, 2]), min(bottom, box[f, 3]) + 1):
                _draw_row(f, row, edges[f], inverse_w[f], box[f], crosses[f], nearest[row - top], face_id[row])


@compiled(inline="always")
def _draw_row(f, row, edge, plane, box, crosses, nearest, face_id):
    py = row + 0.5
    a0, a1, a2 = edge[0, 0], edge[1, 0], edge[2, 0]
    r0, r1, r2 = edge[0, 1] * py + edge[0, 2], edge[1, 1] * py + edge[1, 2], edge[2, 1] * py + edge[2, 2]
    first, last = box[0], box[1]
    if last - first >= _NARROW_PX:  # shorten the span to where all three edges may be positive
        for k in range(3):
            a = edge[k, 0]
            if a != 0:
                root = min(max(-(edge[k, 1] * py + edge[k, 2]) / a - 0.5, -2.0), box[1] + 2.0)
                if a > 0:
                    first = max(first, int(np.floor(root)))
                else:
                    last = min(last, int(np.ceil(root)))
    # a centre on an edge is inside when the face lies to its right, or below it on a horizontal edge
    own0 = a0 > 0 or (a0 == 0 and edge[0, 1] > 0)
    own1 = a1 > 0 or (a1 == 0 and edge[1, 1] > 0)
    own2 = a2 > 0 or (a2 == 0 and edge[2, 1] > 0)
    base = plane[1] * py + plane[2]
    for column in range(first, last + 1):
        px = column + 0.5
        e0, e1, e2 = a0 * px + r0, a1 * px + r1, a2 * px + r2
        if (e0 > 0 or (e0 == 0 and own0)) and (e1 > 0 or (e1 == 0 and own1)) and (e2 > 0 or (e2 == 0 and own2)):
            depth = plane[0] * px + base
            if crosses and not (0 < depth <= plane[4]):
                continue
            depth = min(max(depth, plane[3]), plane[4])  # nearly edge-on faces lose digits
            if depth > nearest[column]:
                nearest[column] = depth
                face_id[column] = f + 1


@compiled()
def _resolve(edges, face_id, bary, bary_dxy):
    """Barycentrics b_k = e_k / sum(e) and their screen derivatives by the quotient rule, for the visible faces only."""
    for row in range(face_id.shape[0]):
        py = row + 0.5
        for column in range(face_id.shape[1]):
            f = face_id[row, column] - 1
            if f < 0:
                continue
            px = column + 0.5
            a = edges[f, 0, 0] + edges[f, 1, 0] + edges[f, 2, 0]
            b = edges[f, 0, 1] + edges[f, 1, 1] + edges[f, 2, 1]
            e0 = edges[f, 0, 0] * px + (edges[f, 0, 1] * py + edges[f, 0, 2])
            e1 = edges[f, 1, 0] * px + (edges[f, 1, 1] * py + edges[f, 1, 2])
            e2 = edges[f, 2, 0] * px + (edges[f, 2, 1] * py + edges[f, 2, 2])
            total = e0 + e1 + e2
            if not total > 0:  # only after underflow
                total = np.inf
            u, v = e0 / total, e1 / total
            bary[row, column, 0], bary[row, column, 1] = u, v
            bary_dxy[row, column, 0] = (edges[f, 0, 0] - u * a) / total
            bary_dxy[row, column, 1] = (edges[f, 0, 1] - u * b) / total
            bary_dxy[row, column, 2] = (edges[f, 1, 0] - v * a) / total
            bary_dxy[row, column, 3] = (edges[f, 1, 1] - v * b) / total
