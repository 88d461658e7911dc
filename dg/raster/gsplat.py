"""Gaussians to pixels on an NVIDIA GPU, through gsplat (Ye et al. 2024); equals `dg.raster.dense` up to float32.

gsplat compiles its kernels at the first use, once per installation (minutes; it needs nvcc), unless its wheel has them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dg.core.splat import BLUR_PX2, NEAR_SPLAT, colors, project, radii_px
from dg.types import Cameras, Gaussians, Render

INSTALL = "pip install 'gsplat>=1.5.3'"


class GsplatRasterizer:
    """Renders V views. Inputs and outputs live on the GPU; results are float32.

    Colours are computed here, so that they mean what they mean elsewhere. Differentiable in everything but the
    intrinsics.

    Raises:
        ImportError: gsplat is not installed; the message has the command.
        RuntimeError: there is no CUDA device, or gsplat came without kernels and found no compiler for them.
        ValueError: tensors that are not on a GPU; intrinsics that want a gradient.
    """

    device_type = "cuda"

    def __init__(self) -> None:
        try:
            import gsplat
        except ImportError as error:
            raise ImportError(f"raster=gsplat needs gsplat: {INSTALL}\nor use raster=dense.") from error
        if not torch.cuda.is_available():
            raise RuntimeError("raster=gsplat needs a CUDA device; use raster=numba_cpu.")
        from gsplat.cuda._backend import _C

        if _C is None:
            raise RuntimeError("gsplat has no kernels here and no nvcc to compile them with; use raster=dense.")
        self._rasterization: Any = gsplat.rasterization

    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        background: Float[Tensor, "3"] | Float[Tensor, "V 3"],
        *,
        absgrad: bool = False,
    ) -> Render:
        _check(gaussians, cameras, self.device_type)
        gaussians = Gaussians(*(x.float() for x in vars(gaussians).values()))
        behind = background.to(gaussians.means).expand(len(cameras), 3).contiguous()
        if len(gaussians) == 0:
            return _empty(gaussians, cameras, behind)
        rgb = colors(gaussians, cameras)
        image, alpha, info = self._rasterization(
            gaussians.means.contiguous(),
            gaussians.quats.contiguous(),
            gaussians.scales.contiguous(),
            gaussians.opacities.contiguous(),
            (rgb[0] if len(rgb) == 1 else rgb).contiguous(),
            cameras.w2c.to(gaussians.means).contiguous(),
            cameras.K.to(gaussians.means).contiguous(),
            cameras.width,
            cameras.height,
            near_plane=NEAR_SPLAT,
            eps2d=BLUR_PX2,
            packed=False,
            backgrounds=behind,
            render_mode="RGB+D",
            absgrad=absgrad,
        )
        means_px = info["means2d"]
        if means_px.requires_grad:
            means_px.retain_grad()
        radii = _settle(means_px, (info["radii"] > 0).all(-1), gaussians, cameras)
        return Render(rgb=image[..., :3], alpha=alpha, depth=image[..., 3:], means_px=means_px, radii_px=radii)


@torch.no_grad()
def _settle(
    means_px: Float[Tensor, "V N 2"], drawn: Bool[Tensor, "V N"], gaussians: Gaussians, cameras: Cameras
) -> Float[Tensor, "V N"]:
    """Writes the true position where gsplat drew nothing, and returns the footprints' largest half-axes.

    gsplat leaves the positions of Gaussians that it does not draw as it found the memory, and rounds radii up to whole
    pixels. Its backward pass reads neither, so the memory may be written behind autograd's back.
    """
    projected = project(gaussians, cameras)
    means_px.data.copy_(torch.where(drawn[..., None], means_px, projected.means_px))
    return radii_px(projected, gaussians.opacities, cameras.width, cameras.height)


def _empty(gaussians: Gaussians, cameras: Cameras, background: Float[Tensor, "V 3"]) -> Render:
    shape = (len(cameras), cameras.height, cameras.width)
    rgb = background[:, None, None].expand(*shape, 3).clone()
    nothing = background.new_zeros(*shape, 1)
    means_px = project(gaussians, cameras).means_px
    if means_px.requires_grad:
        means_px.retain_grad()
    return Render(rgb, nothing, nothing.clone(), means_px, background.new_zeros(len(cameras), 0))


def _check(gaussians: Gaussians, cameras: Cameras, device_type: str) -> None:
    tensors = dict(vars(gaussians)) | {"cameras.c2w": cameras.c2w, "cameras.K": cameras.K}
    for name, tensor in tensors.items():
        if tensor.device.type != device_type:
            raise ValueError(f"gsplat needs tensors on a GPU, but {name} is on {tensor.device}")
    if cameras.K.requires_grad:
        raise ValueError("gsplat has no gradient for the cameras' intrinsics; dg.raster.dense has")
