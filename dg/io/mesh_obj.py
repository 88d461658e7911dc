"""Writes Wavefront OBJ with its material (.mtl) and texture (_albedo.png) beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dg.core.meshes import vertex_normals
from dg.io.mesh_write import to_bytes
from dg.types import Mesh

_MATERIAL = """newmtl {name}
Ka 1 1 1
Kd {kd}
Ks 0 0 0
d 1
illum 1
Ns 0
"""


def write_obj(mesh: Mesh, path: Path) -> None:
    """Positions, uv and normals keep their own indices. `vt` counts v from the bottom, so it is 1 - v here.

    `d 1` is opaque everywhere, whereas `Tr 1`, which DreamGaussian writes, means transparent to many readers.
    """
    material = "defaultMat"
    normals = vertex_normals(mesh.vertices.float(), mesh.faces)
    lines = [f"mtllib {path.stem}.mtl\n", _rows("v", mesh.vertices)]
    columns = [mesh.faces, mesh.faces]
    if mesh.uv is not None:
        flipped = mesh.uv.detach().double()
        flipped[:, 1] = 1 - flipped[:, 1]
        lines.append(_rows("vt", flipped))
        columns.insert(1, mesh.faces if mesh.faces_uv is None else mesh.faces_uv)
    lines += [_rows("vn", normals), f"usemtl {material}\n", _faces([c.numpy() for c in columns])]

    text = _MATERIAL.format(name=material, kd="0.5 0.5 0.5" if mesh.texture is None else "1 1 1")
    if mesh.texture is not None:
        picture = path.with_name(f"{path.stem}_albedo.png")
        Image.fromarray(to_bytes(mesh.texture)).save(picture)
        text += f"map_Kd {picture.name}\n"
    path.with_suffix(".mtl").write_text(text, encoding="utf-8")
    path.write_text("".join(lines), encoding="utf-8")


def _rows(keyword: str, values) -> str:
    rows = values.detach().numpy()
    line = keyword + " %.9g" * rows.shape[1] + "\n"  # nine digits give the same float32 back
    return (line * len(rows)) % tuple(rows.reshape(-1).tolist())


def _faces(columns: list[np.ndarray]) -> str:
    corner = " %d/%d/%d" if len(columns) == 3 else " %d//%d"
    corners = np.stack(columns, -1) + 1  # OBJ counts from one
    return (("f" + corner * 3 + "\n") * len(corners)) % tuple(corners.reshape(-1).tolist())
