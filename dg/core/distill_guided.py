"""Distillations from the difference that the condition makes: they need a prior that also answers without it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dg.core.diffusion import add_noise, per_sample
from dg.core.distill import Distillation, Predict
from dg.types import Prediction


def both(prediction: Prediction, name: str) -> tuple[Tensor, Tensor]:
    """(eps_y, eps_0).

    Raises:
        ValueError: the prior has no unconditional prediction; names the mend.
    """
    if prediction.uncond is None:
        raise ValueError(
            f"distill={name} compares the prediction with and without the condition, and this prior answers only the "
            "first: choose distill=sds, sjc, x0 or sdi, prior=sd, zero123 or stable_zero123, or "
            "prior.unconditional=true with prior=zero123_mini"
        )
    return prediction.cond, prediction.uncond


@dataclass(frozen=True)
class CSD(Distillation):
    """Classifier score distillation (Yu et al. 2023), its pure form: w(t) s (eps_y - eps_0), at x_t.

    It is what guidance adds to SDS: SDS at s equals SDS at 0 plus this. The sampled noise does not enter the gradient,
    and neither does what the prior knows without the condition, so the picture overshoots: see docs/distill.md. The
    paper's third prediction, a negative prompt's, is left out.
    """

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        z_t = add_noise(z, eps, per_sample(alpha_bar[t], z))
        cond, uncond = both(predict(z_t, t), "csd")
        return self.guidance_scale * (cond - uncond)


@dataclass(frozen=True)
class NFSD(Distillation):
    """Noise-free score distillation (Katzir et al. 2023): w(t) (delta_D + s (eps_y - eps_0)).

    delta_D = eps_0 for t < `domain_below` T, where the prediction is taken to be the domain's correction alone, and
    eps_0 - eps_negative above. A prior answers two predictions: eps_negative is taken to be eps_0 (a negative
    prompt is what a text prior's eps_0 is made of), and delta_D is 0 there.

    Attributes:
        domain_below: share of T; 200 of 1000 in the paper.
    """

    domain_below: float = 0.2

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        z_t = add_noise(z, eps, per_sample(alpha_bar[t], z))
        cond, uncond = both(predict(z_t, t), "nfsd")
        low = per_sample(t < self.domain_below * len(alpha_bar), z).bool()
        domain = torch.where(low, uncond, torch.zeros_like(uncond))
        return domain + self.guidance_scale * (cond - uncond)
