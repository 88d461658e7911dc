"""What a depth picture says about the surface: points and normals in view space (x right, y down, z ahead).

Everything is differentiable in the depth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dg.types import Cameras


def surface_depth(
    depth: Float[Tensor, "V H W 1"], alpha: Float[Tensor, "V H W 1"], min_alpha: float = 0.5
) -> tuple[Float[Tensor, "V H W 1"], Bool[Tensor, "V H W 1"]]:
    """(mean view depth along each ray, where it means anything): a render's depth sum is divided by its alpha.

    Where alpha <= min_alpha the depth is 0 and has no gradient.
    """
    there = alpha > min_alpha
    return torch.where(there, depth / torch.where(there, alpha, 1), 0), there


def view_points(depth: Float[Tensor, "V H W 1"], cameras: Cameras) -> Float[Tensor, "V H W 3"]:
    """The points at `depth` along the rays through the pixels' centres, in view space."""
    height, width = depth.shape[1:3]
    y = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None] + 0.5
    x = torch.arange(width, device=depth.device, dtype=depth.dtype) + 0.5
    K = cameras.K.to(depth)[:, :, :, None, None]
    rays = torch.stack(
        [
            ((x - K[:, 0, 2]) / K[:, 0, 0]).expand(-1, height, -1),
            ((y - K[:, 1, 2]) / K[:, 1, 1]).expand(-1, -1, width),
            torch.ones(len(depth), height, width, device=depth.device, dtype=depth.dtype),
        ],
        -1,
    )
    return rays * depth


def normals_from_depth(
    depth: Float[Tensor, "V H W 1"], there: Bool[Tensor, "V H W 1"], cameras: Cameras
) -> tuple[Float[Tensor, "V H W 3"], Bool[Tensor, "V H W 1"]]:
    """Unit normals in view space, facing the camera, and where they exist: all four neighbours have a depth.

    The cross product of the central differences of the points; exact on planes. 0 where there is none.
    """
    points = view_points(depth, cameras)
    right = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    known = there[:, 1:-1, 2:] & there[:, 1:-1, :-2] & there[:, 2:, 1:-1] & there[:, :-2, 1:-1] & there[:, 1:-1, 1:-1]
    outward = torch.linalg.cross(down, right)
    outward = torch.where(known, outward, torch.ones_like(outward))  # a length of 0 has no gradient
    normals = torch.where(known, F.normalize(outward, dim=-1, eps=1e-20), 0)
    border = (0, 0, 1, 1, 1, 1)
    return F.pad(normals, border), F.pad(known, border)
