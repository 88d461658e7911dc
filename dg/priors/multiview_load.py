"""The networks of MVDream and ImageDream, from a folder in the diffusers layout or an original single file.

In both forms the UNet's tensors have the same names (but for a prefix) and the network is this project's own, so
nothing of a checkpoint is executed: the folder's unet/mv_unet.py is not looked at. ImageDream's single file calls the
autoencoder `vae_model` and CLIP `clip_model`; MVDream's names are Stable Diffusion's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dg.priors import ldm_parts as ldm
from dg.priors.checkpoint import check_file, load_model
from dg.priors.ldm_file import read_tensors
from dg.priors.ldm_names import CC_PROJECTION, UNET, VISION, Origin, vision_names_openai
from dg.priors.multiview_net import HEAD, MultiViewUNet, net_size
from dg.priors.prompts import load_tokenizer

CLASS = "MultiViewUNetModel"  # in the folder's unet/config.json
VISION_HEAD = 80  # channels of each head of CLIP ViT-H/14, which leave no trace in shapes
_TOLD_APART = "camera_embed.0.weight"


@dataclass(frozen=True)
class Networks:
    """All frozen, on their device but for the text encoder, which `dg.priors.prompts` moves."""

    unet: MultiViewUNet
    vae: Any
    text_encoder: Any
    tokenizer: Any
    image_encoder: Any | None  # ImageDream's


def from_folder(folder: Path, device: torch.device, dtype: torch.dtype, *, with_image: bool) -> Networks:
    """
    Raises:
        ValueError: the weights are cut short, or of another kind of network.
    """
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPVisionModel

    unet = _unet(folder / "unet", device, dtype, with_image)
    vae = load_model(AutoencoderKL, folder / "vae", device, dtype)
    text = load_model(CLIPTextModel, folder / "text_encoder", torch.device("cpu"), dtype)
    image = load_model(CLIPVisionModel, folder / "image_encoder", device, dtype) if with_image else None
    return Networks(unet, vae, text, load_tokenizer(folder / "tokenizer"), image)


def _unet(folder: Path, device: torch.device, dtype: torch.dtype, with_image: bool) -> MultiViewUNet:
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    if config.get("_class_name", CLASS) != CLASS:
        raise ValueError(f"{folder / 'config.json'} describes a {config['_class_name']}; expected a {CLASS}")
    files = sorted(folder.glob("*.safetensors"))
    small, plain = ([f for f in files if (".fp16." in f.name) == half] for half in (True, False))
    path = ((plain if dtype == torch.float32 else small) or plain or small)[0]
    check_file(path)
    state = {UNET + name: value for name, value in load_file(path).items()}
    head = int(config.get("num_head_channels") or HEAD)
    return ldm.load_parts(path, state, [unet_part(ldm.Shapes(path, state), head, with_image)], device, dtype)[0]


def from_file(path: Path, device: torch.device, dtype: torch.dtype, *, with_image: bool) -> Networks:
    """
    Raises:
        ValueError: no such checkpoint, or damaged, or of another kind of model.
    """
    from dg.priors.clip_vocabulary import tokenizer_for

    state = renamed(read_tensors(path))
    shapes = ldm.Shapes(path, state)
    parts = [unet_part(shapes, HEAD, with_image), ldm.vae_part(shapes, sample_size=256), ldm.text_part(shapes)]
    if with_image:
        parts.append(vision_part(shapes))
    unet, vae, text, *image = ldm.load_parts(path, state, parts, device, dtype)
    tokenizer = tokenizer_for(path, text.config.vocab_size, "!")
    return Networks(unet, vae, text, tokenizer, image[0] if image else None)


_PREFIXES = {"vae_model.": "first_stage_model.", "clip_model.": "cond_stage_model."}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ImageDream's names of autoencoder and CLIP to those of all others; the rest stays."""
    new = {}
    for name, value in state.items():
        head, dot, rest = name.partition(".")
        new[_PREFIXES.get(head + dot, head + dot) + rest] = value
    return new


def unet_part(shapes: ldm.Shapes, head: int, with_image: bool) -> ldm.Part:
    """
    Raises:
        ValueError: another kind of model; names the prior that takes it.
    """
    if UNET + _TOLD_APART not in shapes:
        if f"{UNET}input_blocks.0.0.weight" in shapes:
            other = "zero123" if f"{CC_PROJECTION}weight" in shapes else "sd"
            raise ValueError(
                f"{shapes.path}: lacks {UNET}{_TOLD_APART}, so it is no multi-view network; prior={other} may take it"
            )
        shapes[UNET + _TOLD_APART]  # tells what is there instead
    found = f"{UNET}image_embed.latents" in shapes
    if found != with_image:
        kind, prior = ("an ImageDream", "imagedream") if found else ("an MVDream", "mvdream")
        holds = "holds" if found else "lacks"
        raise ValueError(f"{shapes.path}: {holds} {UNET}image_embed.latents, so it is {kind}: prior={prior}")
    size = net_size(shapes, UNET, head)
    return ldm.Part(lambda: MultiViewUNet(size), lambda key: Origin(UNET + key))


def vision_part(shapes: ldm.Shapes) -> ldm.Part:
    """OpenCLIP's picture tower (ViT-H/14)."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    width, _, patch, _ = shapes[f"{VISION}conv1.weight"]
    grid = round((shapes[f"{VISION}positional_embedding"][0] - 1) ** 0.5)
    config = {
        "hidden_size": width,
        "intermediate_size": shapes[f"{VISION}transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": shapes.count(rf"{VISION}transformer\.resblocks\.(\d+)\.".replace("visual.", r"visual\.")),
        "num_attention_heads": max(1, width // VISION_HEAD),
        "image_size": grid * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
    }
    return ldm.Part(lambda: CLIPVisionModel(CLIPVisionConfig(**config)), vision_names_openai)
