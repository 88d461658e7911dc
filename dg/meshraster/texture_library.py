"""Texture look-up on an NVIDIA GPU by nvdiffrast's kernel (Laine et al. 2020), where it is installed.

One kernel each way, instead of eight gathers, their weights and eight scatters (`dg.meshraster.texture.sample_gather`).
Footprint, levels, borders and texel centres mean the same in both.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ROWS = (64, 8, 1)  # pixels side by side: the kernel works on blocks of a picture, and is given a list


@cache
def library() -> Any:
    """nvdiffrast's operations; None where it is not installed or does not work, so that meshes are drawn without it."""
    try:
        import nvdiffrast.torch as dr

        texture, place = (torch.zeros(1, 1, 1, n, device="cuda") for n in (3, 2))
        dr.texture(texture, place, filter_mode="linear")  # some versions are compiled by their first call
    except (ImportError, RuntimeError, OSError):
        return None
    return dr


def usable(texture: Tensor) -> bool:
    return texture.device.type == "cuda" and texture.dtype == torch.float32 and library() is not None


def sample_nvdiffrast(
    levels: list[Float[Tensor, "h w C"]],
    uv: Float[Tensor, "V H W 2"],
    uv_dxy: Float[Tensor, "V H W 4"] | None,
    mask: Bool[Tensor, "V H W"] | None,
) -> Float[Tensor, "V H W C"]:
    """`dg.meshraster.texture.sample`; gradients are added up in no fixed order.

    Args:
        levels: the texture and its mip levels, which are not looked at without `uv_dxy`.
    """
    points = uv.detach().reshape(-1, 2)
    side = next(n for n in ROWS if len(points) % n == 0)
    texture, *mips = (level.contiguous()[None] for level in levels)
    mips = mips if uv_dxy is not None else []
    given: dict[str, Any] = {"filter_mode": "linear"}
    if mips:
        slopes = uv_dxy.detach().to(points).reshape(1, -1, side, 4).contiguous()
        given = {"uv_da": slopes, "mip": mips, "filter_mode": "linear-mipmap-linear"}
    places = points.to(texture).reshape(1, -1, side, 2).contiguous()
    out = library().texture(texture, places, boundary_mode="clamp", **given).reshape(*uv.shape[:-1], -1)
    return out if mask is None else torch.where(mask[..., None], out, 0)
