"""Normals that turn slowly, seen from the novel view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.depth_normals import normals_from_depth, surface_depth
from dg.losses.weighted import NovelViewLoss
from dg.types import Cameras, Render


@dataclass(frozen=True)
class NormalSmoothness(NovelViewLoss):
    """Mean over pixels of |n - blur(n)|^2, without gradient through the blurred normals.

    Source: RealFusion (arXiv 2302.10663). The normals come from the rendered depth; the blur is Gaussian and averages
    what there is of the object below its window, so that the outline is no edge.

    Attributes:
        kernel: side of the blur's window in pixels, odd; its deviation is a sixth of that.
        min_alpha: pixels that are more transparent have no normal.
    """

    kernel: int = 9
    min_alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} must be an odd number of pixels, at least 3")

    def __call__(self, render: Render, cameras: Cameras) -> Tensor:
        normals, known = normals_from_depth(*surface_depth(render.depth, render.alpha, self.min_alpha), cameras)
        weight = known.to(normals)
        with torch.no_grad():
            target = blurred(normals, self.kernel) / blurred(weight, self.kernel).clamp_min(1e-6)
        return ((normals - target).square() * weight).sum() / weight.sum().clamp_min(1)


def blurred(picture: Float[Tensor, "V H W C"], kernel: int) -> Float[Tensor, "V H W C"]:
    """Gaussian blur with a window of `kernel` pixels and a deviation of kernel / 6; zeros lie beyond the border."""
    x = torch.arange(kernel, device=picture.device, dtype=picture.dtype) - kernel // 2
    window = torch.exp(-0.5 * (x * 6 / kernel).square())
    window = window / window.sum()
    channels = picture.shape[-1]
    out = picture.permute(0, 3, 1, 2)
    for shape, pad in (((1, kernel), (0, kernel // 2)), ((kernel, 1), (kernel // 2, 0))):
        out = F.conv2d(out, window.reshape(1, 1, *shape).expand(channels, -1, -1, -1), padding=pad, groups=channels)
    return out.permute(0, 2, 3, 1)
