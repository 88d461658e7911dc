"""Priors whose score is known: the data is one picture per view, so the noise prediction follows from it exactly.

For a point mass at x*, E[x0 | z_t] = x* at every noise level, hence eps(z_t, t) = (z_t - sqrt(a) x*) / sqrt(1 - a) with
a = alpha_bar[t]. With such a prior the noise cancels out of score distillation: its gradient is
w(t) sqrt(a / (1 - a)) (x - x*).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.camera import spherical
from dg.core.diffusion import eps_from_x0, per_sample, scaled_linear_alpha_bar
from dg.core.rng import generator
from dg.priors.offset import OffsetAdapter
from dg.types import Cameras, Condition, Prediction, Reference


def resize_square(rgb: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 size size"]:
    """To size x size without aliasing; differentiable."""
    height, width = rgb.shape[-2:]
    if (height, width) == (size, size):
        return rgb
    if height % size == 0 and width % size == 0:
        return F.interpolate(rgb, (size, size), mode="area")
    return F.interpolate(rgb, (size, size), mode="bilinear", align_corners=False, antialias=True)


class ExactScore(ABC):
    """A pixel-space prior that answers the exact score of `target(condition)`.

    Args:
        image_size: side of the pictures compared.
        blur_px: standard deviation of a Gaussian blur of x*, a known bias (what small priors do to detail).
        noise: standard deviation of an error added to the answered picture, fixed per view and timestep (what priors
            do that do not agree with themselves between steps).
        seed: of that error.
        unconditional_std: without the condition, every value of a picture is taken to be normal around 1/2 with this
            standard deviation, independently: the prediction that guidance compares with. None: there is none.
    """

    views_per_sample = 1

    def __init__(
        self,
        *,
        image_size: int = 128,
        blur_px: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        unconditional_std: float | None = None,
    ) -> None:
        if unconditional_std is not None and unconditional_std <= 0:
            raise ValueError(f"prior.unconditional_std={unconditional_std:g} must be positive, or null for none")
        self.image_size = image_size
        self.blur_px = blur_px
        self.noise = noise
        self.seed = seed
        self.unconditional_std = unconditional_std
        self.alpha_bar = scaled_linear_alpha_bar()

    @abstractmethod
    def target(self, reference: Reference | None, cameras: Cameras, background: Tensor) -> Float[Tensor, "B 3 h w"]:
        """x* for every view, on its background."""

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        x0 = self.target(reference, cameras, background)
        if self.blur_px > 0:
            x0 = gaussian_blur(x0, self.blur_px)
        return Condition(cameras, background, x0)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        return resize_square(rgb, self.image_size)

    def decode(self, z: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        return z.clamp(0, 1)

    def predict(self, z_t: Float[Tensor, "B 3 h w"], t: Int[Tensor, B], cond: Condition) -> Prediction:
        x0 = self.believed(cond.extra.to(z_t), t, cond)
        a = per_sample(self.alpha_bar.to(t.device)[t], z_t)
        return Prediction(eps_from_x0(z_t, x0, a), self._unconditional(z_t, a))

    def believed(self, x0: Float[Tensor, "B 3 h w"], t: Int[Tensor, B], cond: Condition) -> Float[Tensor, "B 3 h w"]:
        """The picture that is answered at t: x0 and that view's error."""
        return x0 + self.noise * self._error(x0, t, cond.cameras) if self.noise > 0 else x0

    def _unconditional(self, z_t: Tensor, a: Tensor) -> Tensor | None:
        """The exact prediction for normal data of mean 1/2: sqrt(1 - a) (z_t - sqrt(a) / 2) / (a s^2 + 1 - a)."""
        if self.unconditional_std is None:
            return None
        return (1 - a).sqrt() * (z_t - a.sqrt() / 2) / (a * self.unconditional_std**2 + 1 - a)

    def trainable_adapter(self, draw: torch.Generator, rank: int) -> OffsetAdapter:
        """An offset of x*; nothing of it is drawn, and it has no rank."""
        return OffsetAdapter(self.alpha_bar, self.image_size)

    def _error(self, like: Tensor, t: Tensor, cameras: Cameras) -> Tensor:
        elevation, azimuth, _ = spherical(cameras)
        draws = [
            torch.randn(like.shape[1:], generator=generator(self.seed, f"error/{e:.2f}/{a:.2f}", int(step)))
            for e, a, step in zip(elevation.tolist(), azimuth.tolist(), t.tolist(), strict=True)
        ]
        return torch.stack(draws).to(like)


def gaussian_blur(picture: Float[Tensor, "B C H W"], sigma_px: float) -> Float[Tensor, "B C H W"]:
    """Separable, cut off at 3 sigma, edges repeated."""
    radius = max(1, round(3 * sigma_px))
    x = torch.arange(-radius, radius + 1, dtype=picture.dtype, device=picture.device)
    kernel = torch.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    channels = picture.shape[1]
    for axis in (2, 3):
        shape = [1, 1, 1, 1]
        shape[axis] = len(kernel)
        pad = [0, 0, radius, radius] if axis == 2 else [radius, radius, 0, 0]
        weight = kernel.reshape(shape).expand(channels, 1, *shape[2:])
        picture = F.conv2d(F.pad(picture, pad, mode="replicate"), weight, groups=channels)
    return picture
