"""Writes binary glTF 2.0 (Khronos specification, sections 3 to 5): one buffer, one unlit material."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dg.io.glb import INDEX_DATA, VERTEX_DATA, Scene
from dg.io.mesh_write import split_seams, to_bytes
from dg.types import Mesh

_FLOAT, _UINT32 = 5126, 5125
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP = 9729, 9987, 33071
_GREY_LINEAR = ((0.5 + 0.055) / 1.055) ** 2.4  # sRGB 0.5, as factors are linear


def write_glb(mesh: Mesh, path: Path) -> None:
    split = split_seams(mesh)
    scene = Scene("DreamGaussian Lab", extensionsUsed=["KHR_materials_unlit"])
    attributes = {}
    indices = _array(scene, split.faces.reshape(-1).astype("<u4"), "SCALAR", INDEX_DATA)
    attributes["POSITION"] = _array(scene, split.vertices, "VEC3", VERTEX_DATA, bounds=True)
    attributes["NORMAL"] = _array(scene, split.normals, "VEC3", VERTEX_DATA)
    if split.uv is not None:
        attributes["TEXCOORD_0"] = _array(scene, split.uv, "VEC2", VERTEX_DATA)
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
        # level 3 takes half the time of PIL's 6, for a tenth more bytes
        Image.fromarray(to_bytes(mesh.texture)).save(png, "PNG", compress_level=3)
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


def _array(scene: Scene, array: np.ndarray, kind: str, target: int, bounds: bool = False) -> int:
    entry: dict[str, Any] = {
        "bufferView": scene.view(array.tobytes(), target=target),
        "componentType": _UINT32 if array.dtype.kind == "u" else _FLOAT,
        "count": len(array),
        "type": kind,
    }
    if bounds:
        entry |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
    return scene.accessor(**entry)
