"""Texture coordinates for a mesh that has none: charts by xatlas, or a grid of faces where that fails."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.facegrid import face_grid
from dg.types import Mesh

log = logging.getLogger(__name__)

_ATLAS_MARGIN = 1.35  # xatlas estimates the scale, and its atlas comes out up to this much larger than asked


def unwrap(mesh: Mesh, *, resolution: int = 1024, padding: int = 2) -> Mesh:
    """The mesh with `uv` in [0, 1] and `faces_uv`; vertices and faces stay as they are, an old texture is dropped.

    Args:
        resolution: side of the texture that the result is meant for, in texels.
        padding: texels between charts at that resolution.

    Charts need not have straight outlines here: xatlas spends half of its time on that (20,000 faces of an iso-surface
    take about 2 s of one core instead of 4 s), and charts become fewer without it.

    Raises:
        ValueError: no faces, or vertices that are not finite.
    """
    if len(mesh.faces) == 0:
        raise ValueError("cannot unwrap a mesh without faces")
    if not torch.isfinite(mesh.vertices).all():
        raise ValueError("cannot unwrap a mesh whose vertices are not finite")
    laid_out = _charts(mesh, resolution, padding)
    if laid_out is None:
        columns = math.ceil(math.sqrt((len(mesh.faces) + 1) // 2))
        grid = face_grid(len(mesh.faces), max(resolution, 4 * columns))
        laid_out = grid.uv, grid.faces_uv
    uv, faces_uv = (x.to(mesh.vertices.device) for x in laid_out)
    return replace(mesh, uv=uv, faces_uv=faces_uv, texture=None)


def _charts(mesh: Mesh, resolution: int, padding: int) -> tuple[Float[Tensor, "Q 2"], Int[Tensor, "F 3"]] | None:
    """xatlas's layout, or None with a warning if it fails or does not cover every face."""
    import xatlas

    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.straightness_weight = 0.0
    packing.resolution = resolution
    packing.padding = math.ceil(padding * _ATLAS_MARGIN / 2)  # around each chart, so twice between two
    packing.rotate_charts = False  # packs no worse, and leaves charts unmirrored
    vertices, faces = mesh.vertices.detach().cpu().double(), mesh.faces.cpu()
    low, high = vertices.amin(0), vertices.amax(0)
    unit = (vertices - low) / (high - low).max().clamp_min(1e-12)  # xatlas's tolerances are absolute
    try:
        atlas = xatlas.Atlas()
        atlas.add_mesh(unit.float().numpy(), faces.numpy().astype(np.uint32))
        atlas.generate(charts, packing)
        source, index, uv = atlas[0]
    except Exception as error:  # a C++ library: whatever it says, the grid still works
        log.warning("xatlas failed (%s); every face gets its own place in the texture instead", error)
        return None
    index = index.astype(np.int64)
    if len(uv) == 0 or not np.isfinite(uv).all() or index.shape != tuple(faces.shape):
        log.warning("xatlas returned an incomplete layout; every face gets its own place in the texture instead")
        return None
    if not np.array_equal(source.astype(np.int64)[index], faces.numpy()):
        log.warning("xatlas changed the faces; every face gets its own place in the texture instead")
        return None
    return torch.from_numpy(np.clip(uv, 0.0, 1.0).astype(np.float32)), torch.from_numpy(index)
