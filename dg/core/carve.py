"""Space carving: what the views tell about a field besides its values (Kutulakos and Seitz 2000; Laurentini 1994).

A point that some view sees through, or sees in front of the surface, is outside. A point that no view sees as empty is
inside, whatever the density says there: the insides of fitted Gaussians are hollow, and their walls have small holes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.carve_torch import contour_distance, count_before, votes_smallest
from dg.core.density import Grid
from dg.core.slabs import batched, compiled, in_slabs
from dg.types import Cameras


def silhouette_distance(alpha: Float[Tensor, "V H W"], level: float = 0.5) -> Float[Tensor, "V H W"]:
    """Signed distance in pixels to the contour {alpha = level}, positive inside; +-inf in views that have no contour.

    The contour is found to a quarter of a pixel (alpha is enlarged bilinearly, two times, before the exact transform).
    """
    if batched(alpha.device):
        return contour_distance(alpha.detach().float(), level)
    pictures = alpha.detach().float().cpu()
    out = torch.empty_like(pictures)

    def measure(v: int) -> None:
        a = pictures[v]
        fine = torch.nn.functional.interpolate(a[None, None], scale_factor=2, mode="bilinear")[0, 0].numpy()
        inside = fine >= level
        if inside.all() or not inside.any():
            out[v] = np.inf if inside.all() else -np.inf
            return
        # Distances run between centres of pixels; the contour is half way between an inner and an outer one.
        inner, outer = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 0) for m in (inside, ~inside))
        signed = np.where(inside, inner - 0.5, 0.5 - outer)
        out[v] = torch.from_numpy(signed.reshape(*a.shape[:1], 2, a.shape[1], 2).mean((1, 3)) / 2)

    with ThreadPoolExecutor(max(torch.get_num_threads(), 1)) as pool:
        list(pool.map(measure, range(len(pictures))))
    return out


def hull_distance(
    grid: Grid, alpha: Float[Tensor, "V H W"], cameras: Cameras, *, level: float = 0.5, votes: int = 1
) -> Float[Tensor, "R R R"]:
    """Distance from the visual hull's surface in world units, positive inside (an upper bound of the true one).

    It is the smallest over the views of the silhouettes' distances, scaled to the point's depth (beyond four lattice
    spacings outside it may be any such number). Views in which a point lies outside the picture say nothing about it.

    Args:
        votes: so many views must agree that a point is outside: the votes-th smallest distance counts. 1 is the visual
            hull proper, which every error of one contour cuts into.
    """
    pictures = silhouette_distance(alpha, level)
    if batched(grid.values.device):
        return votes_smallest(grid, pictures, cameras, votes).clamp_max(1e3)
    pictures = pictures.cpu().numpy()
    values = np.full(tuple(grid.values.shape), np.inf, np.float32)
    in_slabs(
        _carve, len(values), *lattice_arrays(grid), *view_arrays(cameras), pictures, votes, 4 * grid.spacing, values
    )
    return torch.from_numpy(np.minimum(values, 1e3))


def seen_empty(
    grid: Grid,
    depth: Float[Tensor, "V H W"],
    alpha: Float[Tensor, "V H W"],
    cameras: Cameras,
    margin: float,
    level: float = 0.5,
) -> Int[Tensor, "R R R"]:
    """In how many views each point is seen as empty: `margin` (world units) before the surface, or with nothing there.

    Args:
        depth: view depth of the surface (already divided by alpha); ignored where alpha < level.
    """
    surface = torch.where(alpha >= level, depth, torch.full_like(depth, np.inf)).detach().float()
    if batched(grid.values.device):
        return count_before(grid, surface, cameras, margin)
    surface = surface.cpu().numpy()
    counts = np.zeros(tuple(grid.values.shape), np.int16)
    in_slabs(_count, len(counts), *lattice_arrays(grid), *view_arrays(cameras), surface, margin, counts)
    return torch.from_numpy(counts)


def solid_field(
    grid: Grid,
    level: float,
    hull: Float[Tensor, "R R R"],
    empty: Int[Tensor, "R R R"],
    *,
    votes: int = 1,
) -> Float[Tensor, "R R R"]:
    """A field that is positive inside: where the density exceeds `level` or fewer than `votes` views see the point as
    empty, and within the hull.

    In world units, roughly: log(density / level), which is steep in the tails of Gaussians, counts one lattice spacing
    per e-fold, up to three.
    """
    tail = grid.spacing * (grid.values / level).clamp_min(1e-12).log().clamp(-3, 3)
    hidden = (empty < votes).to(tail.device) & (tail < 0)
    return torch.minimum(torch.where(hidden, torch.full_like(tail, grid.spacing), tail), hull.to(tail))


def lattice_arrays(grid: Grid) -> tuple[np.ndarray, float]:
    return grid.origin.double().cpu().numpy(), float(grid.spacing)


def view_arrays(cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    return cameras.w2c.detach().cpu().double().numpy(), cameras.K.detach().cpu().double().numpy()


@compiled
def _carve(first, last, origin, spacing, w2c, K, pictures, votes, reach, values):
    views, height, width = pictures.shape
    for i in range(first, last):
        x = origin[0] + spacing * i
        least = np.empty(votes, np.float32)
        for j in range(values.shape[1]):
            y = origin[1] + spacing * j
            for k in range(values.shape[2]):
                z = origin[2] + spacing * k
                least[:] = np.inf
                for v in range(views):
                    depth = w2c[v, 2, 0] * x + w2c[v, 2, 1] * y + w2c[v, 2, 2] * z + w2c[v, 2, 3]
                    if depth <= 1e-6:
                        continue
                    px = (w2c[v, 0, 0] * x + w2c[v, 0, 1] * y + w2c[v, 0, 2] * z + w2c[v, 0, 3]) / depth
                    py = (w2c[v, 1, 0] * x + w2c[v, 1, 1] * y + w2c[v, 1, 2] * z + w2c[v, 1, 3]) / depth
                    u, w = K[v, 0, 0] * px + K[v, 0, 2] - 0.5, K[v, 1, 1] * py + K[v, 1, 2] - 0.5
                    if u < 0 or w < 0 or u > width - 1 or w > height - 1:
                        continue
                    c, r = min(int(u), width - 2), min(int(w), height - 2)
                    fu, fw = u - c, w - r
                    upper = pictures[v, r, c] * (1 - fu) + pictures[v, r, c + 1] * fu
                    lower = pictures[v, r + 1, c] * (1 - fu) + pictures[v, r + 1, c + 1] * fu
                    distance = np.float32((upper * (1 - fw) + lower * fw) * depth / K[v, 0, 0])
                    for n in range(votes):  # keeps the `votes` smallest, ascending
                        if distance < least[n]:
                            distance, least[n] = least[n], distance
                    if least[votes - 1] < -reach:
                        break
                values[i, j, k] = least[votes - 1]


@compiled
def _count(first, last, origin, spacing, w2c, K, surface, margin, counts):
    views, height, width = surface.shape
    for i in range(first, last):
        x = origin[0] + spacing * i
        for j in range(counts.shape[1]):
            y = origin[1] + spacing * j
            for k in range(counts.shape[2]):
                z = origin[2] + spacing * k
                for v in range(views):
                    depth = w2c[v, 2, 0] * x + w2c[v, 2, 1] * y + w2c[v, 2, 2] * z + w2c[v, 2, 3]
                    if depth <= 1e-6:
                        continue
                    px = (w2c[v, 0, 0] * x + w2c[v, 0, 1] * y + w2c[v, 0, 2] * z + w2c[v, 0, 3]) / depth
                    py = (w2c[v, 1, 0] * x + w2c[v, 1, 1] * y + w2c[v, 1, 2] * z + w2c[v, 1, 3]) / depth
                    u, w = K[v, 0, 0] * px + K[v, 0, 2], K[v, 1, 1] * py + K[v, 1, 2]
                    if u < 0 or w < 0 or u >= width or w >= height:
                        continue
                    counts[i, j, k] += depth < surface[v, int(w), int(u)] - margin
