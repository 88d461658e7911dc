"""What priors share that diffuse in the latent of Stable Diffusion's autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dg.priors.exact import resize_square
from dg.priors.graphs import Compile, accelerated


class LatentPictures:
    """`encode` and `decode` of `dg.priors.protocol.Prior`, by a diffusers AutoencoderKL.

    Attributes:
        vae: frozen, on `device`, in `dtype`.
        image_size: pictures are resized to this; the latents are 8 times smaller.
        compile: how the networks run (`dg.priors.graphs.checked_mode`).
    """

    views_per_sample = 1
    vae: Any
    image_size: int
    device: torch.device
    dtype: torch.dtype
    compile: Compile = "none"

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 4 h w"]:
        """The posterior's mode times the scaling factor (the release draws a sample; the mode is without noise)."""
        return self._encoder(resize_square(rgb, self.image_size).to(self.device, self.dtype))

    def decode(self, z: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        return self._decoder(z)

    def accelerated(self, function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        """A function of this prior's networks, run as `compile` says."""
        return accelerated(function, self.compile, self.device, f"{type(self).__name__}'s {name}")

    @cached_property
    def _encoder(self) -> Callable[[Tensor], Tensor]:
        return self.accelerated(self._encode, "encoder")

    @cached_property
    def _decoder(self) -> Callable[[Tensor], Tensor]:
        return self.accelerated(self._decode, "decoder")

    def _encode(self, small: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 4 h w"]:
        return self.vae.encode(2 * small - 1).latent_dist.mode().float() * self.vae.config.scaling_factor

    def _decode(self, z: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        picture = self.vae.decode(z.to(self.dtype) / self.vae.config.scaling_factor).sample
        return (picture.float() / 2 + 0.5).clamp(0, 1)
