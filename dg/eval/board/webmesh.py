"""Meshes inside the page: quantised, with a small texture, gzipped, so that sixty of them fit into one file.

glTF 2.0 with KHR_mesh_quantization: positions are 16-bit numbers that the node scales back (an error below 1e-5 of the
longest side), texture coordinates 16-bit, the texture a JPEG. For looking at; the links lead to the file itself.
"""

from __future__ import annotations

import base64
import gzip
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from dg.core.clean import decimate
from dg.io.glb import INDEX_DATA, VERTEX_DATA, Scene
from dg.io.mesh import load_mesh
from dg.io.mesh_write import split_seams, to_bytes
from dg.io.srgb import linear_from_srgb
from dg.types import Mesh

_USHORT, _UINT, _BYTE = 5123, 5125, 5120
_FULL = 65535
TIERS = ((60_000, 1024), (30_000, 512), (10_000, 256))  # faces, side of the texture in pixels


@dataclass(frozen=True)
class WebMesh:
    """A gzipped GLB in base64; `note` says what was left out, if anything."""

    base64: str
    note: str


def web_mesh(path: Path, limit_bytes: int) -> WebMesh | str:
    """The finest of three versions that takes at most `limit_bytes` in the page, or why there is none."""
    try:
        stat = path.stat()
        for max_faces, side in TIERS:
            text, faces = _packed(path, stat.st_mtime_ns, stat.st_size, max_faces, side)
            if len(text) <= limit_bytes:
                note = f"shown with {max_faces:,} of its {faces:,} faces" if faces > max_faces else ""
                return WebMesh(text, note)
    except (OSError, ValueError) as error:
        return f"the mesh cannot be shown: {error}"
    return "too large for the page; open the file"


@lru_cache(maxsize=512)
def _packed(path: Path, mtime_ns: int, size: int, max_faces: int, side: int) -> tuple[str, int]:
    """The version in base64, and how many faces the whole mesh has. Kept, as boards are written again and again."""
    mesh = load_mesh(path)
    return base64.b64encode(gzip.compress(to_glb(mesh, max_faces, side), 6, mtime=0)).decode(), len(mesh.faces)


def to_glb(mesh: Mesh, max_faces: int, texture_px: int) -> bytes:
    """Binary glTF of at most about `max_faces` faces; beyond that, colours go to the vertices of a coarser mesh."""
    colours = None
    if len(mesh.faces) > max_faces:
        mesh, colours = _coarser(mesh, max_faces)
    split = split_seams(mesh)
    low, high = split.vertices.min(0), split.vertices.max(0)
    scale = float(max((high - low).max(), 1e-12))
    scene = Scene(
        "DreamGaussian Lab, for the leaderboard's page",
        extensionsUsed=["KHR_mesh_quantization", "KHR_materials_unlit"],
        extensionsRequired=["KHR_mesh_quantization"],
    )
    positions = _pad(np.rint((split.vertices - low) / scale * _FULL).astype("<u2"), 4)
    attributes = {"POSITION": _vertices(scene, positions, "VEC3", _USHORT, 3)}
    if split.uv is not None and mesh.texture is not None:
        uv = np.rint(np.clip(split.uv, 0, 1) * _FULL).astype("<u2")
        attributes["TEXCOORD_0"] = _vertices(scene, uv, "VEC2", _USHORT, 2)
    elif colours is not None:
        attributes["COLOR_0"] = _vertices(scene, _pad(colours, 4, _FULL), "VEC4", _USHORT, 4)
    else:  # plain grey needs light to have a form
        attributes["NORMAL"] = _vertices(scene, _pad(np.rint(split.normals * 127).astype("i1"), 4), "VEC3", _BYTE, 3)
    lit = "NORMAL" in attributes
    index = split.faces.reshape(-1)
    wide = len(split.vertices) > _FULL
    primitive = {
        "attributes": attributes,
        "indices": _indices(scene, index.astype("<u4" if wide else "<u2"), _UINT if wide else _USHORT),
        "material": 0,
    }
    textured = "TEXCOORD_0" in attributes
    scene.document |= {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "scale": [scale] * 3, "translation": [float(x) for x in low]}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [_material(lit, textured)],
    }
    if textured:
        scene.document |= {
            "images": [{"mimeType": "image/jpeg", "bufferView": scene.view(_jpeg(mesh, texture_px))}],
            "textures": [{"source": 0}],
        }
    return scene.to_bytes()


def _coarser(mesh: Mesh, max_faces: int) -> tuple[Mesh, np.ndarray | None]:
    """The decimated shape, and for its vertices the linear 16-bit colours of the nearest original ones."""
    whole = split_seams(mesh)
    small = decimate(Mesh(mesh.vertices, mesh.faces), max_faces)
    if mesh.texture is None or whole.uv is None:
        return small, None
    height, width = mesh.texture.shape[:2]
    x = np.clip((whole.uv[:, 0] * width).astype(int), 0, width - 1)
    y = np.clip((whole.uv[:, 1] * height).astype(int), 0, height - 1)
    srgb = mesh.texture.detach().cpu().numpy()[y, x]
    linear = linear_from_srgb(srgb)
    _, nearest = cKDTree(whole.vertices).query(split_seams(small).vertices)
    return small, np.rint(np.clip(linear, 0, 1) * _FULL).astype("<u2")[nearest]


def _material(lit: bool, textured: bool) -> dict[str, Any]:
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if textured:
        surface["baseColorTexture"] = {"index": 0}
    elif lit:
        surface["baseColorFactor"] = [0.5, 0.5, 0.5, 1.0]
    found: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": True}
    return found if lit else found | {"extensions": {"KHR_materials_unlit": {}}}


def _jpeg(mesh: Mesh, side: int) -> bytes:
    assert mesh.texture is not None
    image = Image.fromarray(to_bytes(mesh.texture.cpu()))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88)
    return data.getvalue()


def _pad(rows: np.ndarray, width: int, value: int = 0) -> np.ndarray:
    """Vertex attributes start at multiples of four bytes."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=value)


def _vertices(scene: Scene, rows: np.ndarray, kind: str, component: int, used: int) -> int:
    """Normalised integers; rows may be padded beyond the `used` columns."""
    view = scene.view(np.ascontiguousarray(rows).tobytes(), target=VERTEX_DATA, byteStride=rows.strides[0])
    bounds = {"min": rows[:, :used].min(0).tolist(), "max": rows[:, :used].max(0).tolist()}
    facts = {"bufferView": view, "count": len(rows), "type": kind, "normalized": True}
    return scene.accessor(**facts, **bounds, componentType=component)


def _indices(scene: Scene, flat: np.ndarray, component: int) -> int:
    view = scene.view(flat.tobytes(), target=INDEX_DATA)
    return scene.accessor(bufferView=view, count=len(flat), type="SCALAR", componentType=component)
