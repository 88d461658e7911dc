"""Inflation: a silhouette blown up into a rounded solid, painted with its picture.

Inside the silhouette the Poisson equation  laplace(u) = -4  with u = 0 on the outline gives half the thickness as
sqrt(u): a disc becomes a ball, a strip a tube that is sqrt(2) times as deep as wide. The solid is the set of points p
with (depth(p) - distance)^2 < u(pixel(p)): the picture's own camera sees exactly the silhouette.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from skimage.measure import marching_cubes
from torch import Tensor

from dg.types import Cameras, Mesh

_OUTSIDE_SLOPE = 4.0  # how fast u falls outside the outline, per pixel: steep, so that nothing leaks out


def poisson_height(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """u in squared pixels; 0 outside."""
    index = np.full(mask.shape, -1)
    index[mask] = np.arange(mask.sum())
    padded = np.pad(index, 1, constant_values=-1)
    rows, cols = [], []
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
        both = mask & (neighbour >= 0)
        rows.append(index[both])
        cols.append(neighbour[both])
    rows, cols = np.concatenate(rows), np.concatenate(cols)
    n = int(mask.sum())
    laplace = sparse.diags(np.full(n, 4.0)) - sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n))
    u = np.zeros(mask.shape)
    u[mask] = spsolve(laplace.tocsc(), np.full(n, 4.0))
    return u


def inflate(
    rgba: Float[Tensor, "H W 4"],
    camera: Cameras,
    *,
    mask_size: int = 192,
    resolution: int = 112,
    max_depth: float = 1.0,
) -> Mesh:
    """The solid of a picture seen from `camera` (one view, looking at the origin), closed and textured by projection.

    Args:
        mask_size: side of the picture in which the Poisson equation is solved.
        resolution: lattice points along the longest side of the solid's box.
        max_depth: the solid is at most this many times as deep as the silhouette is wide or high, whichever is less.

    Raises:
        ValueError: the picture has no opaque pixel, or not even one of `mask_size`.
    """
    size, distance = rgba.shape[0], float(camera.position[0].norm())
    field, view = squared_thickness(rgba[..., 3], camera, mask_size=mask_size, max_depth=max_depth)
    pixel = distance / float(view.K[0, 0, 0])  # world units per pixel at the object
    vertices, faces = _solid(field, view, distance, pixel, resolution)
    uv = _project(vertices, camera) / size
    world = vertices @ camera.c2w[0, :3, :3].double().numpy().T + camera.position[0].double().numpy()
    return Mesh(
        vertices=torch.from_numpy(world).float(),
        faces=torch.from_numpy(faces).long(),
        uv=torch.from_numpy(uv).float(),
        faces_uv=torch.from_numpy(faces).long(),
        texture=extend_colours(rgba),
    )


def squared_thickness(
    alpha: Float[Tensor, "H W"], camera: Cameras, *, mask_size: int = 192, max_depth: float = 1.0
) -> tuple[Float[np.ndarray, "m m"], Cameras]:
    """(half the thickness squared, in pixels squared, negative outside; the camera of these pixels).

    Raises:
        ValueError: the picture has no opaque pixel, or not even one of `mask_size`.
    """
    small = torch.nn.functional.interpolate(alpha[None, None], (mask_size, mask_size), mode="area")[0, 0].numpy()
    mask = np.pad(small[1:-1, 1:-1] > 0.5, 1)
    if not mask.any():
        raise ValueError("the picture has no opaque region to inflate: its alpha never exceeds 0.5 over a visible area")
    u = poisson_height(mask)
    extent = min(np.ptp(np.nonzero(mask.any(0))[0]), np.ptp(np.nonzero(mask.any(1))[0])) + 1
    u *= min(1.0, (0.5 * max_depth * extent) ** 2 / u.max())
    field = np.where(mask, u, -_OUTSIDE_SLOPE * ndimage.distance_transform_edt(~mask))
    return field, camera.resized(mask_size, mask_size)


def _project(view_points: np.ndarray, camera: Cameras) -> np.ndarray:
    image = view_points @ camera.K[0].double().numpy().T
    return image[:, :2] / image[:, 2:]


def _solid(
    field: np.ndarray, camera: Cameras, distance: float, pixel: float, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Marching cubes of u - (z - distance)^2 in view space."""
    ys, xs = np.nonzero(field > 0)
    depth = np.sqrt(field.max()) * pixel
    near = 1 - depth / distance  # perspective: what lies nearer or farther spans fewer or more world units per pixel
    far = 1 + depth / distance
    corners = (np.array([[xs.min(), ys.min()], [xs.max() + 1, ys.max() + 1]]) - field.shape[0] / 2) * pixel
    lo = np.array([*np.minimum(corners[0] * near, corners[0] * far), distance - depth])
    hi = np.array([*np.maximum(corners[1] * near, corners[1] * far), distance + depth])
    step = (hi - lo).max() / resolution
    axes = [np.arange(a - 3 * step, b + 3 * step, step) for a, b in zip(lo, hi, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    px = _project(points.reshape(-1, 3), camera)
    u = ndimage.map_coordinates(field, (px[:, 1] - 0.5, px[:, 0] - 0.5), order=1, mode="nearest") * pixel**2
    values = u.reshape(points.shape[:3]) - (points[..., 2] - distance) ** 2
    vertices, faces, _, _ = marching_cubes(values, 0.0)
    vertices = vertices * step + np.array([a[0] for a in axes])
    v0, v1, v2 = (vertices[faces[:, i]] for i in range(3))
    if np.einsum("ij,ij->i", v0, np.cross(v1, v2)).sum() < 0:
        faces = faces[:, ::-1]
    return vertices, faces.copy()


def extend_colours(rgba: Float[Tensor, "H W 4"], rim_px: int = 2) -> Float[Tensor, "H W 3"]:
    """The picture with the colours of its inside continued outward, so that no background shows at the outline."""
    solid = rgba[..., 3].numpy() > 0.9
    inside = ndimage.binary_erosion(solid, iterations=rim_px)
    inside = inside if inside.any() else rgba[..., 3].numpy() > 0.5
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return rgba[..., :3][torch.from_numpy(nearest[0]).long(), torch.from_numpy(nearest[1]).long()].contiguous()
