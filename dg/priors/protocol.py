"""The seam between pictures and a diffusion prior. A prior only predicts noise; what becomes of it is in `dg.core`."""

from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

from dg.types import Cameras, Condition, Prediction, Reference


class Prior(Protocol):
    alpha_bar: Float[Tensor, "T"]  # cumulative product of 1 - beta
    image_size: int  # side of the square picture that encode resizes to
    views_per_sample: int  # 1, or 4 for the multi-view priors

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """Prepares one batch: B cameras, and what lies behind the render."""
        ...

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Pictures in [0, 1] to the space the prior diffuses in; differentiable."""
        ...

    def decode(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]: ...

    def predict(self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], cond: Condition) -> Prediction: ...
