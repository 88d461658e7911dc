"""Where a result and its truth stand before they are compared: axes, yaw, size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import project
from dg.types import Cameras, Mesh

FILL = 0.8  # share of the frame that a recentred picture's object takes (`dg.data.image.load_reference`)


@dataclass(frozen=True)
class Box:
    """Centre and longest side of an axis-parallel box."""

    centre: Float[Tensor, 3]
    longest: float


def box(points: Float[Tensor, "P 3"]) -> Box:
    low, high = points.amin(0), points.amax(0)
    return Box((low + high) / 2, float((high - low).max()))


def used(mesh: Mesh) -> Float[Tensor, "P 3"]:
    """The vertices that some face has."""
    return mesh.vertices[torch.unique(mesh.faces)]


def turned(mesh: Mesh, axes: Float[Tensor, "3 3"]) -> Mesh:
    """Vertices through a matrix; one that mirrors turns the faces over, so that they still look outwards."""
    axes = axes.to(mesh.vertices)
    flip = torch.linalg.det(axes.double()) < 0
    faces, faces_uv = mesh.faces, mesh.faces_uv
    if flip:
        faces_uv = faces if faces_uv is None and mesh.uv is not None else faces_uv
        faces, faces_uv = faces.flip(1), None if faces_uv is None else faces_uv.flip(1)
    return replace(mesh, vertices=mesh.vertices @ axes.T, faces=faces, faces_uv=faces_uv)


def yaw_matrix(degrees: float, dtype: torch.dtype = torch.float32) -> Float[Tensor, "3 3"]:
    """About +y, from +z towards +x: as a camera's azimuth grows."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=dtype)


def resized(mesh: Mesh, target: Box) -> Mesh:
    """Moved and scaled so that its box has the target's centre and longest side."""
    now = box(used(mesh))
    factor = target.longest / max(now.longest, 1e-12)
    return replace(mesh, vertices=(mesh.vertices - now.centre) * factor + target.centre)


def seen_through(cameras: Cameras, axes: Float[Tensor, "3 3"], shift: Float[Tensor, 3]) -> Cameras:
    """Cameras that see an object as `cameras` would see it after x -> axes x + shift.

    For what is easier left where it is: Gaussians, whose colours depend on directions.

    Raises:
        ValueError: `axes` mirrors, or stretches one direction more than another.
    """
    axes = axes.double()
    factor = float(torch.linalg.det(axes)) ** (1 / 3) if float(torch.linalg.det(axes)) > 0 else 0.0
    rotation = axes / max(factor, 1e-12)
    if not factor or (rotation @ rotation.T - torch.eye(3)).abs().max() > 1e-3:
        raise ValueError("axes must be a rotation times one factor where the result is splats")
    c2w = cameras.c2w.double().clone()
    c2w[:, :3, :3] = rotation.T @ c2w[:, :3, :3]
    c2w[:, :3, 3] = (c2w[:, :3, 3] - shift.double()) @ rotation / factor
    return replace(cameras, c2w=c2w.to(cameras.c2w))


def framed(points: Float[Tensor, "P 3"], camera: Cameras, fill: float = FILL) -> Cameras:
    """One camera's picture cropped or widened until the points fill `fill` of it, centred: as recentring does it."""
    pixels = project(points, camera)[0][0]
    low, high = pixels.amin(0), pixels.amax(0)
    factor = fill * camera.height / max(float((high - low).max()), 1e-6)
    K = camera.K.clone()
    K[:, :2] *= factor
    K[:, :2, 2] += torch.tensor([camera.width, camera.height]) / 2 - factor * (low + high) / 2
    return replace(camera, K=K)
