"""The fused distance in torch, one view after the other over all points: the definition, and the path for GPUs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import project
from dg.core.carve_torch import bilinear
from dg.types import Cameras


def fused(
    points: Float[Tensor, "P 3"],
    surface: Float[Tensor, "V H W"],
    weight: Float[Tensor, "V H W"],
    outside_px: Float[Tensor, "V H W"],
    cameras: Cameras,
    truncation: float,
    votes: int,
) -> Float[Tensor, " P"]:
    """What `dg.core.tsdf.fuse` has at `points`; its arguments are `dg.core.tsdf.Evidence`'s."""
    height, width = surface.shape[1:]
    total, count, told, looked = (torch.zeros_like(points[:, 0]) for _ in range(4))
    for v in range(len(cameras)):
        xy, z = (x[0] for x in project(points, cameras[[v]]))
        at = xy - 0.5  # in units of pixels, counted from the first one's centre
        limit = torch.tensor([width - 1.0, height - 1.0], device=points.device)
        seen = (z > 1e-6) & (at >= 0).all(-1) & (at <= limit).all(-1)
        at = torch.where(seen[:, None], at, 0)
        depth, confidence, beyond = (bilinear(x[v], *at.unbind(-1)) for x in (surface, weight, outside_px))
        nearest = (at + 0.5).long()
        own = surface[v][nearest[:, 1], nearest[:, 0]]
        mixed = ~depth.isfinite()  # some corner is background or says nothing: the nearest pixel decides
        depth = torch.where(mixed, own, depth)
        confidence = torch.where(mixed, weight[v][nearest[:, 1], nearest[:, 0]], confidence)
        empty = own.isposinf()
        distance = torch.where(empty, beyond.clamp_min(0) * z / cameras.K[v, 0, 0], depth - z)
        confidence = torch.where(empty, 1.0, confidence)
        use = seen & ~distance.isnan() & (distance >= -truncation) & (confidence > 0)
        total += torch.where(use, confidence * (distance / truncation).clamp(-1, 1), 0)
        count += torch.where(use, confidence, 0)
        told += use
        looked += seen
    silent = torch.where(2 * looked > len(cameras), 1.0, -1.0)
    return torch.where(told >= votes, -total / count.clamp_min(1e-9), silent)
