"""Pictures as tensors: [H W C] float in [0, 1], sRGB values, row 0 at the top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dg.io.files import atomic


def to_uint8(picture: Float[Tensor, "*batch H W C"]) -> UInt8[np.ndarray, "*batch H W C"]:
    """Clamped and rounded (not cut off) to bytes."""
    return (picture.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def write_png(path: Path, picture: Float[Tensor, "H W C"]) -> None:
    """1, 3 or 4 channels. Complete or absent."""
    array = to_uint8(picture)
    with atomic(path) as temporary:
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(temporary)


def read_png(path: Path) -> Float[Tensor, "H W C"]:
    """RGB or RGBA as the file has it; grey and palette pictures become RGB (RGBA with transparency)."""
    with Image.open(path) as image:
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        return torch.from_numpy(np.asarray(image.convert("RGBA" if has_alpha else "RGB"), dtype=np.float32) / 255)
