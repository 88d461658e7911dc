"""The seam between triangles and pixels."""

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.types import Fragments


class MeshRasterizer(Protocol):
    """Finds the nearest face in each pixel; both sides of a face are drawn.

    Args:
        clip: homogeneous clip coordinates [V P 4] (`dg.core.camera.clip_from_world`); w is the view depth, row 0 of the
            picture is at y = -1, pixel centres are at +0.5.
        faces: [F 3] vertex indices.
        size: (height, width).
    """

    def __call__(self, clip: Float[Tensor, "V P 4"], faces: Int[Tensor, "F 3"], size: tuple[int, int]) -> Fragments: ...


def check_triangles(clip: Tensor, faces: Tensor) -> None:
    """What every rasteriser of ours is asked to draw; waits for the device once.

    Raises:
        ValueError: wrong shapes, or faces with indices that no vertex has.
    """
    if clip.ndim != 3 or clip.shape[-1] != 4 or faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"clip must be [V P 4] and faces [F 3], got {tuple(clip.shape)} and {tuple(faces.shape)}")
    if len(faces):
        least, most = torch.stack(faces.long().aminmax()).tolist()
        if least < 0 or most >= clip.shape[1]:
            raise ValueError(f"faces refer to vertices outside 0..{clip.shape[1] - 1}")
