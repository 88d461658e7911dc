"""The seam between triangles and pixels."""

from typing import Protocol

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
