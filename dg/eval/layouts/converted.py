"""Copies of a data set's files in our conventions, made once into a cache; the data set itself is never touched."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch

from dg.eval.layouts.frames import Rows
from dg.eval.layouts.pictures import read, shrunk
from dg.eval.placement import Box, resized, turned, yaw_matrix
from dg.io.files import sha256
from dg.io.images import write_png
from dg.io.mesh import load_mesh, save_mesh
from dg.types import Mesh

log = logging.getLogger("dg")

VERSION = 1
UNIT = Box(torch.zeros(3), 1.0)  # centred, longest side 1


def placed(mesh: Mesh, axes: Rows | None = None, unit: bool = False, yaw_deg: float = 0.0) -> Mesh:
    """Turned by `axes`, with `unit` centred and scaled to longest side 1, then turned about +y: in this order."""
    if axes is not None:
        mesh = turned(mesh, torch.tensor(axes))
    if unit:
        mesh = resized(mesh, UNIT)
    return turned(mesh, yaw_matrix(yaw_deg)) if yaw_deg else mesh


def mesh_in_our_frame(
    path: Path, cache: str | Path, name: str, axes: Rows | None = None, unit: bool = False, yaw_deg: float = 0.0
) -> Path:
    """A GLB of `placed(load_mesh(path), ...)`.

    Raises:
        FileNotFoundError, ValueError: the mesh is missing or damaged.
    """
    made = _place(path, cache, "truths", [axes, unit, round(yaw_deg, 6)], f"{name}-{{}}.glb")
    if not made.is_file():
        log.info("bringing the mesh of %s into our frame", name)
        save_mesh(placed(load_mesh(path), axes, unit, yaw_deg), made)
    return made


def picture_at_size(path: Path, cache: str | Path, name: str, size: int) -> Path:
    """The picture itself if it has that size, else a copy that does."""
    from PIL import Image

    with Image.open(path) as image:
        if image.size == (size, size):
            return path
    made = _place(path, cache, "pictures", [size], f"{name}-{path.stem}-{{}}.png")
    if not made.is_file():
        write_png(made, shrunk(read(path), (size, size)))
    return made


def _place(path: Path, cache: str | Path, kind: str, how: list[object], pattern: str) -> Path:
    """Where the copy of these contents, made like this, lies."""
    key = hashlib.sha256((sha256(path) + json.dumps([VERSION, *how])).encode()).hexdigest()[:12]
    return Path(cache) / kind / pattern.format(key)
