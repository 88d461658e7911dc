"""`zero123`: Zero-1-to-3 (Liu et al. 2023) and its XL and Stable variants, from the public diffusers-layout files.

Each component is loaded by its subfolder with stock classes; nothing of the checkpoint is executed. The view condition
is one cross-attention token, Linear([CLIP image embedding, relative pose]), and the reference's latent beside the noisy
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dg.core.camera import relative_pose_stable_zero123, relative_pose_zero123
from dg.core.diffusion import scaled_linear_alpha_bar
from dg.core.picture import over
from dg.priors.checkpoint import check_file, find_checkpoint, frozen, load_model, placement
from dg.priors.exact import resize_square
from dg.priors.latent import LatentPictures
from dg.types import Cameras, Condition, Prediction, Reference

LAYOUT = dict.fromkeys(("unet", "vae", "image_encoder", "clip_camera_projection"), ("config.json",))
HINT = "choose a prior that needs no download: prior=zero123_mini or prior=silhouette; Zero123 is 2.5 GB in float16"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class _Tokens:
    context: Float[Tensor, "B 1 D"]
    latent: Float[Tensor, "B 4 h w"]


class Zero123(LatentPictures):
    """Args:
    checkpoint: a folder in the diffusers layout (unet/, vae/, image_encoder/, clip_camera_projection/), or a hub id.
    revision: of the hub repository.
    pose: "zero123", or "stable_zero123" whose fourth number is the reference's polar angle.
    image_size: pictures are resized to this; the latents are 8 times smaller.
    device, dtype: where the networks run; dtype null is float16 on CUDA and float32 elsewhere.

    Raises:
        FileNotFoundError: the weights are not there; names what was looked for and where.
        ValueError: they are cut short, or of another kind of model.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        pose: Literal["zero123", "stable_zero123"] = "zero123",
        image_size: int = 256,
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPVisionModelWithProjection

        self.device, self.dtype = placement(device, dtype)
        half = self.dtype != torch.float32
        folder = find_checkpoint(checkpoint, revision, LAYOUT, half=half, hint=HINT)
        self.image_size, self.pose = image_size, pose
        self.alpha_bar = scaled_linear_alpha_bar()
        kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "image_encoder": CLIPVisionModelWithProjection}
        self.unet, self.vae, self.image_encoder = (
            load_model(kind, folder / part, self.device, self.dtype) for part, kind in kinds.items()
        )
        self.projection = frozen(load_projection(folder / "clip_camera_projection"), self.device, self.dtype)
        self._cached: tuple[Reference, Tensor, Tensor] | None = None

    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """The background is ignored: Zero123 knows objects on white."""
        if reference is None:
            raise ValueError("prior=zero123 needs input=PICTURE; for a prompt alone choose a text prior")
        if prompt:
            raise ValueError("prior=zero123 takes no prompt; leave prompt=null or choose a text prior")
        embedding, latent = self._reference(reference)
        relative = relative_pose_zero123 if self.pose == "zero123" else relative_pose_stable_zero123
        pose = relative(cameras.to("cpu"), reference.cameras[:1].to("cpu")).to(embedding)
        with torch.no_grad():
            context = self.projection(torch.cat([embedding.expand(len(cameras), -1), pose], -1))[:, None]
        return Condition(cameras, background, _Tokens(context, latent.expand(len(cameras), -1, -1, -1)))

    @torch.no_grad()
    def _reference(self, reference: Reference) -> tuple[Float[Tensor, "1 D"], Float[Tensor, "1 4 h w"]]:
        """CLIP embedding and latent (the posterior's mode, not scaled) of the reference on white; computed once."""
        if self._cached is None or self._cached[0] is not reference:
            white = resize_square(over(reference.rgba[:1]).permute(0, 3, 1, 2), self.image_size)
            white = white.to(self.device, self.dtype)
            side = self.image_encoder.config.image_size
            clip = F.interpolate(white.float(), (side, side), mode="bicubic", antialias=True).clamp(0, 1)
            mean, std = (clip.new_tensor(x)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
            embedding = self.image_encoder(((clip - mean) / std).to(self.dtype)).image_embeds
            latent = self.vae.encode(2 * white - 1).latent_dist.mode()
            self._cached = reference, embedding, latent
        return self._cached[1:]

    @torch.no_grad()
    def predict(self, z_t: Float[Tensor, "B 4 h w"], t: Int[Tensor, B], cond: Condition) -> Prediction:
        """With and without the condition in one batch; without it, token and latent are zero."""
        tokens: _Tokens = cond.extra
        noisy = torch.cat([z_t, z_t]).to(self.dtype)
        latent = torch.cat([tokens.latent, torch.zeros_like(tokens.latent)])
        context = torch.cat([tokens.context, torch.zeros_like(tokens.context)])
        both = self.unet(torch.cat([noisy, latent], 1), t.repeat(2), encoder_hidden_states=context).sample.float()
        return Prediction(*both.chunk(2))


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
