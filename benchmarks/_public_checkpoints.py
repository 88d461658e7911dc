"""The five public priors at their full size with random weights: as large and as slow as the files on the hub.

Sizes are those of the public repositories' configs. Networks are made on `device` (a GPU fills them in seconds) and
written once, in float16 and in the diffusers layout, so that a measurement loads them as it would load real weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._checkpoints import UNET, VAE, random_zero123

UNET_SD = UNET | {
    "sample_size": 64,
    "in_channels": 4,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
VAE_SD = VAE | {"sample_size": 768}
TEXT = {  # OpenCLIP ViT-H/14's text tower without its last layer
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "max_position_embeddings": 77,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
VISION = {  # OpenCLIP ViT-H/14's picture tower
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}


def random_sd(folder: Path, device: str) -> Path:
    """Stable Diffusion 2.1-base."""
    from diffusers import UNet2DConditionModel

    return _written(_with_text(folder, device), "unet", lambda: UNet2DConditionModel(**UNET_SD), device)


def random_mvdream(folder: Path, device: str, *, with_image: bool = False) -> Path:
    """MVDream on Stable Diffusion 2.1; `with_image`: ImageDream (the pixel controller)."""
    from dataclasses import replace

    from safetensors.torch import save_file

    from dg.priors.multiview_load import CLASS
    from dg.priors.multiview_net import HEAD, PUBLIC, PUBLIC_IMAGE, MultiViewUNet

    _with_text(folder, device)
    with torch.device(device):
        unet = MultiViewUNet(replace(PUBLIC, image=PUBLIC_IMAGE if with_image else None)).half()
    part = folder / "unet"
    part.mkdir(parents=True, exist_ok=True)
    (part / "config.json").write_text(json.dumps({"_class_name": CLASS, "num_head_channels": HEAD}))
    save_file({k: v.cpu() for k, v in unet.state_dict().items()}, part / "diffusion_pytorch_model.safetensors")
    return folder


def random_imagedream(folder: Path, device: str) -> Path:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    random_mvdream(folder, device, with_image=True)
    return _written(folder, "image_encoder", lambda: CLIPVisionModel(CLIPVisionConfig(**VISION)), device)


def _with_text(folder: Path, device: str) -> Path:
    """All of Stable Diffusion 2.1 but its UNet."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    _written(folder, "vae", lambda: AutoencoderKL(**VAE_SD), device)
    _written(folder, "text_encoder", lambda: CLIPTextModel(CLIPTextConfig(**TEXT)), device)
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULE))
    _tokenizer(folder / "tokenizer")
    return folder


def _written(folder: Path, part: str, make: Callable[[], Any], device: str) -> Path:
    with torch.device(device):
        network = make()
    network.half().save_pretrained(folder / part)
    return folder


def _tokenizer(folder: Path) -> None:
    """CLIP's, of single letters: a prompt has more tokens than with the public merges, and they cost the same."""
    from dg.priors.clip_vocabulary import END, LENGTH, START, alphabet

    letters = alphabet()
    tokens = [*letters, *(c + "</w>" for c in letters), START, END]
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    config = marks | {"model_max_length": LENGTH, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _zero123(folder: Path, device: str) -> Path:
    return random_zero123(folder, device=device)


WRITERS: dict[str, Callable[[Path, str], Path]] = {
    "zero123": _zero123,
    "stable_zero123": _zero123,
    "sd": random_sd,
    "mvdream": random_mvdream,
    "imagedream": random_imagedream,
}
