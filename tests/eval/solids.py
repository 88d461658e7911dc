"""Small meshes without any symmetry, so that a wrong turn or a mirror image shows."""

from __future__ import annotations

import torch

from dg.types import Mesh


def lopsided(scale: float = 1.0, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    """A long box with a small one on its top, towards +z and +x. Longest side `scale`."""
    corners, faces = [], []
    for low, high in (((-0.3, -0.3, -0.5), (0.3, 0.0, 0.5)), ((0.05, 0.0, 0.2), (0.3, 0.3, 0.5))):
        low_t, high_t = torch.tensor(low), torch.tensor(high)
        cube = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)])
        quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
        first = len(corners) * 8
        corners.append(torch.where(cube > 0, high_t, low_t))
        faces += [[first + q[0], first + q[i], first + q[i + 1]] for q in quads for i in (1, 2)]
    return Mesh(torch.cat(corners) * scale + torch.tensor(shift), torch.tensor(faces))
