"""The benchmark's stand-in for Zero123's weights has the public layout, at any size."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks._checkpoints import UNET, random_zero123
from dg.core.camera import orbit
from dg.priors.zero123 import Zero123
from dg.types import Reference

SMALL_UNET = UNET | {
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 24,
}
SMALL_VAE = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * 4}
SMALL_VAE |= {"up_block_types": ("UpDecoderBlock2D",) * 4, "latent_channels": 4, "scaling_factor": 0.18215}
SMALL_CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL_CLIP |= {"image_size": 224, "patch_size": 32, "projection_dim": 24}


def test_a_checkpoint_that_the_prior_reads(tmp_path: Path) -> None:
    made = random_zero123(tmp_path, unet=SMALL_UNET, vae=SMALL_VAE, clip=SMALL_CLIP, dtype=torch.float32)
    prior = Zero123(checkpoint=str(made))
    reference = Reference(torch.rand(1, 64, 64, 4), orbit(0.0, 0.0, height=64))
    condition = prior.condition(reference, None, orbit(0.0, [30.0, 90.0], height=64), torch.ones(2, 3))
    z = torch.randn(2, 4, 32, 32)
    answer = prior.predict(z, torch.tensor([500, 500]), condition)
    assert answer.cond.shape == answer.uncond.shape == z.shape and answer.cond.isfinite().all()
    assert not torch.allclose(answer.cond, answer.uncond)
