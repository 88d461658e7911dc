"""Reads the pieces of a mesh file and brings them, with whatever colours each has, onto one texture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image

from dg.core.facegrid import face_grid, paint_corners
from dg.core.meshes import unique_rows
from dg.io.atlas import pack, tile
from dg.io.srgb import linear_from_srgb, srgb_from_linear
from dg.types import Mesh

_UNIFORM_PX = 8  # side of the texture of a plain colour
_GREY = np.full(3, 0.5, np.float32)


@dataclass(frozen=True)
class Part:
    """One piece of a scene in world space. v = 0 is row 0 of the texture, which is sRGB; None if colour is unknown."""

    vertices: Float[np.ndarray, "P 3"]
    faces: Int[np.ndarray, "F 3"]
    corner_uv: Float[np.ndarray, "F 3 2"] | None
    texture: Float[np.ndarray, "h w 3"] | None


def read_parts(path: Path) -> list[Part]:
    """All triangles of a file. Raises ValueError with the path when it cannot be read or holds none."""
    import trimesh

    try:
        scene = trimesh.load_scene(path, process=False)
    except NotImplementedError as error:
        raise ValueError(
            f"{path}: '{path.suffix}' is not a known mesh format; use .glb, .gltf, .obj or .ply"
        ) from error
    except Exception as error:  # trimesh raises whatever its parsers do
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged or cut off, make it again; reading it stopped at {reason}") from error
    gltf = _gltf(path)
    if "KHR_mesh_quantization" in gltf.get("extensionsUsed", ()):  # trimesh takes its integers for positions
        raise ValueError(
            f"{path} has quantised positions (KHR_mesh_quantization), which would be read at a wrong size; "
            "export it without, or undo it with `gltf-transform dequantize`"
        )
    linear = _linear_vertex_colours(gltf)
    parts = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            parts.append(_part(geometry, transform, linear, path))
    if not parts:
        hint = "; a Gaussian model is read with gaussians=..., not as a mesh" if path.suffix.lower() == ".ply" else ""
        raise ValueError(f"{path} holds no faces, so it is not a mesh that can be drawn{hint}")
    return parts


def merge_parts(parts: list[Part]) -> Mesh:
    """One mesh: a single texture stays as it is, several are packed into an atlas, tiled ones are repeated."""
    offsets = np.cumsum([0] + [len(p.vertices) for p in parts])
    vertices = torch.from_numpy(np.concatenate([p.vertices for p in parts]).astype(np.float32))
    faces = np.concatenate([p.faces + o for p, o in zip(parts, offsets[:-1], strict=True)])
    faces = torch.from_numpy(faces.astype(np.int64))
    if all(p.texture is None for p in parts):
        if any(p.corner_uv is None for p in parts):
            return Mesh(vertices, faces)
        corner_uv, texture = np.concatenate([p.corner_uv for p in parts]), None
    else:
        corner_uv, texture = _one_texture(parts)
    uv, index = unique_rows(torch.from_numpy(corner_uv.reshape(-1, 2).astype(np.float32)))
    texture = None if texture is None else torch.from_numpy(np.ascontiguousarray(texture, np.float32))
    return Mesh(vertices, faces, uv, index.reshape(-1, 3), texture)


def _one_texture(parts: list[Part]) -> tuple[Float[np.ndarray, "F 3 2"], Float[np.ndarray, "h w 3"]]:
    """Parts with the same picture share one place; each picture is repeated as often as its uv leave [0, 1]."""
    groups: dict[bytes, list[int]] = {}
    textures = [_uniform(_GREY) if p.texture is None else p.texture for p in parts]
    uv = [
        np.full((len(p.faces), 3, 2), 0.5) if p.corner_uv is None or p.texture is None else p.corner_uv for p in parts
    ]
    for i, texture in enumerate(textures):
        groups.setdefault(repr(texture.shape).encode() + texture.tobytes(), []).append(i)
    tiled, tiled_uv = [], []
    for members in groups.values():
        points, picture = tile(np.concatenate([uv[i] for i in members]), textures[members[0]])
        tiled.append(picture)
        tiled_uv.append(points)
    atlas, place = pack(tiled)
    out: list[Any] = [None] * len(parts)
    for members, points, (scale, offset) in zip(groups.values(), tiled_uv, place, strict=True):
        ends = np.cumsum([len(parts[i].faces) for i in members])[:-1]
        for i, piece in zip(members, np.split(points * scale + offset, ends), strict=True):
            out[i] = piece
    return np.concatenate(out), atlas


def _part(geometry: Any, transform: np.ndarray, linear: bool, path: Path) -> Part:
    vertices = geometry.vertices @ transform[:3, :3].T + transform[:3, 3]
    if not np.isfinite(vertices).all():
        raise ValueError(f"{path} holds positions that are not finite numbers; export it again")
    mirrored = np.linalg.det(transform[:3, :3]) < 0
    order = [0, 2, 1] if mirrored else [0, 1, 2]
    faces = np.asarray(geometry.faces)
    uv, texture = _colour(geometry, faces, linear)
    return Part(vertices, faces[:, order], None if uv is None else uv[:, order], texture)


def _colour(geometry: Any, faces: np.ndarray, linear: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Corner uv [F 3 2] and texture of one piece; either may be None."""
    from trimesh.visual.material import empty_material

    visual = geometry.visual
    if visual.kind in ("vertex", "face"):
        rgba = visual.vertex_colors[faces] if visual.kind == "vertex" else visual.face_colors[:, None].repeat(3, 1)
        return _painted(_srgb_bytes(rgba[..., :3], linear))
    if visual.kind != "texture":
        return None, None
    uv = None if visual.uv is None or len(visual.uv) == 0 else np.array(visual.uv, np.float64)[faces]
    if uv is not None:
        uv = np.nan_to_num(uv, posinf=0.0, neginf=0.0)
        uv[..., 1] = 1 - uv[..., 1]  # trimesh counts v from the bottom
    material = visual.material
    if hasattr(material, "baseColorFactor"):
        return uv, _pbr(material, uv is not None)
    if material.image is None or uv is None:
        return uv, _uniform(np.asarray(material.diffuse[:3], np.float32) / 255)  # OBJ colours are as displayed
    picture = _picture(material.image)
    if np.array_equal(picture, _picture(empty_material().image)):  # what trimesh invents for uv without a material
        return uv, None
    return uv, picture  # Kd is not multiplied in: exporters write 0.8 or even 0 beside a texture


def _pbr(material: Any, has_uv: bool) -> np.ndarray | None:
    factor = material.baseColorFactor
    factor = None if factor is None else np.asarray(factor[:3], np.float32) / 255
    image = material.baseColorTexture if has_uv else None
    if image is None:
        return _uniform(srgb_from_linear(np.ones(3, np.float32) if factor is None else factor))
    picture = _picture(image)
    if factor is None or (factor == 1).all():
        return picture
    return srgb_from_linear(linear_from_srgb(picture) * factor)  # glTF multiplies in linear light


def _painted(corners: Float[np.ndarray, "F 3 3"]) -> tuple[np.ndarray, np.ndarray]:
    if (corners == corners[:1, :1]).all():
        return np.full((len(corners), 3, 2), 0.5), _uniform(corners[0, 0])
    grid = face_grid(len(corners))
    return grid.uv[grid.faces_uv].numpy(), paint_corners(torch.from_numpy(corners), grid).numpy()


def _uniform(rgb: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "h w 3"]:
    return np.broadcast_to(rgb.astype(np.float32), (_UNIFORM_PX, _UNIFORM_PX, 3)).copy()


def _picture(image: Image.Image) -> Float[np.ndarray, "h w 3"]:
    return np.asarray(image.convert("RGB"), np.float32) / 255


def _srgb_bytes(rgb: np.ndarray, linear: bool) -> np.ndarray:
    values = np.asarray(rgb, np.float32) / 255
    return srgb_from_linear(values) if linear else values


def _gltf(path: Path) -> dict[str, Any]:
    """The JSON of a glTF file; {} for other formats."""
    if path.suffix.lower() not in (".glb", ".gltf"):
        return {}
    data = path.read_bytes()
    if data[:4] == b"glTF":
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    return json.loads(data)


def _linear_vertex_colours(gltf: dict[str, Any]) -> bool:
    """glTF's vertex colours are linear by specification, but trimesh, a common writer, stores them as displayed."""
    return bool(gltf) and "trimesh" not in str(gltf.get("asset", {}).get("generator", ""))
