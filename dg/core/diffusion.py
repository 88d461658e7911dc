"""The diffusion process: noising, conversions between noise and picture, guidance, deterministic DDIM.

All functions take alpha_bar at the wanted timestep(s) as a tensor that broadcasts against the picture [B C h w].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NUM_TIMESTEPS = 1000


def scaled_linear_alpha_bar(
    num_timesteps: int = NUM_TIMESTEPS, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Float[Tensor, T]:
    """Latent diffusion's schedule: the square roots of the betas are spaced linearly (Rombach et al. 2022)."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B 1 1 1], on the device of `like`."""
    return values.to(like).reshape(-1, *([1] * (like.ndim - 1)))


def add_noise(x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def x0_from_eps(x_t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    return (x_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def eps_from_x0(x_t: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise prediction of a denoiser that answers x0: the exact score of a point."""
    return (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def eps_from_v(x_t: Tensor, v: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise that a velocity v = sqrt(a) eps - sqrt(1 - a) x0 predicts (Salimans and Ho 2022)."""
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * x_t


def guide(cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
    """Classifier-free guidance, uncond + scale (cond - uncond) (Ho and Salimans 2022); the identity without uncond."""
    return cond if uncond is None else uncond + scale * (cond - uncond)


def ddim_timesteps(num_steps: int, num_timesteps: int = NUM_TIMESTEPS, offset: int = 1) -> list[int]:
    """ "Leading" spacing, descending: 50 steps give 981, 961, ..., 1."""
    stride = num_timesteps // num_steps
    return [i * stride + offset for i in reversed(range(num_steps))]


def ddim_step(x_t: Tensor, eps: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> Tensor:
    """One deterministic step (Song et al. 2021, eta = 0) to a smaller timestep."""
    return add_noise(x0_from_eps(x_t, eps, alpha_bar), eps, alpha_bar_next)


def sdedit_start(num_steps: int, t_start_ratio: float) -> int:
    """Index of the first timestep to run.

    `t_start_ratio` is the share of the steps that are run (1 = from pure noise). DreamGaussian's "strength" is
    1 - t_start_ratio, and its release truncates num_steps * strength; the rounding guards against 50 * 0.8 = 39.999.
    """
    return min(int(round(num_steps * (1 - t_start_ratio), 9)), num_steps - 1)


@torch.no_grad()
def sdedit(
    predict_eps: Callable[[Tensor, int], Tensor],
    z: Tensor,
    noise: Tensor,
    alpha_bar: Float[Tensor, T],
    *,
    num_steps: int = 50,
    t_start_ratio: float = 0.2,
    timesteps: Sequence[int] | None = None,
    to_clean: bool = False,
) -> Tensor:
    """Noises `z` to an intermediate timestep and denoises it by DDIM (Meng et al. 2022).

    Args:
        predict_eps: (z_t, t) -> guided noise prediction.
        z: latents [B C h w] to start from.
        noise: standard normal, shaped as z.
        timesteps: descending; default `ddim_timesteps(num_steps)`.
        to_clean: the last step lands on the predicted picture itself. False is the public schedulers'
            (set_alpha_to_one = False): it stops at alpha_bar[0], where 3 % of the noise is left.
    """
    timesteps = ddim_timesteps(num_steps, len(alpha_bar)) if timesteps is None else list(timesteps)
    run = timesteps[sdedit_start(len(timesteps), t_start_ratio) :]
    stride = len(alpha_bar) // len(timesteps)
    z_t = add_noise(z, noise, alpha_bar[run[0]].to(z))
    for t in run:
        eps = predict_eps(z_t, t)
        after = alpha_bar.new_ones(()) if to_clean and t == run[-1] else alpha_bar[max(t - stride, 0)]
        z_t = ddim_step(z_t, eps, alpha_bar[t].to(z), after.to(z))
    return z_t
