"""The part of a surface that a set of views sees, as points: out of depth pictures, or of a mesh.

SyncDreamer's mesh protocol (its eval_mesh.py, as facts): every pixel's depth becomes a point, and all that fall into
one cell of 0.01 become their mean. Pixel centres lie at +0.5, as the pictures were rendered.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dg.eval.protocol import TruthDepth
from dg.eval.shape import Samples, sample_surface, samples_of
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_mesh
from dg.types import Cameras, Mesh

VOXEL = 0.01
DENSE = 100_000  # points among which the nearest lends its normal


def from_depth(truth: TruthDepth, voxel: float = VOXEL) -> Float[Tensor, "N 3"]:
    """Points of given 16-bit depth pictures, in our frame.

    Raises:
        ValueError: a picture is not of 16 bits, or not of the cameras' size; names it.
    """
    from PIL import Image

    depths = []
    for path in truth.pictures:
        with Image.open(path) as image:
            values = np.asarray(image)
        if values.dtype != np.uint16 and not (values.dtype == np.int32 and values.max(initial=0) > 255):
            raise ValueError(f"{path}: a depth picture has 16 bits and one channel, this one is {values.dtype}")
        if values.shape != (truth.cameras.height, truth.cameras.width):
            raise ValueError(f"{path}: is {values.shape}, the cameras are {truth.cameras.height, truth.cameras.width}")
        depths.append(torch.from_numpy(values.astype(np.float32)) / 65535 * (truth.far - truth.near) + truth.near)
    depth = torch.stack(depths)
    return thinned(unprojected(depth, (depth > truth.valid[0]) & (depth < truth.valid[1]), truth.cameras), voxel)


def from_mesh(mesh: Mesh, cameras: Cameras, raster: MeshRasterizer, voxel: float = VOXEL) -> Float[Tensor, "N 3"]:
    """Points of a mesh that the cameras see."""
    seen = render_mesh(mesh, cameras, raster, torch.zeros(3))
    return thinned(unprojected(seen.depth[..., 0], seen.alpha[..., 0] > 0.5, cameras), voxel)


def with_normals(points: Float[Tensor, "N 3"], mesh: Mesh, seed: int = 0) -> Samples:
    """Points of a mesh's surface with the normals that it has nearby.

    Raises:
        ValueError: there are no points: the views see nothing.
    """
    if not len(points):
        raise ValueError("the protocol's views see nothing of the surface")
    dense = sample_surface(mesh, DENSE, seed)
    _, index = dense.tree.query(points.numpy())
    return samples_of(points.double().numpy(), dense.normals[index])


def visible_samples(mesh: Mesh, cameras: Cameras, raster: MeshRasterizer, truth: TruthDepth | None = None) -> Samples:
    """What the views see of a mesh, in the form in which surfaces are compared; `truth`: given depths of it."""
    points = from_mesh(mesh, cameras, raster) if truth is None else from_depth(truth)
    return with_normals(points, mesh)


def unprojected(depth: Float[Tensor, "V H W"], where: Bool[Tensor, "V H W"], cameras: Cameras) -> Float[Tensor, "N 3"]:
    """World points behind the pixels `where`; depth along the camera's axis."""
    view, row, column = where.nonzero(as_tuple=True)
    pixel = torch.stack([column + 0.5, row + 0.5, torch.ones(len(row))], -1)
    rays = (torch.linalg.inv(cameras.K)[view] @ pixel[..., None])[..., 0]
    local = rays * depth[where][:, None]
    c2w = cameras.c2w[view]
    return (c2w[:, :3, :3] @ local[..., None])[..., 0] + c2w[:, :3, 3]


def thinned(points: Float[Tensor, "N 3"], voxel: float) -> Float[Tensor, "M 3"]:
    """One point per occupied cell of side `voxel`: the mean of those inside."""
    if not len(points):
        return points
    cell = ((points - points.amin(0)) / voxel + 0.5).floor().long()
    _, index, count = torch.unique(cell, dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(count), 3, dtype=points.dtype).index_add(0, index, points)
    return sums / count[:, None]
