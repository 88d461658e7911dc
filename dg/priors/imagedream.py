"""`imagedream`: ImageDream (Wang and Shi 2023), MVDream with a picture beside the text, or in its place.

Facts of use are DreamGaussian's (guidance/imagedream_utils.py): a sample is the four views and the picture's own latent
as a fifth, whose camera is sixteen zeros and whose answer is dropped; CLIP's penultimate hidden states of the picture
become further tokens. Without the condition both are zero and the text is the negative prompt; guidance 5, w(t) = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import spherical
from dg.core.picture import over
from dg.priors.exact import resize_square
from dg.priors.mvdream import LAYOUT, VIEWS, Groups, MultiView
from dg.priors.zero123 import CLIP_MEAN, CLIP_STD
from dg.types import Cameras, Condition, Reference


@dataclass(frozen=True)
class Picture:
    """First without, then with the picture."""

    tokens: Float[Tensor, "2 I C"]
    latent: Float[Tensor, "2 4 h w"]


@dataclass(frozen=True)
class _Told:
    groups: Groups
    picture: Picture


class ImageDream(MultiView):
    """Arguments and errors as `dg.priors.mvdream.MVDream`'s; the folder has image_encoder/ besides, the single file is
    sd-v2.1-base-4view-ipmv.pt (the pixel controller).
    """

    with_image = True
    layout = LAYOUT | {"image_encoder": ("config.json",)}
    prompt_beside_picture = True  # a prompt may come with a picture (`dg.runtime.options` asks)
    _cached: tuple[Reference | None, Picture] | None = None

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """The (first) picture is the front view, seen from wherever its camera stands. The background is ignored."""
        if reference is None and not prompt:
            raise ValueError("prior=imagedream needs input=PICTURE, or a prompt (task=text prompt='...'), or both")
        front = 0.0 if reference is None else float(spherical(reference.cameras)[1][0])
        return Condition(
            cameras, background, _Told(self.groups(prompt or "", cameras, front), self._picture(reference))
        )

    @torch.no_grad()
    def _picture(self, reference: Reference | None) -> Picture:
        """Tokens and latent of the picture on white, computed once; all zero where there is none."""
        if self._cached is None or self._cached[0] is not reference:
            if reference is None:
                hidden, latent = self._nothing()
            else:
                white = resize_square(over(reference.rgba[:1]).permute(0, 3, 1, 2), self.image_size)
                white = white.to(self.device, self.dtype)
                hidden = self._hidden(white)
                latent = self.vae.encode(2 * white - 1).latent_dist.mode() * self.vae.config.scaling_factor
            tokens = self.unet.image_tokens(torch.cat([torch.zeros_like(hidden), hidden]))
            self._cached = reference, Picture(tokens, torch.cat([torch.zeros_like(latent), latent]))
        return self._cached[1]

    def _nothing(self) -> tuple[Tensor, Tensor]:
        """Hidden states and latent of no picture."""
        vision, side = self.image_encoder.config, self.image_size // self.shrink
        patches = (vision.image_size // vision.patch_size) ** 2 + 1
        like = {"device": self.device, "dtype": self.dtype}
        return torch.zeros(1, patches, vision.hidden_size, **like), torch.zeros(
            1, self.unet.size.inputs, side, side, **like
        )

    def _hidden(self, white: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 M W"]:
        """What CLIP's last layer but one says of each patch."""
        side = self.image_encoder.config.image_size
        small = F.interpolate(white.float(), (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (small.new_tensor(x)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
        pixels = ((small - mean) / std).to(self.dtype)
        return self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]

    def _halves(self, z_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Both in one batch, in groups of five whose last is the picture."""
        of: _Told = cond.extra
        samples, frames = len(z_t) // VIEWS, VIEWS + 1
        z = z_t.to(self.dtype).unflatten(0, (samples, VIEWS)).repeat(2, 1, 1, 1, 1)
        z = torch.cat([z, of.picture.latent.to(z).repeat_interleave(samples, 0)[:, None]], 1)
        camera = F.pad(of.groups.camera.unflatten(0, (samples, VIEWS)), (0, 0, 0, 1)).repeat(2, 1, 1)
        steps = t.unflatten(0, (samples, VIEWS))
        steps = torch.cat([steps, steps[:, :1]], 1).repeat(2, 1)
        text, image = (
            x.to(self.dtype).repeat_interleave(samples * frames, 0) for x in (of.groups.text, of.picture.tokens)
        )
        answer = self._noise(z.flatten(0, 1), steps.flatten(), text, camera.flatten(0, 1), image, frames=frames)
        answer = answer.float().unflatten(0, (2 * samples, frames))[:, :VIEWS].flatten(0, 1)
        uncond, told = answer.chunk(2)
        return uncond, told
