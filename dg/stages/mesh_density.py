"""mesh=default and legacy: the surface from the density of the Gaussians."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.carve import hull_distance, seen_empty, solid_field
from dg.core.density import Grid
from dg.core.levelchoice import choose_level, max_along_rays
from dg.core.surface import fill_cavities, marching_cubes
from dg.stages.mesh_options import MeshOptions
from dg.types import Cameras, Mesh

log = logging.getLogger(__name__)

CARVE_SIZE = 256  # contours are found to a quarter of a pixel; more pixels change nothing and cost time
_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_LEVEL_VIEWS = 12
_LEVEL_SIZE = 160


def chosen_level(
    grid: Grid, alpha: Float[Tensor, "V H W"], cameras: Cameras, options: MeshOptions
) -> tuple[float, float, dict[str, float]]:
    """(level, soft IoU, quantiles of the density). A fixed level above the whole field is lowered, with a warning."""
    pick = list(range(0, len(cameras), -(-len(cameras) // _LEVEL_VIEWS)))
    side = min(_LEVEL_SIZE, options.render_size)
    small = F.interpolate(alpha[pick][:, None], (side, side), mode="area")[:, 0]
    peak = max_along_rays(grid, cameras[pick].resized(side, side))
    choice = choose_level(peak, small)
    met = peak[small >= 0.5].double()
    marks = torch.tensor(_QUANTILES, dtype=torch.float64, device=met.device)
    density = {f"q{100 * q:g}": x for q, x in zip(_QUANTILES, met.quantile(marks).tolist(), strict=True)}
    if options.level == "auto":
        return choice.level, choice.iou, density
    level = float(options.level)
    if level >= float(grid.values.max()):
        log.warning(
            "mesh.level=%g is above the density's peak %.3g; using %.3g, where the silhouettes agree best",
            level,
            float(grid.values.max()),
            choice.level,
        )
        return choice.level, choice.iou, density
    return level, float(choice.ious[(choice.levels.log() - torch.tensor(level).log()).abs().argmin()]), density


def carved_surface(
    grid: Grid, level: float, alpha: Tensor, depth: Tensor, cameras: Cameras, options: MeshOptions
) -> Mesh:
    """The level's surface, trimmed and filled by what the views show if `options.carve`."""

    def filled(values: Tensor, at: float) -> Tensor:
        return fill_cavities(values, at, options.fill_leak) if options.fill else values

    if not options.carve:
        return marching_cubes(replace(grid, values=filled(grid.values, level)), level)
    cameras, alpha, depth = shrunk(cameras, alpha, depth, CARVE_SIZE)
    level = options.carve_level * level
    hull = hull_distance(grid, alpha, cameras, level=options.carve_alpha, votes=options.carve_votes)
    empty = seen_empty(grid, depth, alpha, cameras, margin=0.0, level=options.carve_alpha)
    # First the cavities: views through a porous wall see parts of the inside as empty, and would break it up.
    solid = solid_field(replace(grid, values=filled(grid.values, level)), level, hull, empty, votes=options.carve_votes)
    return marching_cubes(replace(grid, values=filled(solid, 0.0)), 0.0)


def shrunk(
    cameras: Cameras, alpha: Tensor, depth: Tensor, size: int
) -> tuple[Cameras, Float[Tensor, "V h w"], Float[Tensor, "V h w"]]:
    """The same views at no more than `size` pixels; depth is averaged with alpha as its weight."""
    if cameras.height <= size:
        return cameras, alpha, depth
    both = torch.stack([alpha, alpha * depth], 1)
    both = F.interpolate(both, (size, size), mode="area")
    return cameras.resized(size, size), both[:, 0], both[:, 1] / both[:, 0].clamp_min(1e-6)
