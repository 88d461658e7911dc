"""Schedules: functions of the run's fraction `frac` in [0, 1] (step / iters), so that they stretch with the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.diffusion import scaled_linear_alpha_bar


def log_linear(u: float, start: float, end: float) -> float:
    """From `start` to `end` along a straight line in the logarithm; u is clipped to [0, 1] (3DGS's position lr)."""
    u = min(max(u, 0.0), 1.0)
    return math.exp((1 - u) * math.log(start) + u * math.log(end))


def t_bounds(num_timesteps: int, t_min: float, t_max: float) -> tuple[int, int]:
    return int(t_min * num_timesteps), int(t_max * num_timesteps)


@dataclass(frozen=True)
class LinearAnneal:
    """t falls linearly from T to 0, clipped to [t_min T, t_max T]: DreamGaussian's default.

    Attributes:
        until: the fraction of the run at which the line reaches 0; beyond 1, the run ends on the way down.
    """

    t_min: float = 0.02
    t_max: float = 0.98
    until: float = 1.0

    def __post_init__(self) -> None:
        if self.until <= 0:
            raise ValueError(f"until={self.until} must be a positive share of the run")

    def __call__(self, frac: float, generator: torch.Generator, num_timesteps: int) -> int:
        lo, hi = t_bounds(num_timesteps, self.t_min, self.t_max)
        return min(max(round((1 - frac / self.until) * num_timesteps), lo), hi)


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
class ConstantAnneal:
    """One noise level for the whole run: int(t T)."""

    t: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.t < 1:
            raise ValueError(f"t is a share of the timesteps in [0, 1), not {self.t}")

    def __call__(self, frac: float, generator: torch.Generator, num_timesteps: int) -> int:
        return int(self.t * num_timesteps)


@dataclass(frozen=True)
class DreamTimeAnneal:
    """t falls along the quantiles of a weight W(t): fast where W is small (DreamTime, Huang et al. 2023).

    t(frac) is the t whose upper tail sum_{u >= t} W(u) is nearest to frac, with W normalised over [t_min T, t_max T].
    W(t) = W_d(t) W_p(t): W_d = sqrt((1 - alpha_bar) / alpha_bar) and W_p = 1 between m2 and m1, a Gaussian flank of
    width s1 above and of s2 below. alpha_bar is latent diffusion's whatever the prior's, for m and s belong to it.

    Attributes:
        m1, m2, s1, s2: in timesteps of 1000; the paper's numbers.
    """

    t_min: float = 0.02
    t_max: float = 0.98
    m1: float = 800
    m2: float = 500
    s1: float = 300
    s2: float = 100

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max <= 1:
            raise ValueError(f"t_min and t_max must ascend within [0, 1], got {self.t_min} and {self.t_max}")
        if self.m2 > self.m1 or min(self.s1, self.s2) <= 0:
            raise ValueError(f"m2={self.m2} must not exceed m1={self.m1}, and s1={self.s1}, s2={self.s2} be positive")

    def __call__(self, frac: float, generator: torch.Generator, num_timesteps: int) -> int:
        lo, hi = t_bounds(num_timesteps, self.t_min, self.t_max)
        ts = torch.arange(lo, min(hi, num_timesteps - 1) + 1)
        weight = self.weight(ts, num_timesteps)
        tail = weight.flip(0).cumsum(0).flip(0) / weight.sum()
        return int(ts[(tail - frac).abs().argmin()])

    def weight(self, ts: Int[Tensor, N], num_timesteps: int) -> Float[Tensor, N]:
        """W(t), not normalised."""
        a = scaled_linear_alpha_bar(num_timesteps).double()[ts]
        u = ts.double() * (1000 / num_timesteps)
        above, below = (u - self.m1).clamp(min=0) / self.s1, (self.m2 - u).clamp(min=0) / self.s2
        return ((1 - a) / a).sqrt() * torch.exp(-0.5 * (above**2 + below**2))


@dataclass(frozen=True)
class ShrinkingIntervalAnneal:
    """t is uniform in an interval whose ends move linearly over the run (Vista3D, Shen et al. 2024).

    Between `linear` (an interval of one t) and `uniform` (one that stays). The four ends are ours: the interval begins
    with the upper half and shrinks to a sixth of its width at the bottom.
    """

    t_min: float = 0.5
    t_max: float = 0.98
    t_min_end: float = 0.02
    t_max_end: float = 0.1

    def __post_init__(self) -> None:
        for lo, hi in ((self.t_min, self.t_max), (self.t_min_end, self.t_max_end)):
            if not 0 <= lo <= hi < 1:
                raise ValueError(f"the interval's ends must ascend within [0, 1), got {lo} and {hi}")

    def __call__(self, frac: float, generator: torch.Generator, num_timesteps: int) -> int:
        lo = round((self.t_min + (self.t_min_end - self.t_min) * frac) * num_timesteps)
        hi = round((self.t_max + (self.t_max_end - self.t_max) * frac) * num_timesteps)
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
