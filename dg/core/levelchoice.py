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
from dg.core.slabs import compiled, in_slabs
from dg.types import Cameras


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
    m, a = peak_along_rays.detach().flatten().double().cpu(), alpha.detach().flatten().double().cpu().clamp(0, 1)
    peak = float(m.max()) if len(m) else 0.0
    if not (math.isfinite(peak) and peak > 0 and float(a.max()) >= 0.5):
        opaque = float(a.max()) if len(a) else 0.0
        raise ValueError(
            f"no surface to choose a level for: the largest alpha is {opaque:.3g}; of the density's maxima along the "
            f"rays {_distribution(m)}. The Gaussians are empty or transparent."
        )
    hi = peak if hi is None else min(hi, peak)
    lo = lo if lo < hi else hi / 100
    levels = torch.logspace(math.log10(lo), math.log10(hi), candidates + 1, dtype=torch.float64)[:-1]
    # With s in {0, 1}: intersection = sum of alpha where s = 1; union = number of such pixels + alpha elsewhere.
    order = m.argsort()
    below = torch.searchsorted(m[order], levels, right=True)  # pixels with peak <= level
    outside_alpha = torch.cat([a.new_zeros(1), a[order].cumsum(0)])[below]
    total = a.sum()
    ious = (total - outside_alpha) / (len(m) - below + outside_alpha)
    best = int(ious.argmax())
    return LevelChoice(float(levels[best]), float(ious[best]), levels.float(), ious.float())


def _distribution(m: Tensor) -> str:
    if not len(m):
        return "there are none"
    marks = (0.5, 0.9, 0.99, 0.999, 1.0)
    return ", ".join(f"{100 * q:g} % are <= {float(np.quantile(m.numpy(), q)):.3g}" for q in marks)


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
