"""The iso-level at which a density field's silhouettes agree best with pictures' alpha.

A pixel is inside the silhouette of {density > level} exactly where the density's maximum along its ray exceeds the
level. So one march through the field per view gives the silhouettes of all levels at once; none has to be meshed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.density import Grid
from dg.core.slabs import batched, compiled, in_slabs
from dg.types import Cameras

_STEPS_AT_ONCE = 128  # of some 25,000 rays: 80 MB a temporary


@dataclass(frozen=True)
class LevelChoice:
    level: float
    iou: float  # soft silhouette IoU at that level, over all views together
    levels: Float[Tensor, " L"]  # the candidates, ascending
    ious: Float[Tensor, " L"]


def max_along_rays(grid: Grid, cameras: Cameras, step: float = 0.5) -> Float[Tensor, "V H W"]:
    """Maximum of the trilinear field along each pixel's ray (0 where the ray misses the lattice).

    Args:
        step: in lattice spacings. The maximum is underestimated by what a parabola falls within half a step.
    """
    if batched(grid.values.device):
        return _march_all(grid, cameras.to(grid.values.device), step)
    c2w, K = cameras.c2w.detach().cpu().double(), cameras.K.detach().cpu().double()
    out = np.zeros((len(cameras), cameras.height, cameras.width), np.float32)
    in_slabs(
        _march,
        len(cameras) * cameras.height,
        grid.values.detach().cpu().float().contiguous().numpy(),
        grid.origin.double().numpy(),
        float(grid.spacing),
        c2w.numpy(),
        K.numpy(),
        step,
        out,
    )
    return torch.from_numpy(out)


def choose_level(
    peak_along_rays: Float[Tensor, "V H W"],
    alpha: Float[Tensor, "V H W"],
    lo: float = 0.02,
    hi: float | None = None,
    candidates: int = 256,
) -> LevelChoice:
    """The level with the largest soft IoU, sum min(s, alpha) / sum max(s, alpha) with s = [peak > level].

    Args:
        lo, hi: range of the candidates, which are spaced evenly in the logarithm; `hi` defaults to the field's peak. If
            the whole field lies below `lo`, the range is moved down to end at its peak.

    Raises:
        ValueError: with the density's quantiles, if the field or the pictures are empty.
    """
    m = peak_along_rays.detach().flatten().double()
    a = alpha.detach().flatten().to(m).clamp(0, 1)
    peak = float(m.max()) if len(m) else 0.0
    if not (math.isfinite(peak) and peak > 0 and float(a.max()) >= 0.5):
        opaque = float(a.max()) if len(a) else 0.0
        raise ValueError(
            f"no surface to choose a level for: the largest alpha is {opaque:.3g}; of the density's maxima along the "
            f"rays {_distribution(m)}. The Gaussians are empty or transparent."
        )
    hi = peak if hi is None else min(hi, peak)
    lo = lo if lo < hi else hi / 100
    levels = torch.logspace(math.log10(lo), math.log10(hi), candidates + 1, dtype=torch.float64)[:-1].to(m.device)
    # With s in {0, 1}: intersection = sum of alpha where s = 1; union = number of such pixels + alpha elsewhere.
    order = m.argsort()
    below = torch.searchsorted(m[order], levels, right=True)  # pixels with peak <= level
    outside_alpha = torch.cat([a.new_zeros(1), a[order].cumsum(0)])[below]
    total = a.sum()
    ious = (total - outside_alpha) / (len(m) - below + outside_alpha)
    best = int(ious.argmax())
    return LevelChoice(float(levels[best]), float(ious[best]), levels.float().cpu(), ious.float().cpu())


def _distribution(m: Tensor) -> str:
    if not len(m):
        return "there are none"
    marks = (0.5, 0.9, 0.99, 0.999, 1.0)
    return ", ".join(f"{100 * q:g} % are <= {float(np.quantile(m.cpu().numpy(), q)):.3g}" for q in marks)


def _march_all(grid: Grid, cameras: Cameras, step: float) -> Float[Tensor, "V H W"]:
    """`_march` for all rays at once, on the grid's device; a few steps of all rays of a view at a time."""
    sides = torch.tensor(grid.values.shape, device=grid.values.device, dtype=torch.float64) - 1
    c2w, K = cameras.c2w.double(), cameras.K.double()
    y, x = torch.meshgrid(
        *(torch.arange(n, device=c2w.device).double() + 0.5 for n in (cameras.height, cameras.width)), indexing="ij"
    )
    volume = grid.values.float()[None, None]
    out = []
    for v in range(len(cameras)):
        eye = (c2w[v, :3, 3] - grid.origin.double()) / grid.spacing
        cx, cy = (x - K[v, 0, 2]) / K[v, 0, 0], (y - K[v, 1, 2]) / K[v, 1, 1]
        d = torch.stack([cx, cy, torch.ones_like(cx)], -1).reshape(-1, 3) @ c2w[v, :3, :3].T
        d = d / d.norm(dim=1, keepdim=True)
        near, far = _within(eye, d, sides)
        best = torch.zeros(len(d), device=d.device)
        rays = (far >= near).nonzero()[:, 0]
        steps = int(((far - near)[rays].amax() / step).floor()) + 1 if len(rays) else 0
        for first in range(0, steps, _STEPS_AT_ONCE):
            t = near[rays, None] + step * torch.arange(first, min(first + _STEPS_AT_ONCE, steps), device=d.device)
            place = 2 * (eye + t[..., None] * d[rays, None]) / sides - 1  # [n m 3], in [-1, 1] over the lattice
            met = torch.nn.functional.grid_sample(
                volume, place.flip(-1)[None, None].float(), padding_mode="border", align_corners=True
            )[0, 0, 0]
            best[rays] = torch.maximum(best[rays], torch.where(t <= far[rays, None], met, 0.0).amax(1))
        out.append(best.view(cameras.height, cameras.width))
    return torch.stack(out)


def _within(
    eye: Float[Tensor, " 3"], d: Float[Tensor, "n 3"], sides: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Where rays enter and leave the box [0, sides]; leaving lies before entering if they miss it."""
    along = d.abs() < 1e-12
    safe = torch.where(along, torch.ones_like(d), d)
    t0, t1 = -eye / safe, (sides - eye) / safe
    beside = (eye < 0) | (eye > sides)
    near = torch.where(along, 0.0, torch.minimum(t0, t1)).amax(1).clamp_min(0)
    far = torch.where(along, torch.where(beside, -1.0, 1e30), torch.maximum(t0, t1)).amin(1)
    return near, far


@compiled
def _march(first, last, values, origin, spacing, c2w, K, step, out):
    height, width = out.shape[1:]
    sides = np.array(values.shape) - 1
    for row in range(first, last):
        v, y = row // height, row % height
        eye = (c2w[v, :3, 3] - origin) / spacing
        for x in range(width):
            cx, cy = (x + 0.5 - K[v, 0, 2]) / K[v, 0, 0], (y + 0.5 - K[v, 1, 2]) / K[v, 1, 1]
            d = c2w[v, :3, 0] * cx + c2w[v, :3, 1] * cy + c2w[v, :3, 2]
            d = d / np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
            near, far = 0.0, 1e30
            for axis in range(3):
                if abs(d[axis]) < 1e-12:
                    if eye[axis] < 0 or eye[axis] > sides[axis]:
                        far = -1.0
                    continue
                t0, t1 = -eye[axis] / d[axis], (sides[axis] - eye[axis]) / d[axis]
                near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
            best = 0.0
            t = near
            while t <= far:
                px, py, pz = eye[0] + t * d[0], eye[1] + t * d[1], eye[2] + t * d[2]
                i = min(max(int(px), 0), sides[0] - 1)
                j = min(max(int(py), 0), sides[1] - 1)
                k = min(max(int(pz), 0), sides[2] - 1)
                fx, fy, fz = px - i, py - j, pz - k
                lower = (values[i, j, k] * (1 - fz) + values[i, j, k + 1] * fz) * (1 - fy) + (
                    values[i, j + 1, k] * (1 - fz) + values[i, j + 1, k + 1] * fz
                ) * fy
                upper = (values[i + 1, j, k] * (1 - fz) + values[i + 1, j, k + 1] * fz) * (1 - fy) + (
                    values[i + 1, j + 1, k] * (1 - fz) + values[i + 1, j + 1, k + 1] * fz
                ) * fy
                best = max(best, lower * (1 - fx) + upper * fx)
                t += step
            out[v, y, x] = best
