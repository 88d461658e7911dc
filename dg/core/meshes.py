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


def _first_equal(rows: Float[Tensor, "P 3"]) -> Int[Tensor, " P"]:
    """For each row the index of the first one that equals it. -0 equals 0, as the sum with 0 is +0 for both."""
    _, group = torch.unique(rows + 0.0, dim=0, return_inverse=True)
    index = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(index, len(rows)).scatter_reduce(0, group, index, "amin")
    return first[group]
