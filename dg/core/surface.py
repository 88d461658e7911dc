"""From a sampled field to a closed surface: cavities are filled, then marching cubes (Lorensen and Cline 1987)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.cavities import outside
from dg.core.density import Grid
from dg.core.manifold import split_non_manifold
from dg.core.meshes import signed_volume
from dg.types import Mesh


def fill_cavities(values: Float[Tensor, "R R R"], level: float, leak: int = 0) -> Float[Tensor, "R R R"]:
    """Raises above the level what lies below it and cannot be reached from outside (`outside` explains `leak`).

    Hidden inner Gaussians get no gradient while they are fitted, so the inside of an object is a shell and debris.
    Raised points mirror their distance from the level, at least as far above it as a thousandth of the field's range.
    """
    hidden = ~outside(values, level, leak).to(values.device) & (values < level)
    least = 1e-3 * max(float(values.max()) - level, 1e-6)
    return torch.where(hidden, level + (level - values).clamp_min(least), values)


def marching_cubes(grid: Grid, level: float) -> Mesh:
    """The surface {value = level} in world units, closed and facing outwards (towards smaller values).

    A field that is still above the level at the lattice's border is closed there.

    Raises:
        ValueError: if no value exceeds the level.
    """
    from skimage.measure import marching_cubes as lewiner  # slow to import

    values = grid.values.detach().cpu().double().numpy()
    if not values.max() > level:
        raise ValueError(f"the field's peak {values.max():.3g} is not above the level {level:.3g}: there is no surface")
    # A value that equals the level would put several vertices onto one lattice point (faces without area).
    tiny = 1e-6 * (float(values.max()) - level)
    values = np.where(np.abs(values - level) < tiny, level - tiny, values)
    below = min(float(values.min()), level - abs(float(values.max()) - level))
    values = np.pad(values, 1, constant_values=below)
    vertices, faces, _, _ = lewiner(values, level, allow_degenerate=True)
    vertices = grid.origin.double().cpu().numpy() + grid.spacing * (vertices.astype(np.float64) - 1)
    mesh = Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces.astype(np.int64)))
    mesh = split_non_manifold(mesh)  # in ambiguous cells two sheets may share an edge
    return mesh if signed_volume(mesh.vertices.double(), mesh.faces) > 0 else replace(mesh, faces=mesh.faces.flip(1))
