"""Vertex attributes at the pixels of a rasterised mesh, and how they change from pixel to pixel.

`faces` may be another index list than the rasterised one, as `Mesh.faces_uv` is, if its faces correspond. All functions
are differentiable in the attributes. The `at_pixels` pair works on a list of covered pixels, for those who have several
attributes to interpolate and no use for empty pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dg.types import Fragments

Attributes = Float[Tensor, "P A"] | Float[Tensor, "V P A"]


def interpolate(attributes: Attributes, fragments: Fragments, faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V H W A"]:
    """Perspective-correct interpolation; 0 where no face is."""
    pixels = covered_pixels(fragments)
    return _spread(at_pixels(attributes, fragments, faces, pixels), pixels, fragments)


def interpolate_dxy(
    attributes: Attributes, fragments: Fragments, faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "V H W 2A"]:
    """Screen derivatives of `interpolate` per pixel: (d a0/dX, d a0/dY, d a1/dX, ...), as nvdiffrast orders them."""
    pixels = covered_pixels(fragments)
    return _spread(slopes_at_pixels(attributes, fragments, faces, pixels), pixels, fragments)


def covered_pixels(fragments: Fragments) -> Int[Tensor, " n"]:
    """Where a face is, as indices into the flattened views."""
    return fragments.face_id.reshape(-1).nonzero()[:, 0]


def looked_at(fragments: Fragments, faces: Int[Tensor, "F 3"]) -> tuple[Int[Tensor, " n"], Bool[Tensor, "n 1"] | None]:
    """The pixels to work on, and which of them are covered; None: all.

    On a CPU the covered pixels alone. On a GPU every pixel, since counting the covered ones would stop the host; what
    is interpolated where no face is, is finite and means nothing.
    """
    if fragments.face_id.device.type == "cpu" or len(faces) == 0:
        return covered_pixels(fragments), None
    face_id = fragments.face_id.reshape(-1)
    return torch.arange(len(face_id), device=face_id.device), (face_id > 0)[:, None]


def at_pixels(
    attributes: Attributes, fragments: Fragments, faces: Int[Tensor, "F 3"], pixels: Int[Tensor, " n"]
) -> Float[Tensor, "n A"]:
    a, b, c = _corners(attributes, fragments, faces, pixels)
    u, v = fragments.bary.reshape(-1, 2)[pixels].to(a.dtype).split(1, -1)
    return u * a + v * b + (1 - u - v) * c


def slopes_at_pixels(
    attributes: Attributes, fragments: Fragments, faces: Int[Tensor, "F 3"], pixels: Int[Tensor, " n"]
) -> Float[Tensor, "n 2A"]:
    a, b, c = _corners(attributes, fragments, faces, pixels)
    du, dv = fragments.bary_dxy.reshape(-1, 2, 2)[pixels].to(a.dtype).unbind(1)  # each [n, XY]
    return ((a - c)[..., None] * du[:, None] + (b - c)[..., None] * dv[:, None]).flatten(1)


def _corners(attributes: Tensor, fragments: Fragments, faces: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The attributes [n A] of the three vertices of the face in each pixel."""
    vertices = faces[fragments.face_id.reshape(-1)[pixels].long() - 1]
    if attributes.ndim == 3:
        vertices = vertices + (pixels // fragments.face_id[0].numel() * attributes.shape[1])[:, None]
        attributes = attributes.flatten(0, 1)
    return tuple(attributes.index_select(0, column) for column in vertices.unbind(1))


def _spread(values: Tensor, pixels: Tensor, fragments: Fragments) -> Tensor:
    out = values.new_zeros(fragments.face_id.numel(), values.shape[-1])
    return out.index_copy(0, pixels, values).reshape(*fragments.face_id.shape, -1)
