"""Schedules: functions of the run's fraction `frac` in [0, 1] (step / iters), so that they stretch with the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


def log_linear(u: float, start: float, end: float) -> float:
    """From `start` to `end` along a straight line in the logarithm; u is clipped to [0, 1] (3DGS's position lr)."""
    u = min(max(u, 0.0), 1.0)
    return math.exp((1 - u) * math.log(start) + u * math.log(end))


def t_bounds(num_timesteps: int, t_min: float, t_max: float) -> tuple[int, int]:
    return int(t_min * num_timesteps), int(t_max * num_timesteps)


@dataclass(frozen=True)
class LinearAnneal:
    """t falls linearly from T to 0, clipped to [t_min T, t_max T]: DreamGaussian's default."""

    t_min: float = 0.02
    t_max: float = 0.98

    def __call__(self, frac: float, generator: torch.Generator, num_timesteps: int) -> int:
        lo, hi = t_bounds(num_timesteps, self.t_min, self.t_max)
        return min(max(round((1 - frac) * num_timesteps), lo), hi)


@dataclass(frozen=True)
class SqrtAnneal:
    """t falls with the square root of the fraction from t_max to t_min (HiFA, Zhu et al. 2023)."""

    t_min: float = 0.02
    t_max: float = 0.98

    def __call__(self, frac: float, generator: torch.Generator, num_timesteps: int) -> int:
        lo, hi = t_bounds(num_timesteps, self.t_min, self.t_max)
        return round(hi - (hi - lo) * math.sqrt(frac))


@dataclass(frozen=True)
class UniformAnneal:
    """No annealing: t is uniform in [t_min T, t_max T], both ends included (DreamFusion)."""

    t_min: float = 0.02
    t_max: float = 0.98

    def __call__(self, frac: float, generator: torch.Generator, num_timesteps: int) -> int:
        lo, hi = t_bounds(num_timesteps, self.t_min, self.t_max)
        return int(torch.randint(lo, hi + 1, (), generator=generator))


@dataclass(frozen=True)
class ResolutionRamp:
    """Side of the square novel views: sizes[i] until `boundaries[i]`, the last size to the end.

    DreamGaussian: 128 below 30 % of the steps, 256 below 60 %, then 512; the known view is compared at 256.
    """

    sizes: Sequence[int] = (128, 256, 512)
    boundaries: Sequence[float] = (0.3, 0.6)
    reference: int = 256

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.boundaries) + 1:
            raise ValueError(
                f"resolution: {len(self.sizes)} sizes need {len(self.sizes) - 1} boundaries, got {len(self.boundaries)}"
            )
        if list(self.boundaries) != sorted(self.boundaries) or any(not 0 <= b <= 1 for b in self.boundaries):
            raise ValueError(f"resolution: boundaries must ascend within [0, 1], got {list(self.boundaries)}")

    def __call__(self, frac: float) -> int:
        for size, boundary in zip(self.sizes, self.boundaries, strict=False):
            if frac < boundary:
                return size
        return self.sizes[-1]
