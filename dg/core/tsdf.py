"""A surface from depth pictures: truncated signed distances, averaged over the views (Curless and Levoy 1996).

A view tells of a point how far it lies before (positive) or behind the surface along the view's axis. Behind the
surface by more than the truncation it tells nothing. The mean is weighted by the cosine at which the view sees the
surface. Where a view sees nothing at all, its distance is the one to the silhouette's contour: so the surface does not
shrink at the contours, as it would if all points beside the object were equally far outside. What hardly any view tells
anything about is inside, unless it lies beside most pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import intrinsics, look_at
from dg.core.carve import lattice_arrays, silhouette_distance, view_arrays
from dg.core.density import Grid
from dg.core.depth_normals import normals_from_depth, view_points
from dg.core.slabs import batched, compiled, in_slabs
from dg.core.sphere import directions
from dg.core.tsdf_torch import fused
from dg.types import Cameras

_MARGIN = 3  # lattice points around what the views see, beside the truncation


@dataclass(frozen=True)
class Evidence:
    """What the views tell, per pixel."""

    surface: Float[Tensor, "V H W"]  # view depth; +inf where there is nothing, nan where the depth cannot be trusted
    weight: Float[Tensor, "V H W"]  # cosine between the surface's normal and the ray; 0 where it is not known
    outside_px: Float[Tensor, "V H W"]  # distance to the silhouette's contour in pixels, positive outside
    cameras: Cameras


def views_around(count: int, radius: float, fovy_deg: float, size: int) -> Cameras:
    """Views of the origin spread evenly over the whole sphere."""
    position = radius * directions(count)
    K = intrinsics(fovy_deg, size, size).expand(count, 3, 3).clone()
    return Cameras(look_at(position, torch.zeros_like(position)), K, size, size)


def evidence(
    depth: Float[Tensor, "V H W"],
    alpha: Float[Tensor, "V H W"],
    cameras: Cameras,
    *,
    max_slope: float,
    min_alpha: float = 0.5,
) -> Evidence:
    """Args:
    depth: view depth of the surface (already divided by alpha); 0 where it is not known.
    max_slope: where the depth differs from a neighbour's on the object by more than this many widths of a pixel there,
        the render mixes two surfaces, and the pixel is not trusted.
    """
    there = alpha >= min_alpha
    clean = torch.where(there, depth, 0)
    trusted = there & (depth > 1e-6)
    for axis, f in ((1, cameras.K[:, 1, 1]), (2, cameras.K[:, 0, 0])):
        n = depth.shape[axis] - 1
        a, b = clean.narrow(axis, 0, n), clean.narrow(axis, 1, n)
        widths = (a - b).abs() * f[:, None, None] / torch.minimum(a, b).clamp_min(1e-6)
        jump = (widths > max_slope) & there.narrow(axis, 0, n) & there.narrow(axis, 1, n)
        trusted.narrow(axis, 0, n).logical_and_(~jump)
        trusted.narrow(axis, 1, n).logical_and_(~jump)
    normals, known = normals_from_depth(clean[..., None], trusted[..., None], cameras)
    rays = torch.nn.functional.normalize(view_points(torch.ones_like(clean)[..., None], cameras), dim=-1)
    cosine = torch.where(known[..., 0], -(normals * rays).sum(-1), 0).clamp_min(0)
    surface = torch.where(trusted, depth, torch.where(there, math.nan, math.inf))
    contour = -silhouette_distance(alpha, min_alpha).to(depth.device).clamp(-1e6, 1e6)
    return Evidence(surface.float(), cosine.float(), contour, cameras)


def lattice(seen: Evidence, resolution: int, truncation: float) -> tuple[Float[Tensor, 3], float]:
    """(origin, spacing) of a cube around everything that a view sees, `truncation` (in spacings) and a little wider.

    Raises:
        ValueError: no view sees anything.
    """
    finite = seen.surface.isfinite()
    if not finite.any():
        raise ValueError("no view sees a surface: the Gaussians are empty or transparent")
    points = view_points(torch.where(finite, seen.surface, 0)[..., None], seen.cameras)
    c2w = seen.cameras.c2w.to(points)
    world = (points.flatten(1, 2) @ c2w[:, :3, :3].transpose(1, 2) + c2w[:, None, :3, 3])[finite.flatten(1)]
    lo, hi = world.amin(0), world.amax(0)
    margin = min(math.ceil(truncation) + _MARGIN, (resolution - 2) // 2)
    spacing = max(float((hi - lo).max()), 1e-6) / (resolution - 1 - 2 * margin)
    return ((lo + hi) / 2 - spacing * (resolution - 1) / 2).cpu(), spacing


def fuse(seen: Evidence, resolution: int, truncation: float = 3.0, votes: int = 2) -> Grid:
    """The field on resolution^3 points: minus the mean of distance / truncation, in [-1, 1], positive inside.

    Args:
        truncation: in lattice spacings. Parts thinner than that are lost where both of their sides are seen.
        votes: a point that fewer views tell something about counts as inside: one view through a hole bores no tunnel.
            But it is outside if it lies beside half of the pictures, as what is in the object's shadow far behind it.
    """
    origin, spacing = lattice(seen, resolution, truncation)
    limit, device = truncation * spacing, seen.surface.device
    grid = Grid(torch.zeros((resolution,) * 3), origin, spacing)
    if batched(device):
        cameras = seen.cameras.to(device)
        rows = [
            fused(slab.reshape(-1, 3), seen.surface, seen.weight, seen.outside_px, cameras, limit, votes)
            for slab in grid.points().to(device).split(max(1, (1 << 22) // resolution**2))
        ]
        return Grid(torch.cat(rows).reshape((resolution,) * 3), origin.to(device), spacing)
    values = grid.values.numpy()
    pictures = [x.float().numpy() for x in (seen.surface, seen.weight, seen.outside_px)]
    arrays = *lattice_arrays(grid), *view_arrays(seen.cameras)
    in_slabs(_fuse, resolution, *arrays, *pictures, limit, votes, values)
    return grid


@compiled
def _between(picture, c, r, fu, fw):
    upper = picture[r, c] * (1 - fu) + picture[r, c + 1] * fu
    lower = picture[r + 1, c] * (1 - fu) + picture[r + 1, c + 1] * fu
    return upper * (1 - fw) + lower * fw


@compiled
def _fuse(first, last, origin, spacing, w2c, K, surface, weight, outside, truncation, votes, values):
    views, height, width = surface.shape
    for i in range(first, last):
        x = origin[0] + spacing * i
        for j in range(values.shape[1]):
            y = origin[1] + spacing * j
            for k in range(values.shape[2]):
                z = origin[2] + spacing * k
                total, count, told, looked = 0.0, 0.0, 0, 0
                for v in range(views):
                    depth = w2c[v, 2, 0] * x + w2c[v, 2, 1] * y + w2c[v, 2, 2] * z + w2c[v, 2, 3]
                    if depth <= 1e-6:
                        continue
                    px = (w2c[v, 0, 0] * x + w2c[v, 0, 1] * y + w2c[v, 0, 2] * z + w2c[v, 0, 3]) / depth
                    py = (w2c[v, 1, 0] * x + w2c[v, 1, 1] * y + w2c[v, 1, 2] * z + w2c[v, 1, 3]) / depth
                    u, w = K[v, 0, 0] * px + K[v, 0, 2] - 0.5, K[v, 1, 1] * py + K[v, 1, 2] - 0.5
                    if u < 0 or w < 0 or u > width - 1 or w > height - 1:
                        continue
                    looked += 1
                    c, r = min(int(u), width - 2), min(int(w), height - 2)
                    fu, fw = u - c, w - r
                    own = surface[v, int(w + 0.5), int(u + 0.5)]
                    if np.isnan(own):
                        continue
                    if own == np.inf:
                        distance = max(_between(outside[v], c, r, fu, fw), 0.0) * depth / K[v, 0, 0]
                        confidence = 1.0
                    else:
                        there = _between(surface[v], c, r, fu, fw)
                        if np.isfinite(there):
                            distance = there - depth
                            confidence = _between(weight[v], c, r, fu, fw)
                        else:  # some corner is background or says nothing: the nearest pixel decides
                            distance = own - depth
                            confidence = weight[v, int(w + 0.5), int(u + 0.5)]
                        if distance < -truncation or confidence <= 0:
                            continue
                    total += confidence * max(-1.0, min(1.0, distance / truncation))
                    count += confidence
                    told += 1
                values[i, j, k] = -total / count if told >= votes else (1.0 if 2 * looked > views else -1.0)
