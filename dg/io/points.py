"""Point files: PLY, OBJ, GLB and the NPZ of Point-E and Shap-E, with colours where there are any.

A file with faces is a mesh; it is handed on as one, since its vertices are not spread evenly.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dg.io.mesh import load_mesh
from dg.io.ply import is_splats, read_vertices
from dg.types import Mesh

FORMATS = (".ply", ".obj", ".glb", ".gltf", ".npz")
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


@dataclass(frozen=True)
class Points:
    xyz: Float[Tensor, "N 3"]  # as in the file
    rgb: Float[Tensor, "N 3"] | None  # as displayed, in [0, 1]


def read_points(path: str | Path) -> Points | Mesh:
    """The points of a file, or its mesh if it has faces.

    Colours: whole numbers are divided by 255, others are taken as they are, clamped to [0, 1].
    PLY: x, y, z and red, green, blue (or r, g, b). OBJ: `v x y z r g b`. NPZ: coords [N 3] and channels R, G, B [N]
    (Point-E's point_cloud.py, as facts).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown format, a damaged file, no points, or positions that are not finite; names the path.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path (relative ones start at the working folder)")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: '{path.suffix}' is not a format of points; use one of {', '.join(FORMATS)}")
    found = {".ply": _ply, ".obj": _obj, ".npz": _npz}.get(path.suffix.lower(), _gltf)(path)
    if isinstance(found, Mesh):
        return found
    if len(found.xyz) == 0:
        raise ValueError(f"{path} holds no points")
    bad = (~found.xyz.isfinite()).any(1).sum()
    if bad:
        raise ValueError(f"{path}: {int(bad)} of its {len(found.xyz)} points are not finite numbers")
    return found


def _points(xyz: np.ndarray, rgb: np.ndarray | None, path: Path) -> Points:
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise ValueError(f"{path}: positions have the shape {list(xyz.shape)} instead of [N, 3]")
    if rgb is not None:
        rgb = rgb / 255.0 if rgb.dtype.kind in "ui" else rgb
        rgb = torch.from_numpy(np.nan_to_num(rgb).clip(0, 1).astype(np.float32))
    return Points(torch.from_numpy(xyz.astype(np.float32)), rgb)


def _ply(path: Path) -> Points | Mesh:
    if is_splats(path):
        raise ValueError(f"{path} is a model of Gaussians; go on from it with gaussians={path}")
    data = path.read_bytes()
    header = data[: max(data.find(b"end_header"), 0)].split(b"\n")
    if any(line.split()[:2] == [b"element", b"face"] and line.split()[2:] != [b"0"] for line in header):
        return load_mesh(path)
    rows = read_vertices(data, path)
    names = rows.dtype.names
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path} has no x, y and z; its vertices have {', '.join(names)}")
    colours = next((c for c in _COLOURS if set(c) <= set(names)), None)
    rgb = None if colours is None else np.stack([rows[c] for c in colours], 1)
    return _points(np.stack([rows[axis] for axis in "xyz"], 1), rgb, path)


def _obj(path: Path) -> Points | Mesh:
    rows = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if words[:1] == ["f"]:
            return load_mesh(path)
        if words[:1] == ["v"]:
            try:
                rows.append([float(word) for word in words[1:]])
            except ValueError:
                raise ValueError(f"{path}, line {number}: {line.strip()!r} is not a point") from None
    width = {len(row) for row in rows}
    if width - {3, 4, 6, 7} or len(width) > 1:
        raise ValueError(
            f"{path}: a point is `v x y z` or `v x y z r g b`, but there are lines of {sorted(width)} numbers"
        )
    table = np.array(rows).reshape(len(rows), -1) if rows else np.zeros((0, 3))
    if table.shape[1] < 6:
        return _points(table[:, :3], None, path)
    rgb = table[:, -3:]
    return _points(table[:, :3], rgb / 255 if rgb.max() > 1 else rgb, path)


def _npz(path: Path) -> Points:
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged or no NPZ of plain arrays: {error}") from error
    if "coords" not in held:
        names = ", ".join(held) or "nothing"
        raise ValueError(
            f"{path} has no array `coords` (Point-E's and Shap-E's files do, with R, G, B); it has {names}"
        )
    coords = held["coords"]
    if not all(name in held for name in "RGB"):
        return _points(coords, None, path)
    channels = [held[name] for name in "RGB"]
    if any(channel.shape != coords.shape[:1] for channel in channels):
        raise ValueError(f"{path}: {len(coords)} points, but R, G, B have {[list(c.shape) for c in channels]} values")
    return _points(coords, np.stack(channels, 1), path)


def _gltf(path: Path) -> Points | Mesh:
    import trimesh

    try:
        scene = trimesh.load_scene(path, process=False)
    except Exception as error:  # trimesh raises whatever its parsers do
        raise ValueError(f"{path} is damaged or cut off: {type(error).__name__}: {error}") from error
    xyz, rgb = [], []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh):
            return load_mesh(path)
        if isinstance(geometry, trimesh.PointCloud):
            xyz.append(geometry.vertices @ transform[:3, :3].T + transform[:3, 3])
            colours = np.asarray(geometry.colors)
            rgb.append(colours[:, :3] if colours.ndim == 2 and len(colours) == len(xyz[-1]) else None)
    if not xyz:
        return Points(torch.zeros(0, 3), None)
    return _points(np.concatenate(xyz), None if any(c is None for c in rgb) else np.concatenate(rgb), path)
