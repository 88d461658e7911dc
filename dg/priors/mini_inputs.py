"""What `zero123_mini` is told of its cameras and pictures: rays, relative pose and lens, the reference on mid-grey."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core import camera
from dg.types import Cameras, Reference

RADIUS = 2.0
HARMONICS = (2, 3, 4)
REFERENCE_DIM = 7
TARGET_DIM = 20


def rays(cameras: Cameras, azimuth0_deg: Float[Tensor, "B"] | float, grid: int) -> Float[Tensor, "B N 6"]:
    """Plücker coordinates (direction, origin x direction / 2) of the patches' centres, row by row.

    The world is first turned about y so that the reference stands at azimuth 0.
    """
    c2w, K = cameras.c2w.float(), cameras.K.float()
    centre = (torch.arange(grid, device=c2w.device) + 0.5) / grid
    v, u = torch.meshgrid(centre * cameras.height, centre * cameras.width, indexing="ij")
    x = (u.reshape(1, -1) - K[:, 0, 2, None]) / K[:, 0, 0, None]
    y = (v.reshape(1, -1) - K[:, 1, 2, None]) / K[:, 1, 1, None]
    local = F.normalize(torch.stack([x, y, torch.ones_like(x)], -1), dim=-1)
    turn = _turn_y(-torch.as_tensor(azimuth0_deg, device=c2w.device, dtype=torch.float32).expand(len(c2w)))
    direction = local @ (turn @ c2w[:, :3, :3]).transpose(1, 2)
    origin = (turn @ c2w[:, :3, 3:])[..., 0][:, None].expand_as(direction)
    return torch.cat([direction, torch.linalg.cross(origin, direction) / RADIUS], -1)


def _turn_y(angle_deg: Float[Tensor, "B"]) -> Float[Tensor, "B 3 3"]:
    """Adds `angle_deg` to the azimuth of a point."""
    a = torch.deg2rad(angle_deg)
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a.cos(), zero, a.sin(), zero, one, zero, -a.sin(), zero, a.cos()], -1).reshape(-1, 3, 3)


def _lens(cameras: Cameras, radius: Tensor) -> list[Tensor]:
    """Logarithms of focal length and radius, relative to the canonical camera's."""
    half = cameras.height / (2 * cameras.K[:, 1, 1])
    return [-(half / math.tan(math.radians(camera.FOVY_DEG) / 2)).log(), (radius / RADIUS).log()]


def reference_vector(reference: Cameras, dropped: Float[Tensor, "R"]) -> Float[Tensor, "R 7"]:
    """What modulates the reference's tokens; `dropped` is 1 where the picture was withheld."""
    elevation, _, radius = camera.spherical(reference)
    e = torch.deg2rad(elevation)
    return torch.stack(
        [e.sin(), e.cos(), (2 * e).sin(), (2 * e).cos(), *_lens(reference, radius), dropped.to(e)], -1
    ).float()


def target_vector(
    cameras: Cameras, reference: Cameras, background: Float[Tensor, "B 3"], dropped: Float[Tensor, "B"]
) -> Float[Tensor, "B 20"]:
    """What modulates the target's tokens: Zero123's relative pose and more of the same, lens, background in [0, 1].

    `reference` has one camera for all or one each.
    """
    pose = camera.relative_pose_zero123(cameras, reference)
    elevation, azimuth, radius = camera.spherical(cameras)
    elevation0, azimuth0, _ = camera.spherical(reference)
    e, e0 = torch.deg2rad(elevation), torch.deg2rad(elevation0).expand_as(elevation)
    d = torch.deg2rad(azimuth - azimuth0)
    turns = [f(k * d) for k in HARMONICS for f in (torch.sin, torch.cos)]
    angles = [e0.sin(), e0.cos(), e.sin(), e.cos()]
    rest = torch.stack([*turns, *angles, *_lens(cameras, radius), dropped.to(e)], -1)
    return torch.cat([pose, rest, 2 * background.to(e) - 1], -1).float()


def masked_reference(rgba: Float[Tensor, "R 4 H W"]) -> Float[Tensor, "R 4 H W"]:
    """Straight RGBA in [0, 1] to the network's input: colour on mid-grey in [-1, 1], and alpha."""
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    return torch.cat([alpha * (2 * rgb - 1), alpha], 1)


def resize(pictures: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C h w"]:
    """Box filter for whole ratios (as the training pictures were made), else bilinear with antialiasing."""
    h, w = pictures.shape[-2:]
    if (h, w) == (size, size):
        return pictures
    if h == w and h % size == 0:
        return F.avg_pool2d(pictures, h // size)
    return F.interpolate(pictures, (size, size), mode="bilinear", align_corners=False, antialias=True)


def reference_picture(reference: Reference, size: int, device: torch.device | str = "cpu") -> Float[Tensor, "R 4 h w"]:
    """The references as the network reads them. Resized after compositing: no colour leaks in from outside."""
    rgba = reference.rgba.to(device).float().permute(0, 3, 1, 2)
    return resize(masked_reference(rgba), size)
