"""Distillation: from a prior's noise prediction to a gradient on the picture.

Each distillation is a frozen dataclass whose `loss(...)` draws nothing itself: noise and timestep are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.diffusion import add_noise, guide, per_sample
from dg.types import Prediction

RELEASE_ELEMENTS = 4 * 32 * 32  # the latent that DreamGaussian's image-to-3D numbers were tuned on

Weighting = Literal["1-alpha_bar", "uniform", "fantasia3d"]
Predict = Callable[[Tensor, Tensor], Prediction]


def weight_of_t(alpha_bar: Tensor, weighting: Weighting) -> Tensor:
    """w(t): "1-alpha_bar" (DreamFusion's sigma squared), "uniform", "fantasia3d" (sqrt(alpha_bar) (1 - alpha_bar))."""
    if weighting == "1-alpha_bar":
        return 1 - alpha_bar
    if weighting == "uniform":
        return torch.ones_like(alpha_bar)
    if weighting == "fantasia3d":
        return alpha_bar.sqrt() * (1 - alpha_bar)
    raise ValueError(f"unknown weighting {weighting!r}; choose 1-alpha_bar, uniform or fantasia3d")


def gradient_as_loss(z: Tensor, grad: Tensor) -> Tensor:
    """A scalar whose derivative with respect to z is `grad`: 1/2 sum (z - stop(z - grad))^2. NaN counts as 0."""
    grad = torch.nan_to_num(grad)
    target = (z - grad).detach()
    return 0.5 * (z.float() - target.float()).square().sum()


@dataclass(frozen=True)
class SDS:
    """Score distillation sampling (Poole et al. 2022): the gradient w(t) (eps_hat - eps) on the picture.

    Attributes:
        guidance_scale: of classifier-free guidance; ignored by priors that answer no unconditional prediction.
        weighting: w(t), see `weight_of_t`.
        scale_to_elements: the sum over a picture's elements is rescaled to this many (4x32x32 in the release), so that
            the other losses' weights and the densification threshold keep their meaning when a prior works on 64^2 or
            256^2 pixels. None leaves the plain sum.
    """

    weight: float = 1.0
    guidance_scale: float = 5.0
    weighting: Weighting = "1-alpha_bar"
    scale_to_elements: int | None = RELEASE_ELEMENTS

    def gradient(
        self,
        predict: Predict,
        z: Float[Tensor, "B C h w"],
        t: Int[Tensor, B],
        eps: Float[Tensor, "B C h w"],
        alpha_bar: Float[Tensor, T],
    ) -> Tensor:
        """dL/dz, without autograd through the prior."""
        with torch.no_grad():
            a = per_sample(alpha_bar.to(t.device)[t], z)
            prediction = predict(add_noise(z, eps, a), t)
            eps_hat = guide(prediction.cond, prediction.uncond, self.guidance_scale)
            grad = self.weight * weight_of_t(a, self.weighting) * (eps_hat - eps)
            if self.scale_to_elements is not None:
                grad = grad * (self.scale_to_elements / z[0].numel())
        return grad

    def loss(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """Scalar; its gradient on z is `gradient(...)` divided by the batch size."""
        return gradient_as_loss(z, self.gradient(predict, z, t, eps, alpha_bar)) / len(z)
