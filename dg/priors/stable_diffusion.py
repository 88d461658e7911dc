"""`sd`: Stable Diffusion (Rombach et al. 2022) as a text prior; 1.x, 2.x and 2.1, epsilon and v prediction.

Facts of use are DreamGaussian's (guidance/sd_utils.py): 512 pixels, 77 text tokens, guidance 100, w(t) = 1 - alpha_bar,
conditional before unconditional. There is no safety checker: nothing is shown that the prior made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core.camera import spherical
from dg.core.diffusion import eps_from_v, per_sample, scaled_linear_alpha_bar
from dg.core.perp_neg import VIEWS, mix_views, nearest_view, perp_neg
from dg.priors.adapter import LowRankAdapter
from dg.priors.checkpoint import find_checkpoint, load_model, placement, told_size
from dg.priors.graphs import Compile, checked_mode, fast_layout
from dg.priors.hub import source_of
from dg.priors.latent import LatentPictures
from dg.priors.ldm_file import read_tensors
from dg.priors.ldm_names import CC_PROJECTION
from dg.priors.prompts import PromptEncoder, load_tokenizer
from dg.priors.sd_schedule import read_schedule, told_prediction
from dg.types import Cameras, Condition, Prediction, Reference

LAYOUT = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("vocab.json", "merges.txt"),
    "scheduler": ("scheduler_config.json",),
}
HINT = "start from a picture with a prior that needs no download (input=PICTURE prior=zero123_mini)"


@dataclass(frozen=True)
class _Texts:
    cond: Float[Tensor, "B L D"]
    uncond: Float[Tensor, "B L D"]
    negatives: Float[Tensor, "B N L D"]  # N = 2 with Perp-Neg, else 0
    weights: Float[Tensor, "B N"]


class StableDiffusion(LatentPictures):
    """Args:
    checkpoint: a folder in the diffusers layout (unet/, vae/, text_encoder/, tokenizer/, scheduler/), an original
        single file (v1-5-pruned-emaonly.safetensors, v2-1_512-ema-pruned.ckpt), or a hub id.
    revision: of the hub repository.
    about: licence, gated, download_gb: facts of the checkpoint, for messages and the manifest.
    prediction_type: of the UNet; null is what the folder's scheduler says, or what `told_prediction` finds for a file.
    negative_prompt: what the unconditional prediction is told; empty is plain guidance.
    view_dependent_prompt: appends ", front view", ", side view", ", back view" or ", overhead view" by the camera.
        The release has the words but never uses them.
    perp_neg: Perp-Neg (`dg.core.perp_neg`) on those views' texts; twice the predictions.
    image_size: pictures are resized to this; null is what the checkpoint was trained on.
    compile: how the networks run (`dg.priors.zero123.Zero123`).
    device, dtype: where the networks run; dtype null is float16 on CUDA and float32 elsewhere.

    Raises:
        FileNotFoundError: the weights are not there; names what was looked for and where.
        ValueError: they are cut short, or of another kind of model; or an unknown `compile`.
    """

    layout, hint = LAYOUT, HINT  # of a checkpoint that is a folder (`dg.runtime.checkpoints`)

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        about: Mapping[str, Any] | None = None,
        prediction_type: Literal["epsilon", "v_prediction"] | None = None,
        negative_prompt: str | None = None,
        view_dependent_prompt: bool = False,
        perp_neg: bool = False,
        image_size: int | None = None,
        compile: Compile = "auto",
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        self.device, self.dtype = placement(device, dtype)
        self.compile = checked_mode(compile, self.device)
        half, hint = self.dtype != torch.float32, HINT + told_size(about)
        place = find_checkpoint(checkpoint, revision, self.layout, half=half, hint=hint)
        if place.is_file():
            text, tokenizer = self._from_file(place, prediction_type)
        else:
            text, tokenizer = self._from_folder(place)
            self.prediction_type = prediction_type or self.prediction_type
        self.source = source_of(checkpoint, place)
        self.alpha_bar = self.alpha_bar.to(self.device)
        fast_layout(self.unet, self.vae, self.device, self.compile)
        _check_parts(self.unet.config, self.vae.config, text.config, checkpoint)
        self.prompts = PromptEncoder(tokenizer, text, self.device)
        self.image_size = _image_size(image_size, self.unet.config, self.vae.config)
        self.negative_prompt = negative_prompt or ""
        self.view_dependent_prompt, self.perp_neg = view_dependent_prompt, perp_neg

    def _from_folder(self, folder: Path) -> tuple[Any, Any]:
        """Text encoder and tokenizer; the other networks and the schedule become attributes."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel

        self.alpha_bar, self.prediction_type = read_schedule(folder / "scheduler" / "scheduler_config.json")
        self.unet = load_model(UNet2DConditionModel, folder / "unet", self.device, self.dtype)
        self.vae = load_model(AutoencoderKL, folder / "vae", self.device, self.dtype)
        text = load_model(CLIPTextModel, folder / "text_encoder", torch.device("cpu"), self.dtype)
        return text, load_tokenizer(folder / "tokenizer")

    def _from_file(self, path: Path, asked: str | None) -> tuple[Any, Any]:
        """The same from an original single file."""
        from dg.priors import ldm_parts as ldm
        from dg.priors.clip_vocabulary import END, tokenizer_for

        state = read_tensors(path)
        shapes = ldm.Shapes(path, state)
        if f"{CC_PROJECTION}weight" in shapes:
            raise ValueError(f"{path}: holds {CC_PROJECTION}weight, so it is a Zero123: prior=zero123")
        first = ldm.is_first_generation(shapes)
        self.alpha_bar, self.prediction_type = scaled_linear_alpha_bar(), asked or told_prediction(path, first)
        side = 64 if first or self.prediction_type == "epsilon" else 96
        unet = ldm.unet_part(shapes, sample_size=side, heads=8 if first else None)
        parts = [unet, ldm.vae_part(shapes, sample_size=8 * side), ldm.text_part(shapes)]
        self.unet, self.vae, text = ldm.load_parts(path, state, parts, self.device, self.dtype)
        return text, tokenizer_for(path, text.config.vocab_size, END if first else "!")

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """Reference and background are ignored: the text says nothing about either."""
        if not prompt:
            raise ValueError("prior=sd needs a prompt: task=text prompt='a ripe strawberry'")
        count = len(cameras)
        uncond = self.prompts([(self.negative_prompt, "")]).expand(count, -1, -1)
        negatives, weights = uncond.new_zeros(count, 0, *uncond.shape[1:]), uncond.new_zeros(count, 0)
        if self.perp_neg or self.view_dependent_prompt:
            elevation, azimuth, _ = (x.cpu() for x in spherical(cameras))  # the one thing here that a GPU is waited for
            views = self.prompts([(prompt, f", {view} view") for view in VIEWS])
        if self.perp_neg:
            mixture = mix_views(elevation, azimuth)
            cond = torch.einsum("bv,vld->bld", mixture.positive.to(views), views)
            negatives, weights = views[mixture.negative.to(views.device)], mixture.weights.to(views.device)
        elif self.view_dependent_prompt:
            cond = views[nearest_view(elevation, azimuth).to(views.device)]
        else:
            cond = self.prompts([(prompt, "")]).expand(count, -1, -1)
        return Condition(cameras, background, _Texts(cond, uncond, negatives, weights))

    @torch.no_grad()
    def predict(self, z_t: Float[Tensor, "B 4 h w"], t: Int[Tensor, B], cond: Condition) -> Prediction:
        """Noise, whatever the network predicts; conditional, unconditional and avoided texts in one batch."""
        texts: _Texts = cond.extra
        context = torch.cat([texts.cond, texts.uncond, *texts.negatives.unbind(1)])
        eps, uncond, *negatives = self._denoiser(z_t, t, context).chunk(len(context) // len(z_t))
        if negatives:
            eps = perp_neg(eps, uncond, torch.stack(negatives, 1), texts.weights)
        return Prediction(eps, uncond)

    def trainable_adapter(self, draw: torch.Generator, rank: int) -> LowRankAdapter:
        """Of the UNet, which is told the camera besides: the text does not say where an object is seen from."""
        told = lambda z_t, t, cond: self._denoise(z_t, t, cond.extra.cond)  # noqa: E731
        return LowRankAdapter(self.unet, told, draw, rank, time_embedding="time_embedding")

    @cached_property
    def _denoiser(self) -> Callable[..., Tensor]:
        return self.accelerated(self._denoise, "UNet")

    def _denoise(self, z_t: Tensor, t: Tensor, context: Tensor) -> Float[Tensor, "N 4 h w"]:
        times = len(context) // len(z_t)
        z, steps = z_t.repeat(times, 1, 1, 1), t.repeat(times)
        answer = self.unet(z.to(self.dtype), steps, encoder_hidden_states=context).sample.float()
        if self.prediction_type == "v_prediction":
            answer = eps_from_v(z.float(), answer, per_sample(self.alpha_bar[steps], answer))
        return answer


def _check_parts(unet: dict, vae: dict, text: object, checkpoint: str) -> None:
    """That the parts belong together and are plain Stable Diffusion (no inpainting, depth, SDXL).

    Raises:
        ValueError: they are not.
    """
    width = text.hidden_size  # type: ignore[attr-defined]
    expected = {"in_channels": vae["latent_channels"], "out_channels": vae["latent_channels"]}
    expected |= {"cross_attention_dim": width, "addition_embed_type": None, "class_embed_type": None}
    found = {key: unet.get(key) for key in expected}
    wrong = [f"{key} {found[key]} instead of {value}" for key, value in expected.items() if found[key] != value]
    if wrong:
        raise ValueError(
            f"{checkpoint}: not a text-to-picture Stable Diffusion 1.x or 2.x: its UNet has {', '.join(wrong)}"
        )


def _image_size(asked: int | None, unet: dict, vae: dict) -> int:
    """
    Raises:
        ValueError: the networks cannot halve such a size.
    """
    shrink = 2 ** (len(vae["block_out_channels"]) - 1)
    size, step = asked or unet["sample_size"] * shrink, shrink * 2 ** (len(unet["block_out_channels"]) - 1)
    if size % step or size < step:
        raise ValueError(f"prior.image_size={size} must be a multiple of {step}")
    return size
