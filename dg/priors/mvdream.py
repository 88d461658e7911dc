"""`mvdream`: MVDream (Shi et al. 2023), a text prior that answers for four views of one object at once.

Facts of use are DreamGaussian's (guidance/mvdream_utils.py): 256 pixels, four views a quarter turn apart at one
elevation, guidance 100, w(t) = 1, the unconditional half with the negative prompt and the same cameras, and before the
conditional one. Where MVDream sees an object's front is this project's azimuth 90, so azimuths are turned there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.camera import pose_mvdream, turned
from dg.core.diffusion import scaled_linear_alpha_bar
from dg.priors.adapter import LowRankAdapter
from dg.priors.checkpoint import find_checkpoint, placement, told_size
from dg.priors.graphs import Compile, checked_mode, fast_layout
from dg.priors.hub import source_of
from dg.priors.latent import LatentPictures
from dg.priors.multiview_load import Networks, from_file, from_folder
from dg.priors.prompts import PromptEncoder
from dg.priors.sd_schedule import read_schedule
from dg.types import Cameras, Condition, Prediction, Reference

LAYOUT = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("vocab.json", "merges.txt"),
    "scheduler": ("scheduler_config.json",),
}
HINT = "start from a picture with a prior that needs no download (input=PICTURE prior=zero123_mini)"
VIEWS = 4
FRONT_DEG = 90.0  # the azimuth at which MVDream's objects show their front
SIZE = 256  # pixels that both networks were trained on


@dataclass(frozen=True)
class Groups:
    """What S samples are told; B = 4 S views."""

    text: Float[Tensor, "2 L D"]  # the negative prompt's tokens, the prompt's
    camera: Float[Tensor, "B 16"]


class MultiView(LatentPictures, ABC):
    """What MVDream and ImageDream share: networks, prompts and cameras. Arguments as `MVDream`'s."""

    views_per_sample = VIEWS
    with_image = False
    layout, hint = LAYOUT, HINT  # of a checkpoint that is a folder (`dg.runtime.checkpoints`)

    @abstractmethod
    def _halves(self, z_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Unconditional and conditional noise prediction, with autograd."""

    @torch.no_grad()
    def predict(self, z_t: Float[Tensor, "B 4 h w"], t: Int[Tensor, B], cond: Condition) -> Prediction:
        uncond, told = self._halves(z_t, t, cond)
        return Prediction(told, uncond)

    def _noise(self, *inputs: Tensor, frames: int) -> Tensor:
        """The UNet; as `compile` says where nothing is to be learnt."""
        if torch.is_grad_enabled():
            return self._ask(*inputs, frames=frames)
        return self._networks[frames](*inputs)

    def _ask(self, *inputs: Tensor, frames: int) -> Tensor:
        return self.unet(*inputs, frames=frames)

    @cached_property
    def _networks(self) -> dict[int, Callable[..., Tensor]]:
        return {n: self.accelerated(partial(self._ask, frames=n), "UNet") for n in (VIEWS, VIEWS + 1)}

    def trainable_adapter(self, draw: torch.Generator, rank: int) -> LowRankAdapter:
        return LowRankAdapter(self.unet, lambda z_t, t, cond: self._halves(z_t, t, cond)[1], draw, rank)

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        about: Mapping[str, Any] | None = None,
        negative_prompt: str | None = None,
        usual_negative_prompt: str = "",
        image_size: int = SIZE,
        compile: Compile = "auto",
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        self.device, self.dtype = placement(device, dtype)
        self.compile = checked_mode(compile, self.device)
        self.alpha_bar = scaled_linear_alpha_bar()
        half, hint = self.dtype != torch.float32, HINT + told_size(about)
        place = find_checkpoint(checkpoint, revision, self.layout, half=half, hint=hint)
        if place.is_file():
            networks = from_file(place, self.device, self.dtype, with_image=self.with_image)
        else:
            networks = from_folder(place, self.device, self.dtype, with_image=self.with_image)
            self.alpha_bar, kind = read_schedule(place / "scheduler" / "scheduler_config.json")
            if kind != "epsilon":
                raise ValueError(f"{place}/scheduler: prediction_type {kind}; expected epsilon")
        self.source = source_of(checkpoint, place)
        _check_parts(networks, checkpoint)
        self.unet, self.vae, self.image_encoder = networks.unet, networks.vae, networks.image_encoder
        self.alpha_bar = self.alpha_bar.to(self.device)
        fast_layout(self.unet, self.vae, self.device, self.compile)
        self.prompts = PromptEncoder(networks.tokenizer, networks.text_encoder, self.device)
        self.negative_prompt = negative_prompt or usual_negative_prompt
        self.shrink = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pictures to latents
        step = self.shrink * 2 ** (len(self.unet.size.channels) - 1)
        if image_size < step or image_size % step:
            raise ValueError(f"prior.image_size={image_size} must be a multiple of {step}")
        self.image_size = image_size

    def groups(self, prompt: str, cameras: Cameras, front_deg: float) -> Groups:
        """
        Args:
            front_deg: the azimuth, here, at which the object shows its front.

        Raises:
            ValueError: the views are no whole samples of four.
        """
        if len(cameras) % VIEWS:
            raise ValueError(f"{type(self).__name__} answers for {VIEWS} views at a time; got {len(cameras)}")
        camera = pose_mvdream(turned(cameras, FRONT_DEG - front_deg)).to(self.device, self.dtype)
        return Groups(self.prompts([(self.negative_prompt, ""), (prompt, "")]), camera)


class MVDream(MultiView):
    """Args:
    checkpoint: a folder in the diffusers layout (unet/, vae/, text_encoder/, tokenizer/, scheduler/), an original
        single file (sd-v2.1-base-4view.pt), or a hub id.
    revision: of the hub repository.
    about: licence, gated, download_gb: facts of the checkpoint, for messages and the manifest.
    negative_prompt: what the unconditional prediction is told.
    usual_negative_prompt: in its place where it is empty.
    image_size: pictures are resized to this; the latents are 8 times smaller.
    compile: how the networks run (`dg.priors.zero123.Zero123`).
    device, dtype: where the networks run; dtype null is float16 on CUDA and float32 elsewhere.

    Raises:
        FileNotFoundError: the weights are not there; names what was looked for and where.
        ValueError: they are cut short, or of another kind of model.
    """

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """Reference and background are ignored: the text says nothing about either."""
        if not prompt:
            raise ValueError("prior=mvdream needs a prompt: task=text prior=mvdream prompt='a ripe strawberry'")
        return Condition(cameras, background, self.groups(prompt, cameras, front_deg=0.0))

    def _halves(self, z_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Both in one batch; the views of a sample follow each other."""
        of: Groups = cond.extra
        context = of.text.to(self.dtype).repeat_interleave(len(z_t), 0)
        z, camera = z_t.to(self.dtype).repeat(2, 1, 1, 1), of.camera.repeat(2, 1)
        uncond, told = self._noise(z, t.repeat(2), context, camera, frames=VIEWS).float().chunk(2)
        return uncond, told


def _check_parts(networks: Networks, checkpoint: str) -> None:
    """
    Raises:
        ValueError: UNet, autoencoder and encoders do not belong together.
    """
    size, latent = networks.unet.size, networks.vae.config.latent_channels
    expected = {"inputs": latent, "outputs": latent, "context": networks.text_encoder.config.hidden_size, "camera": 16}
    wrong = [f"{k} {getattr(size, k)} instead of {v}" for k, v in expected.items() if getattr(size, k) != v]
    if size.image is not None and size.image.inputs != (width := networks.image_encoder.config.hidden_size):
        wrong.append(f"image tokens of width {size.image.inputs} instead of {width}")
    if wrong:
        raise ValueError(f"{checkpoint}: its UNet does not fit its other networks: {', '.join(wrong)}")
