"""LPIPS (Zhang et al. 2018) through torchmetrics; its backbone's weights are read from torch's cache, never fetched."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# what torchvision calls its ImageNet weights; torchmetrics ships the small linear layers on top of them
BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


def missing(net: Literal["alex", "vgg"]) -> str | None:
    """Why LPIPS cannot be had, or None if it can."""
    if _weights(net).is_file():
        return None
    return f"torchvision's weights are not in torch's cache: hub/checkpoints/{BACKBONES[net]}"


def lpips(a: Float[Tensor, "V H W 3"], b: Float[Tensor, "V H W 3"], net: Literal["alex", "vgg"]) -> Float[Tensor, V]:
    """Perceptual distance per view, at the size the pictures have.

    Raises:
        ValueError: the weights are absent; says where they belong.
    """
    reason = missing(net)
    if reason:
        raise ValueError(f"lpips_{net}: {reason}")
    a, b = (x.clamp(0, 1).movedim(-1, 1).float() * 2 - 1 for x in (a, b))
    with torch.no_grad():
        return _network(net, str(torch.hub.get_dir()))(a, b).reshape(-1)


def _weights(net: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]


@lru_cache(maxsize=2)
def _network(net: str, hub: str) -> torch.nn.Module:
    """`hub` is part of the key: another cache holds other weights."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type=net).net.eval()
