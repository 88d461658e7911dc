"""The rasteriser for CPUs: compiled loops on all threads, equal to `dg.raster.dense` in values and gradients.

The same bits in every run and for any number of threads.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.splat import colors
from dg.raster._numba_composite import Composite
from dg.raster._numba_project import Project
from dg.types import Cameras, Gaussians, Render


class NumbaRasterizer:
    """Renders V views; projection in float64, compositing in float32. Results are float32.

    Differentiable in everything but the cameras. Compiles at the first use (some 10 s, then cached on disk).

    Raises:
        ValueError: for tensors that are not on the CPU, not finite, or not shaped as `Gaussians` says; for opacities
            outside [0, 1]; for cameras that want a gradient.
    """

    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        background: Float[Tensor, "3"] | Float[Tensor, "V 3"],
        *,
        absgrad: bool = False,
    ) -> Render:
        background = torch.as_tensor(background)
        _check(gaussians, cameras, background)
        gaussians = Gaussians(
            *(t.float().contiguous() for t in (gaussians.means, gaussians.quats, gaussians.scales)),
            gaussians.opacities.float().contiguous(),
            gaussians.sh.float(),
        )
        means_px, conics, depths, radii_px = Project.apply(
            gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, cameras
        )
        if means_px.requires_grad:
            means_px.retain_grad()
        absolute = None
        if absgrad:
            absolute = means_px.absgrad = torch.zeros_like(means_px)
        rgb, alpha, depth = Composite.apply(
            means_px,
            conics,
            depths,
            radii_px,
            gaussians.opacities,
            colors(gaussians, cameras).contiguous(),
            background.float().expand(len(cameras), 3).contiguous(),
            cameras.width,
            cameras.height,
            absolute,
        )
        return Render(rgb, alpha, depth, means_px, radii_px)


def _check(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> None:
    n = len(gaussians.means)
    shapes = {"means": (n, 3), "quats": (n, 4), "scales": (n, 3), "opacities": (n,)}
    tensors = {name: getattr(gaussians, name) for name in (*shapes, "sh")}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, expected {shape}")
    if tensors["sh"].dim() != 3 or len(tensors["sh"]) != n or tensors["sh"].shape[2] != 3:
        raise ValueError(f"sh has shape {tuple(tensors['sh'].shape)}, expected ({n}, K, 3)")
    if background.shape not in ((3,), (len(cameras), 3)):
        raise ValueError(f"background has shape {tuple(background.shape)}, expected (3,) or ({len(cameras)}, 3)")
    if cameras.c2w.requires_grad or cameras.K.requires_grad:
        raise ValueError("numba_cpu has no gradient for cameras; dg.raster.dense has")
    tensors |= {"background": background, "cameras.c2w": cameras.c2w, "cameras.K": cameras.K}
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            raise ValueError(f"numba_cpu needs tensors on the CPU, but {name} is on {tensor.device}")
        if not tensor.detach().isfinite().all():
            raise ValueError(f"{name} has {int((~tensor.detach().isfinite()).sum())} values that are not finite")
    if n and not 0 <= float(gaussians.opacities.detach().min()) <= float(gaussians.opacities.detach().max()) <= 1:
        raise ValueError("opacities must be in [0, 1]")
