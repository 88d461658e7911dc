"""Shapes that several tests use."""

from __future__ import annotations

import torch
from torch import Tensor

from dg.types import Mesh


def ball(texture: Tensor, radius: float = 0.5, rings: int = 16, centre: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    """A sphere with latitude-longitude uv; u = 0 and 1 face +z."""
    v, u = torch.meshgrid(torch.linspace(0, 1, rings + 1), torch.linspace(0, 1, 2 * rings + 1), indexing="ij")
    theta, phi = v * torch.pi, u * 2 * torch.pi
    points = radius * torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], -1)
    index = torch.arange(v.numel()).reshape(v.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    uv = torch.stack([u, v], -1).reshape(-1, 2)
    return Mesh(points.reshape(-1, 3) + torch.tensor(centre), faces, uv, faces, texture)
