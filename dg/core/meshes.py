"""Pure mesh maths: normals, areas, volume, and welding of vertices that a file format had split."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.types import Mesh


def face_cross(vertices: Float[Tensor, "P 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """Outward face normals with twice the face's area as their length; differentiable."""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)


def face_areas(vertices: Float[Tensor, "P 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, " F"]:
    return face_cross(vertices, faces).norm(dim=-1) / 2


def vertex_normals(vertices: Float[Tensor, "P 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "P 3"]:
    """Unit vertex normals: the sum of face normals weighted by area, (0, 0, 1) where that is zero. Differentiable."""
    cross = face_cross(vertices, faces)
    total = torch.zeros_like(vertices).index_add(0, faces.reshape(-1), cross.repeat_interleave(3, 0))
    length = total.square().sum(-1, keepdim=True)
    up = torch.zeros_like(total)
    up[:, 2] = 1
    flat = length <= 1e-30
    return torch.where(flat, up, total / torch.where(flat, torch.ones_like(length), length).sqrt())


def signed_volume(vertices: Float[Tensor, "P 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, ""]:
    """Volume inside a closed surface; positive when faces are counter-clockwise seen from outside."""
    a, b, c = vertices[faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6


def weld(mesh: Mesh) -> Mesh:
    """Merges vertices at exactly the same position, drops those without a face, and faces that lost a corner to it.

    Files split vertices at texture seams; normals, silhouettes and geometry gradients need them whole again. The seams
    stay in `faces_uv`; a mesh whose uv is indexed by `faces` gets its `faces_uv` from there. Order is kept.
    """
    faces_uv = mesh.faces if mesh.faces_uv is None and mesh.uv is not None else mesh.faces_uv
    first = _first_equal(mesh.vertices)
    faces = first[mesh.faces]
    whole = (faces != faces.roll(1, 1)).all(1)
    used, compact = torch.unique(faces[whole], return_inverse=True)
    return replace(
        mesh,
        vertices=mesh.vertices[used],
        faces=compact,
        faces_uv=None if faces_uv is None else faces_uv[whole],
    )


def unique_rows(rows: Float[Tensor, "N C"]) -> tuple[Float[Tensor, "M C"], Int[Tensor, " N"]]:
    """The distinct rows in lexicographic order, and of which each row is one. -0 equals 0; no NaN.

    What `torch.unique(dim=0)` finds by comparing rows, by sorting single 64-bit numbers, one sort for each column after
    the first: ten times as fast at 60,000 rows of two.
    """
    rows = rows + 0.0
    first_column, *others = (_ordinal(column) for column in rows.unbind(1))
    group = first_column if others else _numbered(first_column)
    for ordinal in others:
        group = _numbered(group * 2**32 + ordinal)  # both of 32 bits
    first = torch.zeros(int(group.max()) + 1 if len(group) else 0, dtype=torch.long, device=rows.device)
    first[group] = torch.arange(len(rows), device=rows.device)
    return rows[first], group


def _ordinal(values: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Integers from -2^31 to 2^31 in the same order: of float32 the bits, below zero turned round; else their ranks."""
    if values.dtype != torch.float32:
        return _numbered(values)
    bits = values.contiguous().view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()


def _numbered(values: Tensor) -> Int[Tensor, " N"]:
    """The place of each value among the distinct ones."""
    ordered, order = values.sort()
    steps = torch.zeros_like(order)
    steps[1:] = (ordered[1:] != ordered[:-1]).cumsum(0)
    return torch.empty_like(order).index_copy_(0, order, steps)


def _first_equal(rows: Float[Tensor, "P 3"]) -> Int[Tensor, " P"]:
    """For each row the index of the first one that equals it. -0 equals 0, as the sum with 0 is +0 for both."""
    _, group = unique_rows(rows)
    index = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(index, len(rows)).scatter_reduce(0, group, index, "amin")
    return first[group]
