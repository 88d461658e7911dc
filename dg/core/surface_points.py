"""Points drawn on a mesh."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.meshes import face_cross
from dg.types import Mesh


def draw_on_surface(
    mesh: Mesh, count: int, generator: torch.Generator
) -> tuple[Int[Tensor, " N"], Float[Tensor, "N 3"]]:
    """`count` points, evenly by area, as (their faces, float64 weights of the three corners).

    Faces are drawn by stratified sampling of the running sum of their areas, places in them uniformly (Turk 1990).

    Raises:
        ValueError: the mesh has no area.
    """
    total = face_cross(mesh.vertices.double(), mesh.faces).norm(dim=-1).cumsum(0)
    if not len(total) or not float(total[-1]) > 0:
        raise ValueError("the mesh has no area, so there are no points on it")
    draw = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    where = (torch.arange(count) + draw[:, 0]) / count * total[-1]
    face = torch.searchsorted(total, where, right=True).clamp_max(len(total) - 1)
    root, v = draw[:, 1:2].sqrt(), draw[:, 2:3]
    return face, torch.cat([1 - root, root * (1 - v), root * v], 1)
