"""Figures for one object against the truth. Pure functions; unreduced over views."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dg.core.camera import clip_from_world, look_at, project
from dg.meshraster.interpolate import interpolate
from dg.meshraster.protocol import MeshRasterizer
from dg.types import Cameras, Mesh

PSNR_CEILING_DB = 100.0


def psnr(a: Float[Tensor, "V H W 3"], b: Float[Tensor, "V H W 3"]) -> Float[Tensor, V]:
    """Peak signal-to-noise ratio per view in dB over the whole picture, peak 1; equal pictures get 100."""
    mse = (a.clamp(0, 1) - b.clamp(0, 1)).square().flatten(1).mean(1)
    return (-10 * mse.clamp_min(1e-30).log10()).clamp_max(PSNR_CEILING_DB)


def silhouette_iou(a: Float[Tensor, "V H W 1"], b: Float[Tensor, "V H W 1"]) -> Float[Tensor, V]:
    """Intersection over union per view of the pixels that are at least half covered; 1 where both are empty."""
    a, b = (x.flatten(1) > 0.5 for x in (a, b))
    union = (a | b).sum(1)
    return torch.where(union > 0, (a & b).sum(1) / union.clamp_min(1), 1.0)


def directions(count: int) -> Float[Tensor, "K 3"]:
    """Unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    y = 1 - 2 * i / count
    phi = math.pi * (1 + math.sqrt(5)) * i
    r = (1 - y * y).sqrt()
    return torch.stack([r * phi.cos(), y, r * phi.sin()], -1).float()


def occupancy(
    mesh: Mesh,
    points: Float[Tensor, "P 3"],
    raster: MeshRasterizer,
    *,
    views: int = 64,
    seen_by: float = 0.2,
    size: int = 256,
) -> Bool[Tensor, P]:
    """Whether points lie inside: fewer than `seen_by` of all directions see them from outside.

    Needs neither closed surfaces nor consistent winding, and counts nested and overlapping parts once: a parity or
    winding test fails on what artists draw (open bottoms, wheels pushed into a body). Points within about half a pixel
    of the surface may fall on either side.
    """
    centre = (mesh.vertices.amax(0) + mesh.vertices.amin(0)) / 2
    reach = float(max((mesh.vertices - centre).norm(dim=-1).max(), (points - centre).norm(dim=-1).max()))
    distance = 20 * reach  # nearly parallel rays
    focal = 0.5 * size * math.sqrt(distance**2 - reach**2) / (1.02 * reach)
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    seen = torch.zeros(len(points))
    for direction in directions(views):
        c2w = look_at((centre + distance * direction)[None], centre[None])
        camera = Cameras(c2w, K[None], size, size)
        clip = clip_from_world(mesh.vertices, camera, near=distance - 2 * reach, far=distance + 2 * reach)
        fragments = raster(clip, mesh.faces, (size, size))
        depth = interpolate(clip[..., 3:], fragments, mesh.faces)[0, ..., 0]
        depth = torch.where(fragments.face_id[0] > 0, depth, torch.inf)
        pixel, z = project(points, camera)
        column, row = pixel[0].floor().long().clamp(0, size - 1).unbind(-1)
        seen += z[0] < depth[row, column]
    return seen < seen_by * views


def lattice(lo: Float[Tensor, 3], hi: Float[Tensor, 3], resolution: int) -> Float[Tensor, "P 3"]:
    """Centres of resolution^3 cells of the smallest cube around the box [lo, hi]."""
    centre, half = (lo + hi) / 2, float((hi - lo).max()) / 2
    axis = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * half
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) + centre


def volume_iou(mesh: Mesh, truth: Mesh, raster: MeshRasterizer, *, resolution: int = 48) -> float:
    """Intersection over union of the occupied cells of a common cube; 0 if one is empty and the other is not."""
    both = torch.cat([mesh.vertices, truth.vertices])
    points = lattice(both.amin(0), both.amax(0), resolution)
    a, b = (
        occupancy(m, points, raster) if len(m.faces) else torch.zeros(len(points), dtype=bool) for m in (mesh, truth)
    )
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
