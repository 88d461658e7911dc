"""Gaussians to pixels on an NVIDIA GPU, through gsplat (Ye et al. 2024); equals `dg.raster.dense` up to float32.

gsplat compiles its kernels at the first use, once per installation (minutes; it needs nvcc), unless its wheel has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.splat import BLUR_PX2, NEAR_SPLAT, Projected, colors, image_positions, project, radii_px
from dg.raster.together import View
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
        (render,) = self.together(gaussians, [View(cameras, background, absgrad)])
        return render

    def together(self, gaussians: Gaussians, views: Sequence[View]) -> list[Render]:
        """Renders each of `views` as by itself, in one call of gsplat, which waits for the GPU once a call.

        Smaller pictures are drawn in the corner of a canvas of the largest one's size and cut out. What lies farther
        than 1.3 times outside a smaller picture's frustum is therefore not flattened as it would be (`FOV_MARGIN`);
        such Gaussians are not seen in it, or at its edge.
        """
        for view in views:
            _check(gaussians, view.cameras, self.device_type)
        gaussians = Gaussians(*(x.float() for x in vars(gaussians).values()))
        behind = [v.background.to(gaussians.means).expand(len(v.cameras), 3) for v in views]
        if len(gaussians) == 0:
            return [_empty(gaussians, v.cameras, colour) for v, colour in zip(views, behind, strict=True)]
        canvas = _canvas([v.cameras for v in views])
        rgb = colors(gaussians, canvas)
        image, alpha, info = self._rasterization(
            gaussians.means.contiguous(),
            gaussians.quats.contiguous(),
            gaussians.scales.contiguous(),
            gaussians.opacities.contiguous(),
            (rgb[0] if len(rgb) == 1 else rgb).contiguous(),
            canvas.w2c.to(gaussians.means).contiguous(),
            canvas.K.to(gaussians.means).contiguous(),
            canvas.width,
            canvas.height,
            near_plane=NEAR_SPLAT,
            eps2d=BLUR_PX2,
            packed=False,
            backgrounds=torch.cat(behind).contiguous(),
            render_mode="RGB+D",
            absgrad=any(v.absgrad for v in views),
        )
        means_px = info["means2d"]
        if means_px.requires_grad:
            means_px.retain_grad()
        settling = _Settling(means_px, info, gaussians, canvas)
        renders, first = [], 0
        for view in views:
            rows, size = slice(first, first + len(view.cameras)), (view.cameras.width, view.cameras.height)
            pictures = image[rows, : size[1], : size[0], :3], alpha[rows, : size[1], : size[0]]
            depth = image[rows, : size[1], : size[0], 3:]
            positions = means_px if len(views) == 1 else _share(means_px, rows)
            renders.append(_LateRender(*pictures, depth, positions, settling, rows, size))
            first = rows.stop
        return renders


def _canvas(cameras: Sequence[Cameras]) -> Cameras:
    """All views on pictures of one size; the pixels of each are where they were."""
    if len(cameras) == 1:
        return cameras[0]
    width, height = max(c.width for c in cameras), max(c.height for c in cameras)
    return Cameras(torch.cat([c.c2w for c in cameras]), torch.cat([c.K for c in cameras]), width, height)


def _share(means_px: Float[Tensor, "V N 2"], rows: slice) -> Float[Tensor, "v N 2"]:
    """Some views' positions, with `.grad` (and `.absgrad`) after the backward pass, as the whole has them."""
    share = means_px[rows]
    if means_px.requires_grad:

        def hand_on(grad: Tensor) -> None:
            share.grad = grad[rows]
            if hasattr(means_px, "absgrad"):
                share.absgrad = means_px.absgrad[rows]  # type: ignore[attr-defined]

        means_px.register_hook(hand_on)
    return share


class _Settling:
    """Positions and covariances of what gsplat projected, put right when somebody asks.

    Nothing that the pictures need; so what a network does with the pictures is launched first, and these sixty launches
    while it works.
    """

    def __init__(
        self, means_px: Float[Tensor, "V N 2"], info: dict[str, Tensor], gaussians: Gaussians, cameras: Cameras
    ) -> None:
        self.means_px, self.info, self.gaussians, self.cameras = means_px, info, gaussians, cameras
        self._version = _version(gaussians.means)

    @cached_property
    @torch.no_grad()
    def projected(self) -> Projected:
        """What gsplat computed on the way to the pixels; writes the true position where it drew nothing.

        gsplat leaves what belongs to Gaussians that it does not draw as it found the memory, and rounds radii up to
        whole pixels. Its backward pass reads neither, so the memory may be written behind autograd's back. There the
        covariance is 0 and so is the radius. Inverting gsplat's conics spares a second projection: 60 launches.
        """
        if _version(self.gaussians.means) != self._version:
            raise RuntimeError(
                "a render's positions and radii are asked for after its Gaussians have moved; ask before"
            )
        drawn = (self.info["radii"] > 0).all(-1)
        positions, depths = image_positions(self.gaussians.means, self.cameras)
        self.means_px.data.copy_(torch.where(drawn[..., None], self.means_px, positions))
        conics = torch.where(drawn[..., None], self.info["conics"], 1.0)
        xx, xy, yy = conics.unbind(-1)
        covs = torch.stack([yy, -xy, xx], -1) / (xx * yy - xy * xy)[..., None]
        return Projected(self.means_px.detach(), torch.where(drawn[..., None], covs, 0.0), conics, depths)


def _version(tensor: Tensor) -> int:
    """Grows with every change in place; tensors of inference mode do not count theirs."""
    return 0 if tensor.is_inference() else tensor._version


class _LateRender(Render):
    """Computes `radii_px`, and what is not drawn of `means_px`, when asked: before the Gaussians are changed."""

    def __init__(
        self,
        rgb: Tensor,
        alpha: Tensor,
        depth: Tensor,
        positions: Float[Tensor, "V N 2"],
        settling: _Settling,
        rows: slice,
        size: tuple[int, int],
    ) -> None:
        self.__dict__.update(
            rgb=rgb, alpha=alpha, depth=depth, _positions=positions, _settling=settling, _rows=rows, _size=size
        )

    @cached_property
    def means_px(self) -> Float[Tensor, "V N 2"]:  # type: ignore[override]
        _ = self._settling.projected  # writes into the same memory
        return self._positions

    @cached_property
    def radii_px(self) -> Float[Tensor, "V N"]:  # type: ignore[override]
        seen = Projected(*(x[self._rows] for x in vars(self._settling.projected).values()))
        return radii_px(seen, self._settling.gaussians.opacities, *self._size)


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
