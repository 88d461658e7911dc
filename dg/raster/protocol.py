"""The seam between Gaussians and pixels."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from dg.types import Cameras, Gaussians, Render


class Rasterizer(Protocol):
    """Renders Gaussians from V views. Every implementation equals `dg.raster.dense` in values and gradients.

    With `absgrad`, `means_px` also gets `.absgrad` [V N 2] in the backward pass: the sum over pixels of the absolute
    values of what each pixel adds to its gradient (AbsGS, arXiv 2404.10484).
    """

    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        background: Float[Tensor, "3"] | Float[Tensor, "V 3"],
        *,
        absgrad: bool = False,
    ) -> Render: ...
