"""Noise levels as s / a, so that schedules with other shifts are asked the same questions."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

RATIOS = (0.65, 1.45, 2.8, 6.2, 12.7)  # t = 200, 400, 600, 800, 900 of the shipped schedule, roughly


def alpha_bar_at(ratio: float) -> float:
    """a^2 of the level with s / a = ratio, where a^2 + s^2 = 1."""
    return 1 / (1 + ratio * ratio)


def step_at(alpha_bar: Float[Tensor, T], ratio: float) -> float:
    """The step t, not rounded, at which a schedule has this s / a; between steps, log(s / a) is taken as linear.

    Raises:
        ValueError: the schedule never has it.
    """
    levels = alpha_bar.double().cpu()
    log_ratio = 0.5 * torch.log((1 - levels) / levels)
    if not float(log_ratio[0]) <= np.log(ratio) <= float(log_ratio[-1]):
        low, high = float(log_ratio[0].exp()), float(log_ratio[-1].exp())
        raise ValueError(f"s / a = {ratio:g} is outside of the schedule, which goes from {low:.3g} to {high:.3g}.")
    return float(np.interp(np.log(ratio), log_ratio.numpy(), np.arange(len(levels))))
