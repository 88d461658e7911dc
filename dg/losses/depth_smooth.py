"""Surfaces without bumps, seen from the novel view."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dg.core.depth_normals import surface_depth
from dg.losses.weighted import NovelViewLoss
from dg.types import Cameras, Render


@dataclass(frozen=True)
class DepthSmoothness(NovelViewLoss):
    """Mean over neighbouring pixels of |slope of the depth| * exp(-edges * |difference of the colours|).

    Source: the edge-aware smoothness of Monodepth (arXiv 1609.03677), on novel views as in RegNeRF (arXiv 2112.00724).
    The slope is the depth's difference over a pixel's width there, d f / z, so that neither the picture's size nor the
    distance matters: 1 is a surface tilted by 45 degrees. The colours' difference is the mean over the channels; no
    gradient flows into them. Both pixels of a pair must be of the object; the gradient reaches their alphas too.

    Attributes:
        edges: how much a step in the colours excuses one in the depth; 0 for not at all.
        min_alpha: pixels that are more transparent do not count.
    """

    edges: float = 10.0
    min_alpha: float = 0.5

    def __call__(self, render: Render, cameras: Cameras) -> Tensor:
        depth, there = surface_depth(render.depth, render.alpha, self.min_alpha)
        rgb, total, count = render.rgb.detach(), 0.0, 0.0
        for axis, f in ((2, cameras.K[:, 0, 0]), (1, cameras.K[:, 1, 1])):
            n = depth.shape[axis] - 1
            a, b, both = depth.narrow(axis, 0, n), depth.narrow(axis, 1, n), there.narrow(axis, 0, n)
            both = both & there.narrow(axis, 1, n)
            mean = ((a + b) / 2).detach().clamp_min(1e-6)
            slope = (b - a).abs() * f.to(depth)[:, None, None, None] / mean
            step = (rgb.narrow(axis, 1, n) - rgb.narrow(axis, 0, n)).abs().mean(-1, keepdim=True)
            total = total + (slope * (-self.edges * step).exp() * both).sum()
            count = count + both.sum()
        return total / count.clamp_min(1)
