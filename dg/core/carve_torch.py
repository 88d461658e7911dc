"""`dg.core.carve` on an accelerator: the contours' distances, and its two sweeps over a lattice: all points at once,
view by view."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dg.core.cavities import nearest_squared
from dg.core.density import Grid
from dg.types import Cameras


def contour_distance(alpha: Float[Tensor, "V H W"], level: float) -> Float[Tensor, "V H W"]:
    """`dg.core.carve.silhouette_distance` of all views together."""
    views, height, width = alpha.shape
    fine = torch.nn.functional.interpolate(alpha[:, None], scale_factor=2, mode="bilinear")[:, 0]
    inside = fine >= level
    distance = [nearest_squared(other, batch_axes=1).float().sqrt() for other in (~inside, inside)]
    signed = torch.where(inside, distance[0] - 0.5, 0.5 - distance[1])
    out = signed.view(views, height, 2, width, 2).mean((2, 4)) / 2
    full, met = inside.flatten(1).all(1), inside.flatten(1).any(1)
    out = torch.where(full[:, None, None], float("inf"), out)
    return torch.where(met[:, None, None], out, float("-inf"))


def votes_smallest(
    grid: Grid, pictures: Float[Tensor, "V H W"], cameras: Cameras, votes: int
) -> Float[Tensor, "R R R"]:
    """The votes-th smallest over the views of a picture's value at each point, in world units; inf where fewer see it.

    The compiled kernel stops early outside the hull, so that its values there may be larger.
    """
    points = grid.points().double().reshape(-1, 3)
    least = torch.full((votes, len(points)), float("inf"), dtype=torch.float32, device=points.device)
    pictures = pictures.to(points.device)
    for v in range(len(cameras)):
        depth, u, w = _projected(points, cameras, v)
        u, w = u - 0.5, w - 0.5
        height, width = pictures.shape[1:]
        seen = (depth > 1e-6) & (u >= 0) & (w >= 0) & (u <= width - 1) & (w <= height - 1)
        value = bilinear(pictures[v], torch.where(seen, u, 0.0), torch.where(seen, w, 0.0))
        distance = (value * depth / cameras.K[v, 0, 0].double()).float()
        distance = torch.where(seen & ~distance.isnan(), distance, float("inf"))
        for n in range(votes):  # keeps the `votes` smallest, ascending
            least[n], distance = torch.minimum(least[n], distance), torch.maximum(least[n], distance)
    return least[-1].view(grid.values.shape)


def count_before(grid: Grid, surface: Float[Tensor, "V H W"], cameras: Cameras, margin: float) -> Int[Tensor, "R R R"]:
    """In how many views each point lies `margin` before the surface's depth, which is inf where there is none."""
    points = grid.points().double().reshape(-1, 3)
    counts = torch.zeros(len(points), dtype=torch.int16, device=points.device)
    surface = surface.to(points.device)
    height, width = surface.shape[1:]
    for v in range(len(cameras)):
        depth, u, w = _projected(points, cameras, v)
        seen = (depth > 1e-6) & (u >= 0) & (w >= 0) & (u < width) & (w < height)
        row, column = torch.where(seen, w, 0.0).long(), torch.where(seen, u, 0.0).long()
        counts += _before(depth, surface[v][row, column], margin) & seen
    return counts.view(grid.values.shape)


def _before(depth: Tensor, surface: Tensor, margin: float) -> Bool[Tensor, " n"]:
    return depth < surface.double() - margin


def _projected(
    points: Float[Tensor, "n 3"], cameras: Cameras, v: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """View depth and pixel coordinates; pixel centres at +0.5."""
    w2c, K = cameras.w2c[v].double().to(points.device), cameras.K[v].double().to(points.device)
    x, y, depth = (points @ w2c[:3, :3].T + w2c[:3, 3]).unbind(1)
    safe = torch.where(depth > 1e-6, depth, 1.0)
    return depth, K[0, 0] * x / safe + K[0, 2], K[1, 1] * y / safe + K[1, 2]


def bilinear(picture: Float[Tensor, "H W"], u: Float[Tensor, " n"], w: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """At (column, row) with pixel centres at whole numbers, inside the picture."""
    height, width = picture.shape
    c, r = u.long().clamp_max(width - 2), w.long().clamp_max(height - 2)
    fu, fw = u - c, w - r
    flat, at = picture.reshape(-1), r * width + c
    upper = flat[at] * (1 - fu) + flat[at + 1] * fu
    lower = flat[at + width] * (1 - fu) + flat[at + width + 1] * fu
    return upper * (1 - fw) + lower * fw
