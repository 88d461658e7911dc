"""Pictures of data sets and of other people's methods, brought to one size and one background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dg.core.picture import over
from dg.io.images import read_png
from dg.types import Cameras


def resized(picture: Float[Tensor, "h w C"], size: tuple[int, int]) -> Float[Tensor, "H W C"]:
    """Area means where it shrinks, bilinear where it grows. Alpha must be premultiplied, or there must be none."""
    if picture.shape[:2] == size:
        return picture
    batch = picture.permute(2, 0, 1)[None]
    shrinks = picture.shape[0] >= size[0] and picture.shape[1] >= size[1]
    batch = F.interpolate(batch, size, mode="area") if shrinks else F.interpolate(batch, size, mode="bilinear")
    return batch[0].permute(1, 2, 0)


def shrunk(picture: Float[Tensor, "h w C"], size: tuple[int, int]) -> Float[Tensor, "H W C"]:
    """`resized`, for straight alpha: what is transparent lends no colour."""
    if picture.shape[-1] != 4:
        return resized(picture, size)
    rgb, alpha = picture.split([3, 1], -1)
    rgb, alpha = resized(torch.cat([rgb * alpha, alpha], -1), size).split([3, 1], -1)
    return torch.cat([(rgb / alpha.clamp_min(1e-6)).clamp(0, 1), alpha], -1)


def stacked(
    pictures: Sequence[Float[Tensor, "h w C"]], size: tuple[int, int], background: float
) -> tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W 1"] | None]:
    """Many on one grey value and at one size; alpha only if every picture has one."""
    rgb, alphas = [], []
    for picture in pictures:
        if picture.shape[-1] == 4:
            alphas.append(resized(picture[..., 3:], size))
            picture = over(picture[None], background)[0]
        rgb.append(resized(picture, size))
    return torch.stack(rgb), torch.stack(alphas) if len(alphas) == len(pictures) else None


def read(path: Path) -> Float[Tensor, "h w C"]:
    """A PNG file.

    Raises:
        ValueError: it is damaged; names it.
    """
    try:
        return read_png(path)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: cannot be read as a picture: {error}") from None


def read_views(
    paths: Sequence[Path], cameras: Cameras, background: float
) -> tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W 1"] | None]:
    """PNG files at the cameras' size on a grey value."""
    return stacked([read(path) for path in paths], (cameras.height, cameras.width), background)
