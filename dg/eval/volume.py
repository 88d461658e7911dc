"""Volumes of meshes that need not be closed: a point is inside if almost no direction sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dg.core.camera import clip_from_world, look_at
from dg.core.slabs import compiled, in_slabs
from dg.core.sphere import directions
from dg.meshraster.interpolate import interpolate
from dg.meshraster.protocol import MeshRasterizer
from dg.types import Cameras, Mesh

_BATCH = 16  # views per call of the rasteriser


@dataclass(frozen=True)
class Inside:
    """What a mesh looks like from all around, to ask later which points lie inside.

    Needs neither closed surfaces nor consistent winding, and counts nested and overlapping parts once: a parity or
    winding test fails on what artists draw (open bottoms, wheels pushed into a body). Points within about half a pixel
    of the surface may fall on either side.
    """

    w2c: Float[np.ndarray, "K 4 4"]
    K: Float[np.ndarray, "3 3"]
    depth: Float[np.ndarray, "K S S"]  # infinite where empty
    seen_by: float

    @staticmethod
    def of(mesh: Mesh, raster: MeshRasterizer, *, views: int = 64, size: int = 256, seen_by: float = 0.2) -> Inside:
        """Args: seen_by: a point is inside if less than this share of all `views` directions sees it from outside."""
        centre = (mesh.vertices.amax(0) + mesh.vertices.amin(0)) / 2
        reach = max(float((mesh.vertices - centre).norm(dim=-1).max()), 1e-12)
        distance = 20 * reach  # nearly parallel rays
        focal = 0.5 * size * math.sqrt(distance**2 - reach**2) / (1.02 * reach)
        K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
        c2w = look_at(centre + distance * directions(views), centre.expand(views, 3))
        cameras = Cameras(c2w, K.expand(views, 3, 3), size, size)
        depth = torch.empty(views, size, size)
        for first in range(0, views, _BATCH):
            batch = slice(first, first + _BATCH)
            clip = clip_from_world(mesh.vertices, cameras[batch], near=distance - 2 * reach, far=distance + 2 * reach)
            fragments = raster(clip, mesh.faces, (size, size))
            z = interpolate(clip[..., 3:], fragments, mesh.faces)[..., 0]
            depth[batch] = torch.where(fragments.face_id > 0, z, torch.inf)
        return Inside(cameras.w2c.double().numpy(), K.double().numpy(), depth.numpy(), seen_by)

    def __call__(self, points: Float[Tensor, "P 3"]) -> Bool[Tensor, P]:
        """Which points are inside."""
        limit = math.ceil(self.seen_by * len(self.depth))  # so many views make it outside
        out = np.zeros(len(points), np.bool_)
        p = np.ascontiguousarray(points.detach().double().numpy())
        in_slabs(_hidden, len(p), p, self.w2c, self.K, self.depth, limit, out)
        return torch.from_numpy(out)


@compiled
def _hidden(first, last, points, w2c, K, depth, limit, out):
    views, height, width = depth.shape
    for i in range(first, last):
        x, y, z = points[i]
        seen = 0
        for v in range(views):
            m = w2c[v]
            d = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
            u = K[0, 0] * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / d + K[0, 2]
            w = K[1, 1] * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / d + K[1, 2]
            if d <= 0 or not (0 <= u < width and 0 <= w < height) or d < depth[v, int(w), int(u)]:
                seen += 1
                if seen >= limit:
                    break
        out[i] = seen < limit


def occupancy(
    mesh: Mesh,
    points: Float[Tensor, "P 3"],
    raster: MeshRasterizer,
    *,
    views: int = 64,
    seen_by: float = 0.2,
    size: int = 256,
) -> Bool[Tensor, P]:
    """Whether points lie inside the mesh; see `Inside`."""
    return Inside.of(mesh, raster, views=views, size=size, seen_by=seen_by)(points)


def lattice(lo: Float[Tensor, 3], hi: Float[Tensor, 3], resolution: int) -> Float[Tensor, "P 3"]:
    """Centres of resolution^3 cells of the smallest cube around the box [lo, hi]."""
    centre, half = (lo + hi) / 2, float((hi - lo).max()) / 2
    axis = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * half
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) + centre


def iou(a: Bool[Tensor, P], b: Bool[Tensor, P]) -> float:
    """Intersection over union of occupied cells; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def volume_iou(mesh: Mesh, truth: Mesh, raster: MeshRasterizer, *, resolution: int = 48) -> float:
    """Intersection over union of the occupied cells of a common cube; 0 if one is empty and the other is not."""
    both = torch.cat([mesh.vertices, truth.vertices])
    points = lattice(both.amin(0), both.amax(0), resolution)
    a, b = (
        Inside.of(m, raster)(points) if len(m.faces) else torch.zeros(len(points), dtype=bool) for m in (mesh, truth)
    )
    return iou(a, b)
