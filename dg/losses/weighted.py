"""What the losses share: a weight, optionally growing with the run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weighted:
    """Attributes:
    weight: of the loss at the end of the run (at every step without `ramp`).
    ramp: the weight grows linearly from 0 with the run's fraction (DreamGaussian's warmup_rgb_loss).
    """

    weight: float = 1.0
    ramp: bool = False

    def weight_at(self, frac: float) -> float:
        return self.weight * frac if self.ramp else self.weight
