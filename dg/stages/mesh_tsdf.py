"""mesh=tsdf: the surface from depth pictures of the Gaussians instead of from their density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.density import Grid
from dg.core.levelchoice import choose_level, max_along_rays
from dg.core.surface import fill_cavities, marching_cubes
from dg.core.tsdf import evidence, fuse, views_around
from dg.types import Cameras, Gaussians, Mesh

_LEVEL_VIEWS, _LEVEL_SIZE = 12, 160
_REACH = 0.95  # beyond it the truncation leaves nothing of the field's slope


@dataclass(frozen=True)
class TsdfOptions:
    """Attributes:
    views: depth pictures, spread evenly over the whole sphere.
    size: their side in pixels.
    truncation: in lattice spacings, see `dg.core.tsdf.fuse`.
    votes: so many views must tell of a point, or it is inside.
    min_alpha: pixels that are more transparent show nothing.
    max_slope: a depth that changes by more than this, per unit across, is a step between two surfaces.
    hard_opacity, min_opacity: the depths are those of Gaussians that are all as opaque as the first, without those
        fainter than the second (hard depth of DNGaussian, arXiv 2403.06912): the mean depth of the Gaussians as they
        are also sees the far wall through the near one. A hard_opacity of 0 takes them as they are.
    level: of the field, which is -1 outside and 1 inside, linear over twice the truncation; or "auto": the one whose
        silhouettes agree best with the pictures' alpha. The mean depth of soft splats lies behind the surface at which
        their alpha is one half, by about one deviation.
    """

    views: int = 48
    size: int = 256
    truncation: float = 4.0
    votes: int = 2
    min_alpha: float = 0.5
    max_slope: float = 8.0
    hard_opacity: float = 0.95
    min_opacity: float = 0.02
    level: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.views < 4 or self.size < 16 or not self.truncation >= 1 or self.votes < 1:
            raise ValueError("views must be at least 4, size 16, truncation 1 and votes 1")
        if not (0 <= self.hard_opacity < 1 and 0 <= self.min_opacity < 1):
            raise ValueError("hard_opacity and min_opacity must lie in [0, 1)")
        if self.level != "auto" and not -1 < self.level < 1:
            raise ValueError(f"level={self.level} must lie between -1 and 1, or be auto")


Pictures = Callable[[Gaussians, Cameras], tuple[Tensor, Float[Tensor, "V H W"], Float[Tensor, "V H W"]]]


def hardened(gaussians: Gaussians, opacity: float, min_opacity: float) -> Gaussians:
    """Those more opaque than `min_opacity`, all at `opacity`; as they are if none is or `opacity` is 0."""
    keep = gaussians.opacities > min_opacity
    if not opacity or not keep.any():
        return gaussians
    kept = Gaussians(*(x[keep] for x in vars(gaussians).values()))
    return replace(kept, opacities=torch.full_like(kept.opacities, opacity))


def fused_surface(
    gaussians: Gaussians,
    pictures: Pictures,
    options: TsdfOptions,
    *,
    radius: float,
    fovy_deg: float,
    resolution: int,
    fill_leak: int | None,
) -> tuple[Mesh, float, float]:
    """(the surface, its level, soft IoU of the level's silhouettes with the pictures' alpha).

    Args:
        pictures: (anything, alpha, the surface's depth) of Gaussians from cameras.
        fill_leak: cavities are filled, see `dg.core.surface.fill_cavities`; None leaves them.

    Raises:
        ValueError: no view sees a surface.
    """
    cameras = views_around(options.views, radius, fovy_deg, options.size)
    cameras = cameras.to(gaussians.means.device)
    _, alpha, depth = pictures(gaussians, cameras)
    if options.hard_opacity:
        depth = pictures(hardened(gaussians, options.hard_opacity, options.min_opacity), cameras)[2]
    seen = evidence(depth, alpha, cameras, max_slope=options.max_slope, min_alpha=options.min_alpha)
    grid = fuse(seen, resolution, options.truncation, options.votes)
    level, iou = _level(grid, alpha, cameras, options)
    if fill_leak is not None:
        grid = replace(grid, values=fill_cavities(grid.values, level, fill_leak))
    return marching_cubes(grid, level), level, iou


def _level(grid: Grid, alpha: Float[Tensor, "V H W"], cameras: Cameras, options: TsdfOptions) -> tuple[float, float]:
    pick = list(range(0, len(cameras), -(-len(cameras) // _LEVEL_VIEWS)))
    side = min(_LEVEL_SIZE, options.size)
    small = F.interpolate(alpha[pick][:, None], (side, side), mode="area")[:, 0]
    # candidates are positive and even in the logarithm: those of exp(field) are even in the field
    peak = max_along_rays(replace(grid, values=grid.values.exp()), cameras[pick].resized(side, side))
    choice = choose_level(peak, small.to(peak.device), lo=math.exp(-_REACH), hi=math.exp(_REACH))
    if options.level == "auto":
        return math.log(choice.level), choice.iou
    level = float(options.level)
    return level, float(choice.ious[(choice.levels.log() - level).abs().argmin()])
