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
_MODELS = {"alex": "alexnet", "vgg": "vgg16"}


def missing(net: Literal["alex", "vgg"]) -> str | None:
    """Why LPIPS cannot be had, or None if it can."""
    if _weights(net).is_file():
        return None
    return f"torchvision's weights are not in torch's cache: hub/checkpoints/{BACKBONES[net]}"


def needed(net: Literal["alex", "vgg"]) -> None:
    """Raises FileNotFoundError with the mend, in one line, if LPIPS cannot be had."""
    reason = missing(net)
    if reason:
        raise FileNotFoundError(
            f"LPIPS with net={net} cannot be had: {reason}; fetch them where there is a network, with `python -c "
            f"'import torchvision; torchvision.models.{_MODELS[net]}(weights=\"DEFAULT\")'`, and put the file to "
            f"{_weights(net)}"
        )


def lpips(a: Float[Tensor, "V H W 3"], b: Float[Tensor, "V H W 3"], net: Literal["alex", "vgg"]) -> Float[Tensor, V]:
    """Perceptual distance per view, at the size the pictures have, without gradient.

    Raises:
        ValueError: the weights are absent; says where they belong.
    """
    reason = missing(net)
    if reason:
        raise ValueError(f"lpips_{net}: {reason}")
    with torch.no_grad():
        return distance(a, b, net)


def distance(a: Float[Tensor, "V H W 3"], b: Float[Tensor, "V H W 3"], net: Literal["alex", "vgg"]) -> Float[Tensor, V]:
    """The same with gradients to both pictures, on their device; colours are clamped to [0, 1]."""
    a, b = (x.clamp(0, 1).movedim(-1, 1).float() * 2 - 1 for x in (a, b))
    return _network(net, str(torch.hub.get_dir()), a.device)(a, b).reshape(-1)


def _weights(net: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]


@lru_cache(maxsize=4)
def _network(net: str, hub: str, device: torch.device) -> torch.nn.Module:
    """`hub` is part of the key: another cache holds other weights."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type=net).net.eval().requires_grad_(False).to(device)
