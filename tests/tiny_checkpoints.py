"""Tiny checkpoints with random weights in the exact public layout: `python tests/tiny_checkpoints.py zero123 DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def zero123(folder: Path, seed: int = 0) -> Path:
    """The layout of ashawkey/zero123-xl-diffusers with 16 to 32 channels instead of 320 to 1280."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    width = 24
    UNet2DConditionModel(
        sample_size=32,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=256,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
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


WRITERS = {"zero123": zero123}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in WRITERS:
        sys.exit(f"usage: python tests/tiny_checkpoints.py {{{','.join(WRITERS)}}} DIR")
    print(WRITERS[sys.argv[1]](Path(sys.argv[2])))
