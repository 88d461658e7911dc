"""`zero123`: Zero-1-to-3 (Liu et al. 2023) and its XL and Stable variants, from the public files.

Of a folder in the diffusers layout each component is loaded by its subfolder, an original single file is converted;
stock classes in both cases, and nothing of the checkpoint is executed. The view condition
is one cross-attention token, Linear([CLIP image embedding, relative pose]), and the reference's latent beside the noisy
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dg.core.camera import relative_pose_stable_zero123, relative_pose_zero123
from dg.core.diffusion import scaled_linear_alpha_bar
from dg.core.picture import over
from dg.core.transfer import upload_cameras
from dg.priors.adapter import LowRankAdapter
from dg.priors.checkpoint import check_file, find_checkpoint, frozen, load_model, placement, told_size
from dg.priors.exact import resize_square
from dg.priors.graphs import Compile, checked_mode, fast_layout
from dg.priors.hub import source_of
from dg.priors.latent import LatentPictures
from dg.priors.ldm_file import read_tensors
from dg.priors.ldm_names import CC_PROJECTION
from dg.priors.nearest import chosen, nearest_reference
from dg.priors.one_token import spare_queries
from dg.priors.savings import Savings
from dg.priors.token_merging import merge_tokens
from dg.types import Cameras, Condition, Prediction, Reference

LAYOUT = dict.fromkeys(("unet", "vae", "image_encoder", "clip_camera_projection"), ("config.json",))
HINT = "choose a prior that needs no download: prior=zero123_mini or prior=silhouette"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class _Tokens:
    context: Float[Tensor, "B 1 D"]
    latent: Float[Tensor, "B 4 h w"]


@dataclass(frozen=True)
class _Known:
    """R references."""

    embedding: Float[Tensor, "R D"]  # CLIP's
    latent: Float[Tensor, "R 4 h w"]  # the posterior's mode, not scaled
    cameras: Cameras


class Zero123(LatentPictures):
    """Args:
    checkpoint: a folder in the diffusers layout (unet/, vae/, image_encoder/, clip_camera_projection/), an original
        single file (105000.ckpt, zero123-xl.ckpt, stable_zero123.ckpt), or a hub id.
    revision: of the hub repository.
    about: licence, gated, download_gb: facts of the checkpoint, for messages and the manifest.
    pose: "zero123", or "stable_zero123" whose fourth number is the reference's polar angle.
    image_size: pictures are resized to this; the latents are 8 times smaller.
    token_merging: share of the tokens that self-attention at the largest resolution leaves out (`token_merging`).
    guidance_every, guidance_above, reuse, reuse_deg: what stage 1 does not ask for (`dg.priors.savings.Savings`).
    compile: how the networks run: `graph` replays them as CUDA graphs, `full` compiles them first (torch.compile, worth
        its minute in a long-lived worker), `none` runs them eagerly; `auto` is graph on CUDA and none elsewhere.
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
        pose: Literal["zero123", "stable_zero123"] = "zero123",
        image_size: int = 256,
        token_merging: float = 0.0,
        guidance_every: int = 1,
        guidance_above: float = 0.0,
        reuse: int = 0,
        reuse_deg: float = 20.0,
        compile: Compile = "auto",
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        self.savings = Savings(guidance_every, guidance_above, reuse, reuse_deg)
        self.device, self.dtype = placement(device, dtype)
        self.image_size, self.pose, self.compile = image_size, pose, checked_mode(compile, self.device)
        self.relative_views = pose == "zero123"  # it is not told the picture's own elevation
        self.alpha_bar = scaled_linear_alpha_bar().to(self.device)
        half, hint = self.dtype != torch.float32, HINT + told_size(about)
        place = find_checkpoint(checkpoint, revision, self.layout, half=half, hint=hint)
        networks = self._from_file(place) if place.is_file() else self._from_folder(place)
        self.source = source_of(checkpoint, place)
        self.unet, self.vae, self.image_encoder, self.projection = networks
        fast_layout(self.unet, self.vae, self.device, self.compile)
        merge_tokens(self.unet, token_merging)
        spare_queries(self.unet)
        self._cached: tuple[Reference, _Known] | None = None
        _ = self._contexts  # made now, so that copies of this prior (`dg.priors.shared`) use the same

    def _from_folder(self, folder: Path) -> list[Any]:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPVisionModelWithProjection

        kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "image_encoder": CLIPVisionModelWithProjection}
        networks = [load_model(kind, folder / part, self.device, self.dtype) for part, kind in kinds.items()]
        return [*networks, frozen(load_projection(folder / "clip_camera_projection"), self.device, self.dtype)]

    def _from_file(self, path: Path) -> list[Any]:
        from dg.priors import ldm_parts as ldm

        state = read_tensors(path)
        shapes = ldm.Shapes(path, state)
        if f"{CC_PROJECTION}weight" not in shapes:
            raise ValueError(
                f"{path}: lacks {CC_PROJECTION}weight, so it is no Zero123; for Stable Diffusion: prior=sd"
            )
        unet, vae = ldm.unet_part(shapes, sample_size=32, heads=8), ldm.vae_part(shapes, sample_size=256)
        parts = [unet, vae, ldm.vision_part(shapes), ldm.projection_part(shapes)]
        return ldm.load_parts(path, state, parts, self.device, self.dtype)

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """Each view is told of the reference nearest in azimuth. The background is ignored: Zero123 knows white."""
        if reference is None:
            raise ValueError("prior=zero123 needs input=PICTURE; for a prompt alone choose a text prior")
        if prompt:
            raise ValueError("prior=zero123 takes no prompt; leave prompt=null or choose a text prior")
        known = self._reference(reference)
        views = upload_cameras(cameras, self.device)  # where the networks are: no step waits for the angles
        index = nearest_reference(views, known.cameras)
        with torch.no_grad():
            context = self._contexts(views.c2w, chosen(known.cameras, index).c2w, known.embedding[index])
        return Condition(cameras, background, _Tokens(context, known.latent[index]))

    @cached_property
    def _contexts(self) -> Callable[..., Tensor]:
        return self.accelerated(self._context, "condition")

    def _context(
        self, c2w: Float[Tensor, "B 4 4"], known: Float[Tensor, "B 4 4"], embedding: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B 1 D"]:
        """The token: Linear([embedding, relative pose]). Forty small kernels, so one graph on a GPU."""
        relative = relative_pose_zero123 if self.pose == "zero123" else relative_pose_stable_zero123
        views, reference = (Cameras(x, x[:, :3, :3], 0, 0) for x in (c2w, known))  # only positions count
        return self.projection(torch.cat([embedding, relative(views, reference).to(embedding)], -1))[:, None]

    @torch.no_grad()
    def _reference(self, reference: Reference) -> _Known:
        """What is known of the references on white; computed once."""
        if self._cached is None or self._cached[0] is not reference:
            white = resize_square(over(reference.rgba).permute(0, 3, 1, 2), self.image_size)
            white = white.to(self.device, self.dtype)
            side = self.image_encoder.config.image_size
            clip = F.interpolate(white.float(), (side, side), mode="bicubic", antialias=True).clamp(0, 1)
            mean, std = (clip.new_tensor(x)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
            embedding = self.image_encoder(((clip - mean) / std).to(self.dtype)).image_embeds
            latent = self.vae.encode(2 * white - 1).latent_dist.mode()
            self._cached = reference, _Known(embedding, latent, reference.cameras.to(self.device))
        return self._cached[1]

    @torch.no_grad()
    def predict(self, z_t: Float[Tensor, "B 4 h w"], t: Int[Tensor, B], cond: Condition) -> Prediction:
        """With and without the condition in one batch; without it, token and latent are zero."""
        tokens: _Tokens = cond.extra
        return Prediction(*self._denoiser(z_t, t, tokens.latent, tokens.context).chunk(2))

    @torch.no_grad()
    def predict_conditional(self, z_t: Float[Tensor, "B 4 h w"], t: Int[Tensor, B], cond: Condition) -> Prediction:
        """`predict` without the half that guidance compares with."""
        tokens: _Tokens = cond.extra
        return Prediction(self._half(z_t, t, tokens.latent, tokens.context))

    @cached_property
    def _half(self) -> Callable[..., Tensor]:
        return self.accelerated(self._denoise_conditional, "UNet without guidance")

    def trainable_adapter(self, draw: torch.Generator, rank: int) -> LowRankAdapter:
        return LowRankAdapter(self.unet, self._conditional, draw, rank)

    def _conditional(self, z_t: Tensor, t: Tensor, cond: Condition) -> Float[Tensor, "B 4 h w"]:
        told: _Tokens = cond.extra
        return self._denoise_conditional(z_t, t, told.latent, told.context)

    def _denoise_conditional(self, z_t: Tensor, t: Tensor, latent: Tensor, context: Tensor) -> Float[Tensor, "B 4 h w"]:
        inputs = torch.cat([z_t.to(self.dtype), latent], 1)
        return self.unet(inputs, t, encoder_hidden_states=context).sample.float()

    @cached_property
    def _denoiser(self) -> Callable[..., Tensor]:
        return self.accelerated(self._denoise, "UNet")

    def _denoise(self, z_t: Tensor, t: Tensor, latent: Tensor, context: Tensor) -> Float[Tensor, "2B 4 h w"]:
        noisy = torch.cat([z_t, z_t]).to(self.dtype)
        latent = torch.cat([latent, torch.zeros_like(latent)])
        context = torch.cat([context, torch.zeros_like(context)])
        return self.unet(torch.cat([noisy, latent], 1), t.repeat(2), encoder_hidden_states=context).sample.float()


def load_projection(folder: Path) -> nn.Linear:
    """The linear layer from [embedding, pose] to the context; keys proj.weight, proj.bias."""
    import json

    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"{folder}: no .safetensors file there")
    check_file(weights[0])
    state = load_file(weights[0])
    size = int(config["embedding_dim"])
    layer = nn.Linear(size + int(config["additional_embeddings"]), size)
    expected = {f"proj.{k}": tuple(v.shape) for k, v in layer.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if found != expected:
        raise ValueError(f"{weights[0]}: expected tensors {expected}, found {found}")
    layer.load_state_dict({k.removeprefix("proj."): v.float() for k, v in state.items()})
    return layer
