"""What the mesh writers share: 8-bit colours, and one vertex for each pair of position and texture coordinate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dg.core.meshes import vertex_normals
from dg.types import Mesh


@dataclass(frozen=True)
class Split:
    """A mesh as graphics cards want it: one index for position, normal and texture coordinate."""

    vertices: Float[np.ndarray, "P 3"]
    normals: Float[np.ndarray, "P 3"]
    uv: Float[np.ndarray, "P 2"] | None
    faces: Int[np.ndarray, "F 3"]


def split_seams(mesh: Mesh) -> Split:
    """Duplicates vertices along seams, in their order. Normals come from the whole mesh, so seams do not show."""
    normals = vertex_normals(mesh.vertices.float(), mesh.faces)
    if mesh.uv is None:
        return Split(_f32(mesh.vertices), _f32(normals), None, mesh.faces.numpy())
    faces_uv = mesh.faces if mesh.faces_uv is None else mesh.faces_uv
    pairs, faces = torch.unique(mesh.faces * len(mesh.uv) + faces_uv, return_inverse=True)
    vertex, uv = pairs // len(mesh.uv), pairs % len(mesh.uv)
    return Split(_f32(mesh.vertices[vertex]), _f32(normals[vertex]), _f32(mesh.uv[uv]), faces.numpy())


def to_bytes(colours: Float[Tensor, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """sRGB values in [0, 1] to bytes: clamped and rounded; what is not a number becomes 0."""
    return (colours.detach().float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _f32(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().numpy(), "<f4")
