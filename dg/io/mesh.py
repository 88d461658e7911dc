"""Textured meshes to and from files: GLB, glTF, OBJ, PLY, and for reading whatever else trimesh knows."""

from __future__ import annotations

from pathlib import Path

import torch

from dg.core.meshes import weld
from dg.io.files import atomic
from dg.io.mesh_glb import write_glb
from dg.io.mesh_obj import write_obj
from dg.io.mesh_parts import merge_parts, read_parts
from dg.io.mesh_ply import write_ply
from dg.types import Mesh

_WRITERS = {".glb": write_glb, ".obj": write_obj, ".ply": write_ply}


def load_mesh(path: str | Path) -> Mesh:
    """One mesh with one texture out of everything a file holds.

    Scene nodes are merged with their transforms. Vertices that the file split at seams are welded; `faces_uv` keeps the
    seams. Several materials, tiled textures and vertex colours end up in one texture (`dg.io.mesh_parts`); a file that
    says nothing about colour gives a mesh without a texture. Transparency, normals and other maps are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, damaged, of an unknown format, or holds no faces. All messages name the path.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no mesh file at {path}; check the path (relative ones start at the working folder)")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; it was probably not written completely, make it again")
    mesh = weld(merge_parts(read_parts(path)))
    if len(mesh.faces) == 0:
        raise ValueError(f"{path} holds no face with an area; export the object as triangles")
    return mesh


def save_mesh(mesh: Mesh, path: str | Path) -> None:
    """Writes .glb, .obj (with .mtl and _albedo.png beside it) or .ply (the texture becomes vertex colours).

    A file is complete or absent. Colours are clamped and rounded to 8 bits.

    Raises:
        ValueError: an unknown suffix, a mesh without faces, indices out of range, numbers that are not finite, or a
            texture without uv coordinates.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: cannot write '{path.suffix}' meshes; use one of {', '.join(_WRITERS)}")
    mesh = mesh.to("cpu")
    _check(mesh, path)
    with atomic(path) as temporary:
        writer(mesh, temporary)


def _check(mesh: Mesh, path: Path) -> None:
    if len(mesh.faces) == 0:
        raise ValueError(f"{path}: the mesh has no faces, nothing was written")
    if mesh.texture is not None and mesh.uv is None:
        raise ValueError(f"{path}: the mesh has a texture but no uv coordinates; make them with dg.core.uv.unwrap")
    faces_uv = mesh.faces if mesh.faces_uv is None else mesh.faces_uv
    for name, values, index in (("vertices", mesh.vertices, mesh.faces), ("uv", mesh.uv, faces_uv)):
        if values is None:
            continue
        if int(index.min()) < 0 or int(index.max()) >= len(values):
            raise ValueError(f"{path}: faces refer to {name} outside 0..{len(values) - 1}")
        if not torch.isfinite(values).all():
            raise ValueError(f"{path}: {name} hold numbers that are not finite")
