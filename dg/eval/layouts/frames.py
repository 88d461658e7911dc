"""From the frames of data sets into ours (y up, front at +z, negative elevation from above). One function each.

Public renders of Google Scanned Objects use Blender's world: z up, azimuth counted from +x towards +y, elevation
positive from above. A camera at azimuth a there stands at azimuth a here, once axes are renamed (y, z, x).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dg.types import Cameras

Rows = tuple[tuple[float, float, float], ...]

FROM_Z_UP: Rows = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))  # (x, y, z) -> (y, z, x): +x is the front
FROM_BLENDER: Rows = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))  # (x, y, z) -> (x, z, -y): -y is the front


def elevation_from_above(degrees: float) -> float:
    """Positive from above (SyncDreamer, EscherNet, MVDream, threestudio) to ours."""
    return -degrees


def elevation_from_polar(degrees: float) -> float:
    """Polar angle from the top (EscherNet's and Zero123's theta, Magic123's default_polar) to ours."""
    return degrees - 90


def rotation_z(degrees: float) -> Float[Tensor, "3 3"]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def from_z_up(input_azimuth_deg: float = 0.0) -> Float[Tensor, "3 3"]:
    """Blender's world into ours, turned so that the picture seen from that azimuth becomes the front."""
    return torch.tensor(FROM_Z_UP) @ rotation_z(-input_azimuth_deg)


def cameras_from_blender(
    world_to_camera: Float[Tensor, "V 3 4"], K: Float[Tensor, "3 3"], size: int, input_azimuth_deg: float = 0.0
) -> Cameras:
    """Blender's cameras (x right, y up, z backward) in its z-up world, as EscherNet's NNN.npy have them, to ours."""
    return _cameras(world_to_camera, torch.diag(torch.tensor([1.0, -1.0, -1.0])), K, size, input_azimuth_deg)


def cameras_from_opencv(
    world_to_camera: Float[Tensor, "V 3 4"], K: Float[Tensor, "3 3"], size: int, input_azimuth_deg: float = 0.0
) -> Cameras:
    """OpenCV's cameras in a z-up world, as SyncDreamer's camera-16.pkl has them, to ours."""
    return _cameras(world_to_camera, torch.eye(3), K, size, input_azimuth_deg)


def _cameras(w2c: Tensor, to_opencv: Tensor, K: Tensor, size: int, azimuth: float) -> Cameras:
    w2c, world = w2c.double(), from_z_up(azimuth).double()
    rotation = w2c[:, :, :3].transpose(1, 2)
    c2w = torch.zeros(len(w2c), 4, 4, dtype=torch.float64)
    c2w[:, :3, :3] = world @ rotation @ to_opencv.double()
    c2w[:, :3, 3] = -(world @ rotation @ w2c[:, :, 3:])[..., 0]
    c2w[:, 3, 3] = 1
    return Cameras(c2w.float(), K.float().expand(len(w2c), 3, 3).clone(), size, size)


def spherical_of_blender(world_to_camera: Float[Tensor, "3 4"]) -> tuple[float, float, float]:
    """(elevation in our sign, azimuth from +x, distance) of a camera in a z-up world."""
    x, y, z = (-(world_to_camera[:, :3].T @ world_to_camera[:, 3])).tolist()
    distance = math.sqrt(x * x + y * y + z * z)
    polar = math.degrees(math.acos(max(-1.0, min(1.0, z / distance))))
    return elevation_from_polar(polar), math.degrees(math.atan2(y, x)), distance
