"""`point`: every view's data is the reference picture. The prior for which score distillation has a closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.picture import over
from dg.priors.exact import ExactScore, resize_square
from dg.types import Cameras, Reference


class PointPrior(ExactScore):
    """x* is one picture, whatever the view: `target_rgb` [3 h w], or the reference on the asked background.

    The exact prior of a thing that looks the same from everywhere; useful for tests, and as the Janus problem at its
    purest.
    """

    def __init__(
        self,
        *,
        target_rgb: Float[Tensor, "3 h w"] | None = None,
        image_size: int = 128,
        blur_px: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        unconditional_std: float | None = None,
    ) -> None:
        super().__init__(
            image_size=image_size, blur_px=blur_px, noise=noise, seed=seed, unconditional_std=unconditional_std
        )
        self._target_rgb = target_rgb

    def target(self, reference: Reference | None, cameras: Cameras, background: Tensor) -> Float[Tensor, "B 3 h w"]:
        if self._target_rgb is not None:
            picture = self._target_rgb[None].to(background.device).expand(len(cameras), -1, -1, -1)
        elif reference is not None:
            picture = over(reference.rgba[:1].to(background), background[:, None, None]).permute(0, 3, 1, 2)
        else:
            raise ValueError("prior=point needs input=PICTURE: its data is that picture")
        return resize_square(picture.to(torch.float32), self.image_size)
