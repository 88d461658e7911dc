"""Writes binary glTF 2.0 (Khronos specification, sections 3 to 5): one buffer, one unlit material."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dg.io.mesh_write import split_seams, to_bytes
from dg.types import Mesh

_FLOAT, _UINT32 = 5126, 5125
_VERTEX_DATA, _INDEX_DATA = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP = 9729, 9987, 33071
_GREY_LINEAR = ((0.5 + 0.055) / 1.055) ** 2.4  # sRGB 0.5, as factors are linear


def write_glb(mesh: Mesh, path: Path) -> None:
    split = split_seams(mesh)
    scene = _Scene()
    attributes = {}
    indices = scene.accessor(split.faces.reshape(-1).astype("<u4"), "SCALAR", _INDEX_DATA)
    attributes["POSITION"] = scene.accessor(split.vertices, "VEC3", _VERTEX_DATA, bounds=True)
    attributes["NORMAL"] = scene.accessor(split.normals, "VEC3", _VERTEX_DATA)
    if split.uv is not None:
        attributes["TEXCOORD_0"] = scene.accessor(split.uv, "VEC2", _VERTEX_DATA)
    primitive = {"attributes": attributes, "indices": indices, "mode": 4, "material": 0}
    scene.document |= {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [_material(mesh)],
    }
    if mesh.texture is not None:
        png = io.BytesIO()
        Image.fromarray(to_bytes(mesh.texture)).save(png, "PNG")
        sampler = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}
        scene.document |= {
            "images": [{"mimeType": "image/png", "bufferView": scene.view(png.getvalue())}],
            "samplers": [sampler],
            "textures": [{"sampler": 0, "source": 0}],
        }
    path.write_bytes(scene.to_bytes())


def _material(mesh: Mesh) -> dict[str, Any]:
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if mesh.texture is None:
        surface["baseColorFactor"] = [_GREY_LINEAR] * 3 + [1.0]
    else:
        surface["baseColorTexture"] = {"index": 0}
    return {"pbrMetallicRoughness": surface, "doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}


class _Scene:
    """Collects the binary chunk and the accessors that describe it."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "DreamGaussian Lab"},
            "extensionsUsed": ["KHR_materials_unlit"],
            "accessors": [],
            "bufferViews": [],
        }
        self._chunk = bytearray()

    def view(self, data: bytes, target: int | None = None) -> int:
        """Appends bytes at a multiple of four, as accessors and chunks require."""
        view = {"buffer": 0, "byteOffset": len(self._chunk), "byteLength": len(data)}
        self.document["bufferViews"].append(view if target is None else view | {"target": target})
        self._chunk += data + bytes(-len(data) % 4)
        return len(self.document["bufferViews"]) - 1

    def accessor(self, array: np.ndarray, kind: str, target: int, bounds: bool = False) -> int:
        entry: dict[str, Any] = {
            "bufferView": self.view(array.tobytes(), target),
            "componentType": _UINT32 if array.dtype.kind == "u" else _FLOAT,
            "count": len(array),
            "type": kind,
        }
        if bounds:
            entry |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def to_bytes(self) -> bytes:
        self.document["buffers"] = [{"byteLength": len(self._chunk)}]
        text = json.dumps(self.document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(self._chunk))
        chunks = struct.pack("<I4s", len(text), b"JSON") + text, struct.pack("<I4s", len(self._chunk), b"BIN\0")
        return header + b"".join(chunks) + bytes(self._chunk)
