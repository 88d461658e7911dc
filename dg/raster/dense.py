"""The definition of the picture: every Gaussian against every pixel, in torch, differentiated by autograd.

Slow and obvious; float32 or float64, any device. The fast rasterisers are tested against it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dg.core.splat import ALPHA_MAX, ALPHA_MIN, NEAR_SPLAT, T_MIN, colors, project, radii_px
from dg.types import Cameras, Gaussians, Render


def composite(
    pixels: Float[Tensor, "P 2"],
    means_px: Float[Tensor, "N 2"],
    conics: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    features: Float[Tensor, "N C"],
    tell: Callable[[Float[Tensor, "N 2"]], object] | None = None,
) -> tuple[Float[Tensor, "P C"], Float[Tensor, "P 1"]]:
    """Front to back over Gaussians that are sorted by depth: (sum of weight * feature, final transmittance).

    In the backward pass `tell` gets the sum over these pixels of the absolute value of each one's gradient on means_px.
    """
    offset = pixels[:, None] - means_px
    if tell is not None and offset.requires_grad:
        offset.register_hook(lambda gradient: (tell(gradient.abs().sum(0)), None)[1])
    dx, dy = offset.unbind(-1)
    xx, xy, yy = conics.unbind(-1)
    alpha = (opacities * torch.exp(-0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy)).clamp_max(ALPHA_MAX)
    with torch.no_grad():
        counts = alpha >= ALPHA_MIN
        counts &= torch.where(counts, 1 - alpha, 1).cumprod(1) > T_MIN
    alpha = torch.where(counts, alpha, 0)
    after = (1 - alpha).cumprod(1)
    before = torch.cat([after.new_ones(len(pixels), 1), after], 1)
    return (alpha * before[:, :-1]) @ features, before[:, -1:]


class DenseRasterizer:
    """Renders V views pixel block by pixel block.

    Args:
        pairs_per_block: how many (pixel, Gaussian) pairs are held at a time. Blocks are computed again in the backward
            pass, so memory does not grow with the picture.
    """

    def __init__(self, pairs_per_block: int = 1 << 21) -> None:
        self.pairs_per_block = pairs_per_block

    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        background: Float[Tensor, "3"] | Float[Tensor, "V 3"],
        *,
        absgrad: bool = False,
    ) -> Render:
        means = gaussians.means
        projected = project(gaussians, cameras)
        if projected.means_px.requires_grad:
            projected.means_px.retain_grad()
        absolute = torch.zeros_like(projected.means_px)
        if absgrad:
            projected.means_px.absgrad = absolute
        rgb = colors(gaussians, cameras).expand(len(cameras), -1, -1)
        features = torch.cat([rgb, projected.depths[..., None]], -1)
        background = background.to(means).expand(len(cameras), 3)
        y, x = torch.meshgrid(
            torch.arange(cameras.height, device=means.device),
            torch.arange(cameras.width, device=means.device),
            indexing="ij",
        )
        pixels = torch.stack([x, y], -1).reshape(-1, 2).to(means.dtype) + 0.5

        views = []
        for v in range(len(cameras)):
            depths = projected.depths[v].detach()
            order = depths.argsort(stable=True)
            order = order[depths[order] > NEAR_SPLAT]
            sorted_ = (
                projected.means_px[v, order],
                projected.conics[v, order],
                gaussians.opacities[order],
                features[v, order],
            )
            tell = partial(absolute[v].index_add_, 0, order) if absgrad else None
            size = max(1, self.pairs_per_block // max(1, len(order)))
            blocks = [checkpoint(composite, block, *sorted_, tell, use_reentrant=False) for block in pixels.split(size)]
            total, t = (torch.cat(part) for part in zip(*blocks, strict=True))
            views.append(torch.cat([total[:, :3] + t * background[v], 1 - t, total[:, 3:]], 1))
        image = torch.stack(views).unflatten(1, (cameras.height, cameras.width))
        return Render(
            rgb=image[..., :3],
            alpha=image[..., 3:4],
            depth=image[..., 4:],
            means_px=projected.means_px,
            radii_px=radii_px(projected, gaussians.opacities, cameras.width, cameras.height),
        )
