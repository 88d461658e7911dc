"""AlexNet with random weights, where and as torchvision stores its own: LPIPS without a download."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import alexnet

from dg.eval.lpips import BACKBONES


def write_random_alexnet(hub: Path) -> dict[str, Tensor]:
    """Below the folder `hub`, which `torch.hub._hub_dir` is to name; returns the weights."""
    draw = torch.Generator().manual_seed(0)
    state = {}
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in alexnet(weights=None).state_dict().items()}
    for name, shape in shapes.items():  # the classifier is not used: one zero stands for all
        is_feature = name.startswith("features")
        state[name] = 0.05 * torch.randn(shape, generator=draw) if is_feature else torch.zeros(1).expand(shape)
    (hub / "checkpoints").mkdir(exist_ok=True)
    torch.save(state, hub / "checkpoints" / BACKBONES["alex"])
    return state
