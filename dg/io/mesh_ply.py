"""Writes a mesh as binary PLY; a texture becomes vertex colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.meshes import vertex_normals
from dg.io.mesh_write import to_bytes
from dg.types import Mesh


def write_ply(mesh: Mesh, path: Path) -> None:
    names = ["x", "y", "z", "nx", "ny", "nz"]
    fields = [(n, "<f4") for n in names]
    if mesh.texture is not None:
        fields += [(n, "u1") for n in ("red", "green", "blue")]
    vertices = np.empty(len(mesh.vertices), fields)
    values = torch.cat([mesh.vertices.float(), vertex_normals(mesh.vertices.float(), mesh.faces)], 1)
    for name, column in zip(names, values.detach().numpy().T, strict=True):
        vertices[name] = column
    if mesh.texture is not None:
        for name, column in zip(("red", "green", "blue"), to_bytes(vertex_colours(mesh)).T, strict=True):
            vertices[name] = column
    faces = np.empty(len(mesh.faces), [("n", "u1"), ("i", "<i4", 3)])
    faces["n"], faces["i"] = 3, mesh.faces.numpy()
    kinds = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {kinds[kind]} {name}" for name, kind in fields]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    path.write_bytes("\n".join(header).encode() + vertices.tobytes() + faces.tobytes())


def vertex_colours(mesh: Mesh) -> Float[Tensor, "P 3"]:
    """The texture at the vertices, bilinear; where a seam gives a vertex several places, the mean over its corners."""
    faces_uv = mesh.faces if mesh.faces_uv is None else mesh.faces_uv
    image = mesh.texture.detach().float().permute(2, 0, 1)[None]
    grid = mesh.uv.detach().float()[None, None] * 2 - 1
    colours = F.grid_sample(image, grid, padding_mode="border", align_corners=False)[0, :, 0].T
    index = mesh.faces.reshape(-1)
    total = torch.zeros(len(mesh.vertices), 4)
    corners = torch.cat([colours[faces_uv.reshape(-1)], torch.ones(len(index), 1)], 1)
    total = total.index_add(0, index, corners)
    return total[:, :3] / total[:, 3:].clamp_min(1)
