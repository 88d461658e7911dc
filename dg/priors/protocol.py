"""The seam between pictures and a diffusion prior. A prior only predicts noise; what becomes of it is in `dg.core`."""

from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

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


class Adapter(Protocol):
    """What `Learns.trainable_adapter` gives: a change of a prior that can be trained; a `torch.nn.Module`.

    Its parameters and buffers are the change alone, so its state_dict is what a checkpoint has to keep.
    """

    lr: float  # that suits Adam

    def predict(self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], cond: Condition) -> Tensor:
        """The changed conditional noise prediction [B C h w], differentiable in the parameters."""
        ...

    def parameters(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...

    def to(self, device: torch.device) -> nn.Module: ...


class Learns(Protocol):
    """What a prior may offer besides `Prior`; `distill=vsd` needs it."""

    def trainable_adapter(self, draw: torch.Generator, rank: int) -> Adapter:
        """An adapter that predicts as the prior does until it is trained; the prior itself never changes.

        Args:
            draw: of its first values, on the CPU.
            rank: of low-rank matrices, where it has any.
        """
        ...
