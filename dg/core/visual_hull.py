"""Gaussians that start inside the visual hull of the reference pictures (Laurentini 1994), in the pictures' colours."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from dg.core.camera import project
from dg.core.gaussians import RawGaussians, from_points
from dg.core.inflate import extend_colours, squared_thickness
from dg.types import Cameras, Reference

_MARGIN = 1.5  # of the box in which points are tried: beyond the origin the hull's cone widens
_BATCHES = 400  # of as many candidates as points are asked for; then the pictures have no common hull


def visual_hull(
    generator: torch.Generator,
    reference: Reference | None = None,
    *,
    num_points: int = 5000,
    max_depth: float = 1.0,
    opacity: float = 0.1,
    sh_degree: int = 0,
) -> RawGaussians:
    """Points of uniform density in the set that every picture shows inside its silhouette.

    A single picture bounds nothing in depth: there the points fill the solid that its silhouette inflates to
    (`dg.core.inflate`). A point has the colour of the picture whose camera is nearest to it, continued from a rim two
    pixels inside the outline.

    Args:
        max_depth: a single picture's solid is at most this many times as deep as wide or high, whichever is less.

    Raises:
        ValueError: there is no picture, a silhouette is empty, or the silhouettes have nothing in common.
    """
    if reference is None:
        raise ValueError("init=visual_hull needs a picture: input=PICTURE, or init=ball")
    rgba = reference.rgba.detach().float().cpu()
    masks, cameras = rgba[..., 3] > 0.5, reference.cameras.to("cpu").resized(*rgba.shape[1:3])
    half = _MARGIN * max(_reach(mask, cameras[[r]], r) for r, mask in enumerate(masks))
    thickness = squared_thickness(rgba[0, ..., 3], cameras, max_depth=max_depth) if len(masks) == 1 else None
    found, kept = [], 0
    for _ in range(_BATCHES):
        candidates = (2 * torch.rand(num_points, 3, generator=generator) - 1) * half
        inside = candidates[in_silhouettes(candidates, masks, cameras)]
        if thickness is not None:
            inside = inside[_in_inflated(inside, *thickness)]
        found.append(inside)
        kept += len(inside)
        if kept >= num_points:
            break
    else:
        raise ValueError(
            f"init=visual_hull: only {kept} of {_BATCHES * num_points} points lie inside all {len(masks)} silhouettes; "
            "check elevation and azimuth of the pictures and recenter=false, or give init=ball"
        )
    points = torch.cat(found)[:num_points]
    return from_points(points, _colours(points, rgba, cameras), opacity=opacity, sh_degree=sh_degree)


def _reach(mask: Bool[Tensor, "H W"], camera: Cameras, index: int) -> float:
    """The silhouette's largest offset from the camera's axis, in world units at the distance of the origin."""
    if not mask.any():
        raise ValueError(f"init=visual_hull: picture {index + 1} has no opaque pixel; give init=ball")
    pixels = 0.0
    for used, centre in ((mask.any(1), camera.K[0, 1, 2]), (mask.any(0), camera.K[0, 0, 2])):
        ends = used.nonzero()[:, 0]
        pixels = max(pixels, float(centre - ends[0]), float(ends[-1] + 1 - centre))
    return pixels * float(camera.position[0].norm() / camera.K[0, 1, 1])


def _in_inflated(
    points: Float[Tensor, "P 3"], squared: Float[np.ndarray, "m m"], camera: Cameras
) -> Bool[Tensor, " P"]:
    """Whether a point's depth differs from the origin's by less than half the solid's thickness at its pixel."""
    xy, depth = project(points, camera)
    at = (xy[0].double().numpy()[:, ::-1] - 0.5).T
    distance = float(camera.position[0].norm())
    half_px2 = ndimage.map_coordinates(squared, at, order=1, mode="nearest")
    world = distance / float(camera.K[0, 0, 0])
    return (depth[0] - distance).square() < torch.from_numpy(half_px2 * world**2).to(depth)


def in_silhouettes(points: Float[Tensor, "P 3"], masks: Bool[Tensor, "R H W"], cameras: Cameras) -> Bool[Tensor, " P"]:
    """Whether each point falls onto the mask in every view; what falls beside the picture is outside."""
    pixel, there = _pixels(points, cameras)
    seen = torch.stack([mask[at[:, 1], at[:, 0]] for mask, at in zip(masks, pixel, strict=True)])
    return (seen & there).all(0)


def _pixels(points: Float[Tensor, "P 3"], cameras: Cameras) -> tuple[Int[Tensor, "R P 2"], Bool[Tensor, "R P"]]:
    """The pixel (x, y) of each point in each view, clamped to the picture, and whether it was in it."""
    xy, depth = project(points, cameras)
    limit = torch.tensor([cameras.width, cameras.height])
    there = (depth > 1e-6) & (xy >= 0).all(-1) & (xy < limit).all(-1)
    pixel = torch.where(there[..., None], xy, 0).long()
    return torch.minimum(pixel, limit - 1), there


def _colours(points: Float[Tensor, "P 3"], rgba: Float[Tensor, "R H W 4"], cameras: Cameras) -> Float[Tensor, "P 3"]:
    pixel, _ = _pixels(points, cameras)
    seen = torch.stack([extend_colours(x)[at[:, 1], at[:, 0]] for x, at in zip(rgba, pixel, strict=True)])
    nearest = torch.cdist(cameras.position, points).argmin(0)
    return seen[nearest, torch.arange(len(points))]
