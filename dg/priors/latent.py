"""What priors share that diffuse in the latent of Stable Diffusion's autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dg.priors.exact import resize_square


class LatentPictures:
    """`encode` and `decode` of `dg.priors.protocol.Prior`, by a diffusers AutoencoderKL.

    Attributes:
        vae: frozen, on `device`, in `dtype`.
        image_size: pictures are resized to this; the latents are 8 times smaller.
    """

    views_per_sample = 1
    vae: Any
    image_size: int
    device: torch.device
    dtype: torch.dtype

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 4 h w"]:
        """The posterior's mode times the scaling factor (the release draws a sample; the mode is without noise)."""
        small = resize_square(rgb, self.image_size).to(self.device, self.dtype)
        return self.vae.encode(2 * small - 1).latent_dist.mode().float() * self.vae.config.scaling_factor

    def decode(self, z: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        picture = self.vae.decode(z.to(self.dtype) / self.vae.config.scaling_factor).sample
        return (picture.float() / 2 + 0.5).clamp(0, 1)
