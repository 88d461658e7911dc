"""Texture space without charts: two faces in each cell of a grid. Always possible, but every edge is a seam.

Used for colours that are given per corner (a linear function of the face is looked up exactly) and where no atlas can
be made. A cell has c x c texels. With L = c - 3, its lower face spans the texel centres (0, 0), (L, 0), (0, L), its
upper one (c-1, c-1), (c-1-L, c-1), (c-1, c-1-L); bilinear look-ups of either never touch a texel of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

MIN_CELL = 4  # texels; the least for which L is positive


@dataclass(frozen=True)
class FaceGrid:
    uv: Float[Tensor, "3F 2"]
    faces_uv: Int[Tensor, "F 3"]
    columns: int  # cells per row and per column
    cell: int  # texels per cell
    resolution: int  # texels per side of the texture, at least columns * cell


def face_grid(count: int, resolution: int | None = None) -> FaceGrid:
    """Lays `count` faces out; without a resolution in the smallest texture.

    Raises:
        ValueError: the resolution is too small for so many faces.
    """
    columns = max(_ceil_sqrt((count + 1) // 2), 1)
    cell = MIN_CELL if resolution is None else resolution // columns
    if cell < MIN_CELL:
        raise ValueError(f"{count} faces need a texture of at least {columns * MIN_CELL} texels, got {resolution}")
    resolution = columns * cell if resolution is None else resolution
    index = torch.arange(count)
    origin = torch.stack([index // 2 % columns, index // 2 // columns], -1) * cell
    reach, last = cell - 3, cell - 1
    lower = torch.tensor([[0, 0], [reach, 0], [0, reach]])
    upper = torch.tensor([[last, last], [last - reach, last], [last, last - reach]])
    texels = origin[:, None] + torch.stack([lower, upper])[index % 2]
    uv = (texels.reshape(-1, 2) + 0.5) / resolution
    return FaceGrid(uv.float(), torch.arange(3 * count).reshape(count, 3), columns, cell, resolution)


def paint_corners(colours: Float[Tensor, "F 3 3"], grid: FaceGrid) -> Float[Tensor, "h w 3"]:
    """The texture in which each face shows the linear function through its three corner colours.

    Texels just outside a face continue the function and are clamped to [0, 1]; where they would leave that range by d,
    colours along one edge of the face are off by up to d / 4.
    """
    cells = grid.columns**2
    padded = colours.new_zeros(2 * cells, 3, 3)
    padded[: len(colours)] = colours
    steps = torch.arange(grid.cell, dtype=colours.dtype)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    upper = x + y >= grid.cell - 1
    last, reach = grid.cell - 1, grid.cell - 3
    b1 = torch.where(upper, last - x, x) / reach
    b2 = torch.where(upper, last - y, y) / reach
    weights = torch.stack([1 - b1 - b2, b1, b2], -1)
    pairs = padded.reshape(cells, 2, 3, 3)
    painted = torch.einsum("yxk,nkc->nyxc", weights * ~upper[..., None], pairs[:, 0])
    painted += torch.einsum("yxk,nkc->nyxc", weights * upper[..., None], pairs[:, 1])
    blocks = painted.reshape(grid.columns, grid.columns, grid.cell, grid.cell, 3)
    side = grid.columns * grid.cell
    out = colours.new_zeros(grid.resolution, grid.resolution, 3)
    out[:side, :side] = blocks.transpose(1, 2).reshape(side, side, 3)
    return out.clamp(0, 1)


def _ceil_sqrt(n: int) -> int:
    root = int(n**0.5)
    while root * root < n:
        root += 1
    return root
