"""Pictures sampled from a prior, from pure noise to the end: what it believes, before any distillation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.diffusion import ddim_step, guide
from dg.priors.protocol import Prior
from dg.types import Condition


@torch.no_grad()
def sample(
    prior: Prior,
    condition: Condition,
    noise: Float[Tensor, "B C h w"],
    *,
    steps: int = 20,
    last: int = 10,
    guidance_scale: float = 1.0,
) -> Float[Tensor, "B C h w"]:
    """Deterministic DDIM (Song et al. 2021), in the space of `prior.encode`.

    Args:
        noise: standard normal; where the way begins.
        steps: predictions, at evenly spaced timesteps from the last one of the schedule down to `last`, whose x_0 is
            the result.
        guidance_scale: 1 is without guidance; without effect on priors that have no unconditional prediction.
    """
    alpha_bar = prior.alpha_bar.to(noise.device)
    times = torch.linspace(len(alpha_bar) - 1, last, steps).long().tolist()
    z = noise
    for t, following in zip(times, [*times[1:], None], strict=True):
        after = alpha_bar[following] if following is not None else alpha_bar.new_ones(())
        said = prior.predict(z, torch.full((len(z),), t, device=z.device), condition)
        eps = said.cond if guidance_scale == 1 else guide(said.cond, said.uncond, guidance_scale)
        z = ddim_step(z, eps, alpha_bar[t], after)
    return z
