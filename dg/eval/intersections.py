"""Which faces of a mesh cut another one: a tree of boxes, then an exact-enough test of pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from dg.core.slabs import compiled, in_slabs
from dg.types import Mesh

TOLERANCE = 1e-6  # of the mesh's diagonal; positions in files are rounded to about 1e-7
_LEAF = 4  # faces per leaf of the tree


def cutting_faces(mesh: Mesh) -> Bool[np.ndarray, " F"]:
    """True for each face that properly cuts another one with which it shares no vertex.

    Two faces cut each other properly if each has corners on both sides of the other's plane and they have more than a
    point in common (Moeller 1997, "A fast triangle-triangle intersection test"). What merely touches, at a point, along
    an edge or flat upon another face, does not count; neither does a common part shorter than `TOLERANCE`.
    """
    faces = np.ascontiguousarray(mesh.faces.cpu().numpy().astype(np.int64))
    cuts = np.zeros(len(faces), np.bool_)
    if len(faces) < 2:
        return cuts
    corners = mesh.vertices.detach().cpu().double().numpy()[faces]
    low, high = corners.min(1), corners.max(1)
    diagonal = float(np.linalg.norm(high.max(0) - low.min(0)))
    order, boxes = _tree(low, high)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    in_slabs(_search, len(faces), corners, normals, faces, low, high, order, boxes, TOLERANCE * diagonal, cuts)
    return cuts


def _tree(
    low: Float[np.ndarray, "F 3"], high: Float[np.ndarray, "F 3"]
) -> tuple[Int[np.ndarray, " F"], Float[np.ndarray, "T 6"]]:
    """Faces along a Morton curve (Lauterbach et al. 2009), and the boxes of a complete binary tree over runs of them.

    Node n has the children 2 n + 1 and 2 n + 2; the last level are leaves of `_LEAF` faces each.
    """
    centre = (low + high) / 2
    extent = np.ptp(centre, axis=0).max() or 1.0
    cell = ((centre - centre.min(0)) / extent * 1023).astype(np.int64)
    code = np.zeros(len(low), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cell[:, axis] >> bit) & 1) << (3 * bit + axis)
    order = np.argsort(code, kind="stable")
    leaves = 1
    while leaves * _LEAF < len(order):
        leaves *= 2
    level = np.full((leaves * _LEAF, 6), np.inf)  # empty boxes: least infinite, greatest minus infinite (negated)
    level[: len(order)] = np.concatenate([low[order], -high[order]], 1)
    level = level.reshape(leaves, _LEAF, 6).min(1)
    levels = [level]
    while len(level) > 1:
        level = level.reshape(-1, 2, 6).min(1)
        levels.append(level)
    boxes = np.concatenate(levels[::-1])
    boxes[:, 3:] *= -1
    return order, boxes


@compiled
def _search(first, last, corners, normals, faces, low, high, order, boxes, tolerance, cuts):
    count = len(order)
    leaves = (len(boxes) + 1) // 2
    stack = np.empty(128, np.int64)
    for i in range(first, last):
        top = 1
        stack[0] = 0
        while top and not cuts[i]:
            top -= 1
            node = stack[top]
            box = boxes[node]
            if (
                box[0] > high[i, 0]
                or box[1] > high[i, 1]
                or box[2] > high[i, 2]
                or box[3] < low[i, 0]
                or box[4] < low[i, 1]
                or box[5] < low[i, 2]
            ):
                continue
            if node < leaves - 1:
                stack[top] = 2 * node + 1
                stack[top + 1] = 2 * node + 2
                top += 2
                continue
            start = (node - leaves + 1) * _LEAF
            for n in range(start, min(start + _LEAF, count)):
                j = order[n]
                if j == i or _share(faces[i], faces[j]):
                    continue
                if _cut(corners[i], normals[i], corners[j], normals[j], tolerance):
                    cuts[i] = True
                    break


@compiled
def _share(a, b):
    for i in range(3):
        for j in range(3):
            if a[i] == b[j]:
                return True
    return False


@compiled
def _cut(a, na, b, nb, tolerance):
    """Whether the triangles a and b [3 3] with unit normals share a segment and pass through each other's plane."""
    da, db = np.empty(3), np.empty(3)
    if not _sides(a, b, nb, tolerance, da) or not _sides(b, a, na, tolerance, db):
        return False
    x = na[1] * nb[2] - na[2] * nb[1]
    y = na[2] * nb[0] - na[0] * nb[2]
    z = na[0] * nb[1] - na[1] * nb[0]
    length = np.sqrt(x * x + y * y + z * z)
    if not length > 0:
        return False
    a0, a1 = _span(a, da, x / length, y / length, z / length)
    b0, b1 = _span(b, db, x / length, y / length, z / length)
    return min(a1, b1) - max(a0, b0) > tolerance


@compiled
def _sides(a, b, nb, tolerance, out):
    """Signed distances of a's corners from b's plane, 0 within the tolerance; whether they lie on both sides."""
    low, high = 0.0, 0.0
    for k in range(3):
        d = (a[k, 0] - b[0, 0]) * nb[0] + (a[k, 1] - b[0, 1]) * nb[1] + (a[k, 2] - b[0, 2]) * nb[2]
        if abs(d) <= tolerance:
            d = 0.0
        out[k] = d
        low, high = min(low, d), max(high, d)
    return low < 0 and high > 0


@compiled
def _span(a, d, x, y, z):
    """Where the triangle meets the plane that its corners have the distances d from, along the direction (x, y, z)."""
    low, high = np.inf, -np.inf
    for i in range(3):
        j = (i + 1) % 3
        ti = a[i, 0] * x + a[i, 1] * y + a[i, 2] * z
        if d[i] == 0:
            low, high = min(low, ti), max(high, ti)
        if d[i] * d[j] < 0:
            tj = a[j, 0] * x + a[j, 1] * y + a[j, 2] * z
            t = ti + (tj - ti) * d[i] / (d[i] - d[j])
            low, high = min(low, t), max(high, t)
    return low, high
