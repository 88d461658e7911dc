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


def unwrap(
    mesh: Mesh,
    *,
    resolution: int = 1024,
    padding: int = 2,
    piece_faces: int | None = 1500,
    straightness: float = 2.0,
) -> Mesh:
    """The mesh with `uv` in [0, 1] and `faces_uv`; vertices and faces stay as they are, an old texture is dropped.

    Args:
        resolution: side of the texture that the result is meant for, in texels.
        padding: texels between charts at that resolution.
        piece_faces: xatlas gets the mesh in pieces of about so many faces, the cells of a cubic lattice; None: whole.
        straightness: xatlas's weight on charts with straight outlines (its own default is 6).

    xatlas's time grows faster than the number of faces, and it spreads pieces over its threads. Measured on four
    iso-surfaces of 20,000 faces (two cores; share of the texture that is used; length of the seams for a longest side
    of 1):

        pieces  straightness   seconds      texels used   charts     seams
        1       6              1.1 to 2.0   .55 to .61    367-712    45-68
        1       0              1.5 to 2.1   .54 to .59    267-651    49-68
        11-18   2              .38 to .47   .57 to .60    277-658    44-61
        24-35   2              .34 to .43   .58 to .61    375-790    49-68
        57-87   2              .27 to .30   .55 to .58    350-814    53-76

    Raises:
        ValueError: no faces, or vertices that are not finite.
    """
    if len(mesh.faces) == 0:
        raise ValueError("cannot unwrap a mesh without faces")
    if not torch.isfinite(mesh.vertices).all():
        raise ValueError("cannot unwrap a mesh whose vertices are not finite")
    laid_out = _charts(mesh, resolution, padding, piece_faces, straightness)
    if laid_out is None:
        columns = math.ceil(math.sqrt((len(mesh.faces) + 1) // 2))
        grid = face_grid(len(mesh.faces), max(resolution, 4 * columns))
        laid_out = grid.uv, grid.faces_uv
    uv, faces_uv = (x.to(mesh.vertices.device) for x in laid_out)
    return replace(mesh, uv=uv, faces_uv=faces_uv, texture=None)


def _charts(
    mesh: Mesh, resolution: int, padding: int, piece_faces: int | None, straightness: float
) -> tuple[Float[Tensor, "Q 2"], Int[Tensor, "F 3"]] | None:
    """xatlas's layout, or None with a warning if it fails or does not cover every face."""
    import xatlas

    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.straightness_weight = straightness
    packing.resolution = resolution
    packing.padding = math.ceil(padding * _ATLAS_MARGIN / 2)  # around each chart, so twice between two
    packing.rotate_charts = False  # packs no worse, and leaves charts unmirrored
    vertices, faces = mesh.vertices.detach().cpu().double(), mesh.faces.cpu().numpy()
    low, high = vertices.amin(0), vertices.amax(0)
    unit = ((vertices - low) / (high - low).max().clamp_min(1e-12)).float().numpy()  # xatlas's tolerances are absolute
    pieces = _pieces(unit, faces, piece_faces)
    used = [np.unique(faces[piece], return_inverse=True) for piece in pieces]
    try:
        atlas = xatlas.Atlas()
        for names, corners in used:
            atlas.add_mesh(unit[names], corners.reshape(-1, 3).astype(np.uint32))
        atlas.generate(charts, packing)
        layouts = [atlas[i] for i in range(len(pieces))]
    except Exception as error:  # a C++ library: whatever it says, the grid still works
        log.warning("xatlas failed (%s); every face gets its own place in the texture instead", error)
        return None
    uv, faces_uv, first = [], np.zeros(faces.shape, np.int64), 0
    for piece, (_, corners), (source, index, found) in zip(pieces, used, layouts, strict=True):
        index = index.astype(np.int64)
        if len(found) == 0 or not np.isfinite(found).all() or index.shape != (len(piece), 3):
            log.warning("xatlas returned an incomplete layout; every face gets its own place in the texture instead")
            return None
        if not np.array_equal(source.astype(np.int64)[index], corners.reshape(-1, 3)):
            log.warning("xatlas changed the faces; every face gets its own place in the texture instead")
            return None
        uv.append(found)
        faces_uv[piece] = index + first
        first += len(found)
    return torch.from_numpy(np.clip(np.concatenate(uv), 0.0, 1.0).astype(np.float32)), torch.from_numpy(faces_uv)


def _pieces(unit: np.ndarray, faces: np.ndarray, piece_faces: int | None) -> list[np.ndarray]:
    """Faces by the cell of a cubic lattice that their middle lies in; `unit` are vertices in [0, 1]."""
    # Of n^3 cells the surfaces of toys met 1.2 n^2 to 2.4 n^2.
    sides = 1 if piece_faces is None else max(1, round((0.75 * len(faces) / piece_faces) ** 0.5))
    cell = (unit[faces].mean(1) * sides).astype(np.int64).clip(0, sides - 1)
    number = (cell[:, 0] * sides + cell[:, 1]) * sides + cell[:, 2]
    return [np.nonzero(number == n)[0] for n in np.unique(number)]
