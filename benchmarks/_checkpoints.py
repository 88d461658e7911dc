"""A full-size Zero123 with random weights: as large and as slow as the public one, and free of a download."""

from __future__ import annotations

import json
from pathlib import Path

import torch

UNET = {
    "sample_size": 32,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 256,
    "scaling_factor": 0.18215,
}
CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}


def random_zero123(
    folder: Path,
    *,
    unet: dict = UNET,
    vae: dict = VAE,
    clip: dict = CLIP,
    dtype: torch.dtype = torch.float16,
    device: str = "cpu",
    seed: int = 0,
) -> Path:
    """Writes the diffusers layout (sizes: the public Zero123-XL's configs; 2.5 GB in float16) and returns `folder`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    with torch.device(device):
        parts = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**clip)),
        }
        width = parts["unet"].config.cross_attention_dim
        projection = torch.nn.Linear(width + 4, width)
    for name, module in parts.items():
        module.to(dtype).save_pretrained(folder / name)
    target = folder / "clip_camera_projection"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps({"additional_embeddings": 4, "embedding_dim": width}))
    tensors = {f"proj.{k}": v.detach().to("cpu", dtype).contiguous() for k, v in projection.state_dict().items()}
    save_file(tensors, target / "diffusion_pytorch_model.safetensors")
    return folder
