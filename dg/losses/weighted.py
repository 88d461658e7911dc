"""What the losses of stage 1 share: a weight that may grow with the run, and what each kind of loss looks at.

A loss is one of three kinds, which the stage tells apart by their class: it compares the known view, judges the
Gaussians themselves, or judges the render of the novel view that the prior is shown in the same step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dg.types import Cameras, Gaussians, Render


@dataclass(frozen=True)
class Weighted:
    """Attributes:
    weight: of the loss at the end of the run (at every step without `ramp`). At 0 the loss is not computed.
    ramp: the weight grows linearly from 0 with the run's fraction (DreamGaussian's warmup_rgb_loss).
    """

    weight: float = 1.0
    ramp: bool = False

    def weight_at(self, frac: float) -> float:
        return self.weight * frac if self.ramp else self.weight


@dataclass(frozen=True)
class Target:
    """The reference pictures at the size at which they are compared, on white."""

    rgb: Float[Tensor, "R H W 3"]
    alpha: Float[Tensor, "R H W 1"]


@dataclass(frozen=True)
class KnownViewLoss(Weighted, ABC):
    """Compares the render of the known views with the reference. Not computed where a run has no reference."""

    @abstractmethod
    def __call__(self, render: Render, target: Target) -> Tensor: ...


@dataclass(frozen=True)
class SplatLoss(Weighted, ABC):
    """Judges the Gaussians themselves, whatever they look like."""

    @abstractmethod
    def __call__(self, gaussians: Gaussians) -> Tensor: ...


@dataclass(frozen=True)
class NovelViewLoss(Weighted, ABC):
    """Judges the render of the step's novel views."""

    @abstractmethod
    def __call__(self, render: Render, cameras: Cameras) -> Tensor: ...
