"""Vertex attributes at the pixels of a rasterised mesh, and how they change from pixel to pixel."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.types import Fragments


def interpolate(
    attributes: Float[Tensor, "P A"] | Float[Tensor, "V P A"], fragments: Fragments, faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "V H W A"]:
    """Perspective-correct interpolation; 0 where no face is. Differentiable in the attributes.

    `faces` may be another index list than the rasterised one, as `Mesh.faces_uv` is, if its faces correspond.
    """
    pixels, corners = _corners(attributes, fragments, faces)
    bary = fragments.bary.reshape(-1, 2)[pixels].to(corners.dtype)
    weights = torch.cat([bary, 1 - bary.sum(-1, keepdim=True)], -1)
    return _spread((weights[..., None] * corners).sum(1), pixels, fragments)


def interpolate_dxy(
    attributes: Float[Tensor, "P A"] | Float[Tensor, "V P A"], fragments: Fragments, faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "V H W 2A"]:
    """Screen derivatives of `interpolate` per pixel: (d a0/dX, d a0/dY, d a1/dX, ...), as nvdiffrast orders them."""
    pixels, corners = _corners(attributes, fragments, faces)
    slopes = fragments.bary_dxy.reshape(-1, 2, 2)[pixels].to(corners.dtype)  # [n, uv, XY]
    edges = corners[:, :2] - corners[:, 2:]  # attribute change along u and v
    return _spread(torch.einsum("nba,nbx->nax", edges, slopes).flatten(1), pixels, fragments)


def _corners(attributes: Tensor, fragments: Fragments, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the covered pixels in the flattened views, and the attributes [n 3 A] of their face's vertices."""
    flat = fragments.face_id.reshape(-1)
    pixels = flat.nonzero()[:, 0]
    vertices = faces[flat[pixels].long() - 1]
    if attributes.ndim == 3:
        view = pixels // fragments.face_id[0].numel() if len(fragments.face_id) else pixels
        return pixels, attributes[view[:, None], vertices]
    return pixels, attributes[vertices]


def _spread(values: Tensor, pixels: Tensor, fragments: Fragments) -> Tensor:
    out = values.new_zeros(fragments.face_id.numel(), values.shape[-1])
    return out.index_copy(0, pixels, values).reshape(*fragments.face_id.shape, -1)
