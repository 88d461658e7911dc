"""Directions spread over the sphere."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def directions(count: int) -> Float[Tensor, "K 3"]:
    """Unit vectors spread evenly over the sphere, from above to below (Fibonacci lattice)."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    y = 1 - 2 * i / count
    phi = math.pi * (1 + math.sqrt(5)) * i
    r = (1 - y * y).sqrt()
    return torch.stack([r * phi.cos(), y, r * phi.sin()], -1).float()
