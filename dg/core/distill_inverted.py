"""Distillations whose noise is the picture's own, found by DDIM inversion, instead of a random draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.diffusion import add_noise, ddim_step, guide, per_sample, x0_from_eps
from dg.core.distill import Distillation, Predict, Weighting, guided
from dg.core.distill_guided import both

FIRST = 20  # the timestep at which an inversion starts: there the picture is noised with the given eps


def strided(t: Int[Tensor, B], stride: int) -> list[Int[Tensor, B]]:
    """Ascending timesteps that end at t in steps of `stride` and begin at FIRST, or at a smaller t itself."""
    count = max(-(-(int(t.max()) - FIRST) // stride), 0)
    first = t.clamp(max=FIRST)
    return [torch.maximum(t - stride * k, first) for k in reversed(range(count + 1))]


def divided(t: Int[Tensor, B], num_steps: int) -> list[Int[Tensor, B]]:
    """`num_steps` even steps from FIRST, or a smaller t itself, to t, rounded to whole timesteps."""
    first = t.clamp(max=FIRST)
    return [(first + (t - first) * (k / num_steps)).round().long() for k in range(num_steps + 1)]


def invert(
    predict_eps: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "B C h w"],
    eps: Float[Tensor, "B C h w"],
    timesteps: Sequence[Int[Tensor, B]],
    alpha_bar: Float[Tensor, T],
) -> Float[Tensor, "B C h w"]:
    """DDIM run backwards (Song et al. 2021): from x to its own noisy version at timesteps[-1].

    x is noised with `eps` to timesteps[0], as LucidDreamer's code starts, but at 20 instead of 1: the noise prediction
    for a nearly clean picture divides its error by sqrt(1 - a), which is 0.006 at t = 1 for zero123_mini. Each further
    step takes the prediction where it stands.
    """
    a = per_sample(alpha_bar[timesteps[0]], x)
    x_t = add_noise(x, eps, a)
    for now, after in pairwise(timesteps):
        a_after = per_sample(alpha_bar[after], x)
        x_t, a = ddim_step(x_t, predict_eps(x_t, now), a, a_after), a_after
    return x_t


@dataclass(frozen=True)
class ISM(Distillation):
    """Interval score matching (Liang et al. 2023, LucidDreamer): w(t) (eps_s(x_t) - eps_0(x_s)), s = t - `delta`.

    x_s is the DDIM inversion of x without the condition, and x_t one more such step. w(t) = sqrt((1 - a) / a). Where
    the prior agrees with itself along the path, eps_0(x_t) = eps_0(x_s) and what is left is CSD at the inverted point.

    Attributes:
        delta: the interval in timesteps. LucidDreamer's shrinks from 100 to 80 within its first steps.
        stride: of the inversion, in timesteps.
    """

    weighting: Weighting = "noise_to_signal"
    delta: int = 80
    stride: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delta < 1 or self.stride < 1:
            raise ValueError(f"delta and stride must be at least 1, got {self.delta} and {self.stride}")

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        def uncond(x_t: Tensor, t_: Tensor) -> Tensor:
            return both(predict(x_t, t_), "ism")[1]

        s = torch.maximum(t - self.delta, t.clamp(max=FIRST))
        x_s = invert(uncond, z, eps, strided(s, self.stride), alpha_bar)
        eps_s = uncond(x_s, s)
        x_t = ddim_step(x_s, eps_s, per_sample(alpha_bar[s], z), per_sample(alpha_bar[t], z))
        return guide(*both(predict(x_t, t), "ism"), self.guidance_scale) - eps_s


@dataclass(frozen=True)
class SDI(Distillation):
    """Score distillation via inversion (Lukoianov et al. 2024): the gradient of ||x - stop(x0_hat)||^2.

    x0_hat is the one-step denoising of x_t with guidance s, and x_t the DDIM inversion of x with `inversion_scale`.
    The fresh noise of the paper's inversion (eta = 0.3) is left out.

    Attributes:
        inversion_scale: guidance of the inversion; None is -guidance_scale (7.5 and -7.5 in the paper).
        inversion_steps: of the inversion, however large t is.
    """

    weighting: Weighting = "uniform"
    inversion_scale: float | None = None
    inversion_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inversion_steps < 1:
            raise ValueError(f"inversion_steps must be at least 1, got {self.inversion_steps}")

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        scale = -self.guidance_scale if self.inversion_scale is None else self.inversion_scale
        path = divided(t, self.inversion_steps)
        x_t = invert(lambda x, t_: guided(predict, x, t_, scale), z, eps, path, alpha_bar)
        eps_hat = guided(predict, x_t, t, self.guidance_scale)
        return 2 * (z - x0_from_eps(x_t, eps_hat, per_sample(alpha_bar[t], z)))
