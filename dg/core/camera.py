"""Cameras: orbit poses, intrinsics, clip space, and every conversion to another convention.

Canonical: c2w, OpenCV axes, world y up, elevation negative = seen from above (`dg.types`). Formulas and test vectors:
DreamGaussian's cam_utils.py as facts (orbit, look-at, projection), Zero123's and MVDream's camera conditions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.transfer import constant
from dg.types import Cameras

NEAR, FAR = 0.01, 100.0
FOVY_DEG = 49.1  # the field of view of the Objaverse renders that Zero123 was trained on
POLE_DEG = 89.9  # look-at is degenerate at exactly 90 degrees

_GL_FROM_CV = (1.0, -1.0, -1.0, 1.0)


def eye(elevation_deg: Tensor, azimuth_deg: Tensor, radius: Tensor) -> Float[Tensor, "V 3"]:
    """Position on the orbit: x = r cos e sin a, y = -r sin e, z = r cos e cos a."""
    e, a = torch.deg2rad(elevation_deg), torch.deg2rad(azimuth_deg)
    return torch.stack([radius * e.cos() * a.sin(), -radius * e.sin(), radius * e.cos() * a.cos()], -1)


def look_at(position: Float[Tensor, "V 3"], target: Float[Tensor, "V 3"]) -> Float[Tensor, "V 4 4"]:
    """Camera to world, OpenCV axes, world y up. Degenerate when looking straight up or down."""
    unit = lambda v: v / v.square().sum(-1, keepdim=True).clamp_min(1e-20).sqrt()  # noqa: E731
    forward = unit(target - position)
    up = torch.zeros_like(forward)
    up[:, 1] = 1
    right = unit(torch.linalg.cross(forward, up))
    down = torch.linalg.cross(forward, right)
    c2w = torch.zeros(len(position), 4, 4, dtype=position.dtype, device=position.device)
    c2w[:, :3] = torch.stack([right, down, forward, position], -1)
    c2w[:, 3, 3] = 1
    return c2w


def intrinsics(fovy_deg: float, height: int, width: int) -> Float[Tensor, "3 3"]:
    """Square pixels, centred: fy = H / (2 tan(fovy / 2))."""
    f = height / (2 * math.tan(math.radians(fovy_deg) / 2))
    return torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=torch.float32)


def orbit(
    elevation_deg: float | Sequence[float] | Tensor,
    azimuth_deg: float | Sequence[float] | Tensor,
    radius: float | Sequence[float] | Tensor = 2.0,
    *,
    fovy_deg: float = FOVY_DEG,
    height: int = 256,
    width: int | None = None,
    target: Sequence[float] = (0.0, 0.0, 0.0),
) -> Cameras:
    """Views around `target`. Scalars broadcast against sequences. Elevations are clamped to +-89.9 degrees."""
    as_tensor = lambda x: torch.as_tensor(x, dtype=torch.float64).reshape(-1)  # noqa: E731
    e, a, r = torch.broadcast_tensors(as_tensor(elevation_deg), as_tensor(azimuth_deg), as_tensor(radius))
    centre = torch.tensor(target, dtype=torch.float64).expand(len(e), 3)
    c2w = look_at(eye(e.clamp(-POLE_DEG, POLE_DEG), a, r) + centre, centre).float()
    width = height if width is None else width
    return Cameras(c2w, intrinsics(fovy_deg, height, width).expand(len(e), 3, 3).clone(), width, height)


def spherical(cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `orbit` around the origin: (elevation_deg, azimuth_deg, radius), each [V]."""
    p = cameras.position
    radius = p.norm(dim=-1)
    elevation = torch.rad2deg(torch.asin((-p[:, 1] / radius).clamp(-1, 1)))
    return elevation, torch.rad2deg(torch.atan2(p[:, 0], p[:, 2])), radius


def fovy_deg(cameras: Cameras) -> Float[Tensor, V]:
    return torch.rad2deg(2 * torch.atan(cameras.height / (2 * cameras.K[:, 1, 1])))


def c2w_opengl(cameras: Cameras) -> Float[Tensor, "V 4 4"]:
    """Camera to world with OpenGL axes (x right, y up, z backward)."""
    return cameras.c2w * constant(_GL_FROM_CV, cameras.c2w)


def clip_from_view(cameras: Cameras, near: float = NEAR, far: float = FAR) -> Float[Tensor, "V 4 4"]:
    """From OpenCV view space to clip space; w = view depth, y = -1 is picture row 0 (nvdiffrast's layout)."""
    P = torch.zeros(len(cameras), 4, 4, dtype=cameras.K.dtype, device=cameras.K.device)
    K, w, h = cameras.K, cameras.width, cameras.height
    P[:, 0, 0] = 2 * K[:, 0, 0] / w
    P[:, 0, 2] = 2 * K[:, 0, 2] / w - 1
    P[:, 1, 1] = 2 * K[:, 1, 1] / h
    P[:, 1, 2] = 2 * K[:, 1, 2] / h - 1
    P[:, 2, 2] = (far + near) / (far - near)
    P[:, 2, 3] = -2 * far * near / (far - near)
    P[:, 3, 2] = 1
    return P


def clip_from_world(
    points: Float[Tensor, "P 3"], cameras: Cameras, near: float = NEAR, far: float = FAR
) -> Float[Tensor, "V P 4"]:
    matrix = clip_from_view(cameras, near, far) @ cameras.w2c
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], -1)
    return homogeneous @ matrix.transpose(1, 2)


def project(points: Float[Tensor, "P 3"], cameras: Cameras) -> tuple[Float[Tensor, "V P 2"], Float[Tensor, "V P"]]:
    """Pixel coordinates (x right, y down, centres at +0.5) and view depth."""
    w2c = cameras.w2c
    view = points @ w2c[:, :3, :3].transpose(1, 2) + w2c[:, None, :3, 3]
    image = view @ cameras.K.transpose(1, 2)
    return image[..., :2] / image[..., 2:], view[..., 2]


def vertical_range(min_deg: float, max_deg: float, reference_deg: float, limit_deg: float = 80.0) -> tuple[int, int]:
    """Bounds [lo, hi) of the novel view's elevation relative to the reference view.

    The range is shifted so that level views stay reachable from a tilted reference, and absolute elevations stay inside
    +-limit (DreamGaussian's main.py, as facts).
    """
    lo = max(min(min_deg, min_deg - reference_deg), -limit_deg - reference_deg)
    hi = min(max(max_deg, max_deg - reference_deg), limit_deg - reference_deg)
    return int(lo), int(hi)


def relative_pose_zero123(cameras: Cameras, reference: Cameras) -> Float[Tensor, "V 4"]:
    """Zero123's condition: (d elevation, sin d azimuth, cos d azimuth, d radius), radians.

    Zero123 measures the polar angle from the top, which grows as our elevation does: no sign flips here.
    """
    (e, a, r), (e0, a0, r0) = spherical(cameras), spherical(reference)
    d = torch.deg2rad(a - a0)
    return torch.stack([torch.deg2rad(e - e0), d.sin(), d.cos(), (r - r0).expand_as(e)], -1)


def relative_pose_stable_zero123(cameras: Cameras, reference: Cameras) -> Float[Tensor, "V 4"]:
    """As Zero123's, with the reference's polar angle (radians, from the top) in the fourth place."""
    pose = relative_pose_zero123(cameras, reference)
    pose[:, 3] = torch.deg2rad(90 + spherical(reference)[0])
    return pose


def turned(cameras: Cameras, azimuth_deg: float) -> Cameras:
    """The cameras carried around the world's y axis: every azimuth grows by `azimuth_deg`."""
    a = math.radians(azimuth_deg)
    turn = (math.cos(a), 0, math.sin(a), 0, 0, 1, 0, 0, -math.sin(a), 0, math.cos(a), 0, 0, 0, 0, 1)
    return replace(cameras, c2w=constant(turn, cameras.c2w).reshape(4, 4) @ cameras.c2w)


def pose_mvdream(cameras: Cameras) -> Float[Tensor, "V 16"]:
    """MVDream's condition: Blender's world axes (z up), unit distance, row-major."""
    gl = c2w_opengl(cameras)
    blender = torch.stack([gl[:, 0], -gl[:, 2], gl[:, 1], gl[:, 3]], 1)
    blender[:, :3, 3] = blender[:, :3, 3] / (blender[:, :3, 3].norm(dim=-1, keepdim=True) + 1e-8)
    return blender.flatten(1)
