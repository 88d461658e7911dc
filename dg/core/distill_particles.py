"""Distillation against the score of what is rendered: it needs a prior that can learn that score beside its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dg.core.diffusion import add_noise, guide, per_sample
from dg.core.distill import Distillation, Predict

PRIORS = "zero123_mini, zero123, stable_zero123, sd, mvdream, imagedream, magic123, point, oracle and silhouette"


def no_adapter(prior: object) -> str:
    """The complaint about a prior that cannot learn."""
    return (
        f"distill=vsd trains an adapter of the prior, and {type(prior).__name__} has none: give it "
        f"trainable_adapter() (docs/distill.md), or choose one of {PRIORS}, or distill=sds"
    )


@dataclass(frozen=True)
class VSD(Distillation):
    """Variational score distillation (Wang et al. 2023, ProlificDreamer): w(t) (eps_s - eps_phi).

    eps_phi is the score of the renders themselves, learnt beside the prior's: phi is an adapter that starts as the
    prior, without guidance, and takes a step down ||eps_phi(x_t, t, c) - eps||^2 after each step of stage 1
    (`dg.stages.own_score`). With one set of Gaussians there is one particle. Where eps_phi were perfect and there were
    one picture for each view, it would be the noise itself, and VSD were SDS.

    Attributes:
        adapter_rank: of its low-rank matrices (4, as ProlificDreamer and diffusers have it).
        adapter_lr: of its Adam; None takes what the adapter proposes (1e-4 for networks).
        adapter_t_min, adapter_t_max: shares of the schedule between which the adapter's own t is drawn, uniformly.
    """

    adapter_rank: int = 4
    adapter_lr: float | None = None
    adapter_t_min: float = 0.02
    adapter_t_max: float = 0.98

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter_rank < 1 or (self.adapter_lr is not None and self.adapter_lr <= 0):
            raise ValueError(
                f"adapter_rank={self.adapter_rank} must be at least 1, adapter_lr={self.adapter_lr} positive or null"
            )
        if not 0 <= self.adapter_t_min < self.adapter_t_max <= 1:
            raise ValueError(
                f"adapter_t_min={self.adapter_t_min:g} adapter_t_max={self.adapter_t_max:g} must be two shares of the "
                "schedule, the first one smaller"
            )

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        prediction = predict(add_noise(z, eps, per_sample(alpha_bar[t], z)), t)
        if prediction.own is None:
            raise ValueError("distill=vsd needs a prediction with the renders' own score (Prediction.own)")
        return guide(prediction.cond, prediction.uncond, self.guidance_scale) - prediction.own

    def trained_at(self, draw: torch.Generator, num_timesteps: int) -> int:
        """The timestep of one step of the adapter."""
        lo, hi = round(self.adapter_t_min * num_timesteps), round(self.adapter_t_max * num_timesteps)
        return int(torch.randint(lo, max(hi, lo + 1), (), generator=draw))
