"""Distillation: from a prior's noise prediction to a gradient on the picture.

Each distillation is a frozen dataclass whose `loss(...)` draws nothing itself: noise and timestep are arguments. They
differ in one method, `direction`; weight, w(t), scale and the surrogate loss are written once, in `Distillation`.
Notation: x the picture, x_t = sqrt(a) x + sqrt(1 - a) eps with a = alpha_bar[t], eps_y and eps_0 the predictions with
and without the condition, eps_s = eps_0 + s (eps_y - eps_0). Here: what needs one prediction, guided or not. What needs
both predictions is in `distill_guided`, what inverts the picture in `distill_inverted`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.diffusion import add_noise, ddim_step, guide, per_sample, x0_from_eps
from dg.types import Prediction

RELEASE_ELEMENTS = 4 * 32 * 32  # the latent that DreamGaussian's image-to-3D numbers were tuned on

Weighting = Literal["1-alpha_bar", "uniform", "fantasia3d", "noise_to_signal"]
Predict = Callable[[Tensor, Tensor], Prediction]


def weight_of_t(alpha_bar: Tensor, weighting: Weighting) -> Tensor:
    """w(t): "1-alpha_bar" (DreamFusion's sigma squared), "uniform", "fantasia3d" (sqrt(alpha_bar) (1 - alpha_bar)),
    "noise_to_signal" (sqrt((1 - alpha_bar) / alpha_bar), LucidDreamer's)."""
    if weighting == "1-alpha_bar":
        return 1 - alpha_bar
    if weighting == "uniform":
        return torch.ones_like(alpha_bar)
    if weighting == "fantasia3d":
        return alpha_bar.sqrt() * (1 - alpha_bar)
    if weighting == "noise_to_signal":
        return ((1 - alpha_bar) / alpha_bar).sqrt()
    raise ValueError(f"unknown weighting {weighting!r}; choose 1-alpha_bar, uniform, fantasia3d or noise_to_signal")


def gradient_as_loss(z: Tensor, grad: Tensor) -> Tensor:
    """A scalar whose derivative with respect to z is `grad`: 1/2 sum (z - stop(z - grad))^2. NaN counts as 0."""
    grad = torch.nan_to_num(grad)
    target = (z - grad).detach()
    return 0.5 * (z.float() - target.float()).square().sum()


def silhouette_weight(
    alpha: Float[Tensor, "B 1 H W"], size: tuple[int, int], grow: float, outside: float
) -> Float[Tensor, "B 1 h w"]:
    """What a masked distillation multiplies its gradient by: 1 where the silhouette grown by `grow` is, else `outside`.

    Soft where alpha is soft, as the soft-masked SDS of RoMaP (Kim et al. 2025, arXiv 2507.11061), whose mask is that of
    a part to be edited; here it is the render's own.

    Args:
        alpha: of the render, in [0, 1], at its own size.
        size: (h, w) of the space that the prior diffuses in. Any covered pixel covers its cell.
        grow: by how much the silhouette is dilated (a square), as a share of the picture's side.
    """
    larger = alpha.shape[-2] >= size[0] and alpha.shape[-1] >= size[1]
    covered = F.adaptive_max_pool2d(alpha, size) if larger else F.interpolate(alpha, size, mode="nearest")
    radius = round(grow * size[0])
    if radius > 0:
        covered = F.max_pool2d(covered, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
        covered = F.max_pool2d(covered, (1, 2 * radius + 1), stride=1, padding=(0, radius))
    return outside + (1 - outside) * covered.clamp(0, 1)


@dataclass(frozen=True)
class Distillation(ABC):
    """What all distillations share.

    Attributes:
        guidance_scale: of classifier-free guidance; ignored by priors that answer no unconditional prediction.
        weighting: w(t), see `weight_of_t`.
        scale_to_elements: the sum over a picture's elements is rescaled to this many (4x32x32 in the release), so that
            the other losses' weights and the densification threshold keep their meaning when a prior works on 64^2 or
            256^2 pixels. None leaves the plain sum.
        mask: limits the gradient to the rendered silhouette, grown by this share of the picture's side; None: no limit.
        outside: what is left of the gradient beyond that (`silhouette_weight`).
    """

    weight: float = 1.0
    guidance_scale: float = 5.0
    weighting: Weighting = "1-alpha_bar"
    scale_to_elements: int | None = RELEASE_ELEMENTS
    mask: float | None = None
    outside: float = 0.0

    def __post_init__(self) -> None:
        if self.mask is not None and not 0 <= self.mask < 1:
            raise ValueError(f"mask={self.mask:g} must be a share of the picture's side in [0, 1), or null for none")
        if not 0 <= self.outside <= 1:
            raise ValueError(f"outside={self.outside:g} must be in [0, 1]")

    @abstractmethod
    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """The gradient on z [B C h w] before w(t), weight and scale; called without autograd.

        Args:
            alpha_bar: the whole schedule [T], on the device of t.
        """

    def gradient(
        self,
        predict: Predict,
        z: Float[Tensor, "B C h w"],
        t: Int[Tensor, B],
        eps: Float[Tensor, "B C h w"],
        alpha_bar: Float[Tensor, T],
        silhouette: Float[Tensor, "B 1 H W"] | None = None,
    ) -> Tensor:
        """dL/dz, without autograd through the prior.

        Args:
            silhouette: the render's alpha; only `mask` looks at it.

        Raises:
            ValueError: there is a `mask` and no silhouette.
        """
        with torch.no_grad():
            alpha_bar = alpha_bar.to(t.device)
            weight = self.weight * weight_of_t(per_sample(alpha_bar[t], z), self.weighting)
            grad = weight * self.direction(predict, z, t, eps, alpha_bar)
            if self.scale_to_elements is not None:
                grad = grad * (self.scale_to_elements / z[0].numel())
            if self.mask is not None:
                if silhouette is None:
                    raise ValueError("distill.mask needs the render's silhouette, and none was given")
                shape = (z.shape[-2], z.shape[-1])
                grad = grad * silhouette_weight(silhouette.to(grad), shape, self.mask, self.outside)
        return grad

    def loss(
        self,
        predict: Predict,
        z: Tensor,
        t: Tensor,
        eps: Tensor,
        alpha_bar: Tensor,
        silhouette: Float[Tensor, "B 1 H W"] | None = None,
    ) -> Tensor:
        """Scalar; its gradient on z is `gradient(...)` divided by the batch size."""
        return gradient_as_loss(z, self.gradient(predict, z, t, eps, alpha_bar, silhouette)) / len(z)


def guided(predict: Predict, z_t: Tensor, t: Tensor, scale: float) -> Tensor:
    """eps_s at z_t."""
    prediction = predict(z_t, t)
    return guide(prediction.cond, prediction.uncond, scale)


@dataclass(frozen=True)
class SDS(Distillation):
    """Score distillation sampling (Poole et al. 2022): w(t) (eps_s - eps)."""

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        a = per_sample(alpha_bar[t], z)
        return guided(predict, add_noise(z, eps, a), t, self.guidance_scale) - eps


@dataclass(frozen=True)
class SJC(Distillation):
    """Score Jacobian chaining (Wang et al. 2022): the score of the picture perturbed by sigma = sqrt((1 - a) / a).

    With y = x + sigma eps and the denoiser D(y) = y - sigma eps_s(y / sqrt(1 + sigma^2)) it is -(D - x) / sigma, or
    -(D - y) / sigma with `variance_reduced=False`. The first is eps_s - eps: SDS with w(t) = 1. The second keeps the
    noise, eps_s: the same on average, and the noise of every step ends in the picture.
    """

    weighting: Weighting = "uniform"
    variance_reduced: bool = True

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        a = per_sample(alpha_bar[t], z)
        sigma = ((1 - a) / a).sqrt()
        y = z + sigma * eps
        denoised = y - sigma * guided(predict, y / (1 + sigma**2).sqrt(), t, self.guidance_scale)
        return ((z if self.variance_reduced else y) - denoised) / sigma


@dataclass(frozen=True)
class X0(Distillation):
    """Reconstruction: the gradient of ||x - stop(x0_hat)||^2, x0_hat = (x_t - sqrt(1 - a) eps_s) / sqrt(a).

    x - x0_hat = sqrt((1 - a) / a) (eps_s - eps), so it is SDS with w(t) = 2 sqrt((1 - a) / a) times `weighting`: the
    image-space term of HiFA (Zhu et al. 2023), in the prior's space.

    Attributes:
        steps: predictions on the way from x_t to x0_hat, by DDIM at evenly spaced timesteps. One gives the mean of all
            pictures that could be behind x_t; several end near one of them, sharper (as SparseFusion, 2212.00792).
    """

    weighting: Weighting = "uniform"
    steps: int = 1

    def direction(self, predict: Predict, z: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        a = per_sample(alpha_bar[t], z)
        z_t = add_noise(z, eps, a)
        for left in range(self.steps - 1, 0, -1):
            t_next = (t * left).div(left + 1, rounding_mode="floor")
            a_next = per_sample(alpha_bar[t_next], z)
            z_t = ddim_step(z_t, guided(predict, z_t, t, self.guidance_scale), a, a_next)
            t, a = t_next, a_next
        return 2 * (z - x0_from_eps(z_t, guided(predict, z_t, t, self.guidance_scale), a))
