"""`dg.core.backproject`'s look at one view on an accelerator: all texels at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dg.types import Cameras


def eroded(inside: Bool[Tensor, "H W"], steps: int) -> Bool[Tensor, "H W"]:
    """Without what lies within `steps` 4-connected steps of what is outside; beyond the picture nothing is outside."""
    out = ~inside
    for _ in range(steps):
        grown = F.pad(out, (1, 1, 1, 1))
        out = out | grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    return ~out


def look(
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    camera: Cameras,
    rgb: Float[Tensor, "H W 3"],
    depth: Float[Tensor, "H W"],
    alpha: Float[Tensor, "H W"],
    opaque: Bool[Tensor, "H W"],
    sharpness: float,
    min_viewcos: float,
    slack: float,
    priority: Float[Tensor, ""],
    good: Float[Tensor, "n 4"],
    spare: Float[Tensor, "n 4"],
) -> None:
    """The compiled kernel's rules; adds to `good` and `spare` in place. `points` and `normals` in double precision."""
    height, width = depth.shape
    w2c, K, eye = camera.w2c[0].double(), camera.K[0].double(), camera.position[0].double()
    ray = eye - points
    cos = (ray * normals).sum(1) / ray.square().sum(1).sqrt()
    x, y, d = (points @ w2c[:3, :3].T + w2c[:3, 3]).unbind(1)
    safe = d.clamp_min(1e-6)
    u, v = K[0, 0] * x / safe + K[0, 2] - 0.5, K[1, 1] * y / safe + K[1, 2] - 0.5
    seen = (cos > 0.02) & (d > 1e-6) & (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
    u, v = torch.where(seen, u, 0.0), torch.where(seen, v, 0.0)
    surface = depth.reshape(-1)[(v + 0.5).long() * width + (u + 0.5).long()].double()
    reach = slack + safe / K[0, 0] * (1 - cos.square().clamp_max(1)).sqrt() / cos.clamp_min(0.02)
    seen &= (surface > 0) & (d <= surface + reach)
    c, r = u.long().clamp_max(width - 2), v.long().clamp_max(height - 2)
    fu, fv = u - c, v - r
    corner = r * width + c
    colour, opacity, solid = torch.zeros_like(points), torch.zeros_like(u), torch.ones_like(seen)
    for step, weight in ((0, (1 - fu) * (1 - fv)), (1, fu * (1 - fv)), (width, (1 - fu) * fv), (width + 1, fu * fv)):
        at = corner + step
        part = weight * alpha.reshape(-1)[at].double()
        colour += part[:, None] * rgb.reshape(-1, 3)[at].double()
        opacity += part
        solid &= opaque.reshape(-1)[at]
    seen &= opacity > 1e-3
    weight = torch.where(seen, priority.double() * cos.clamp_min(0.02) ** sharpness, 0.0)
    values = torch.cat([weight[:, None] * colour / opacity.clamp_min(1e-3)[:, None], weight[:, None]], 1).float()
    certain = ((cos >= min_viewcos) & solid)[:, None]
    good += torch.where(certain, values, 0.0)
    spare += torch.where(certain, 0.0, values)
