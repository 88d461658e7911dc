"""Of several reference pictures, the one that a novel view is told about."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from dg.core.camera import spherical
from dg.types import Cameras


def nearest_reference(cameras: Cameras, references: Cameras) -> Int[Tensor, "B"]:
    """For each view the index of the reference nearest in azimuth; of equally near ones the first. On their device."""
    if len(references) == 1:
        return torch.zeros(len(cameras), dtype=torch.long, device=cameras.c2w.device)
    azimuth, known = spherical(cameras)[1], spherical(references)[1].to(cameras.c2w.device)
    away = (azimuth[:, None] - known + 180) % 360 - 180
    return (away.abs() * 1e3).round().argmin(1)  # thousandths of a degree: rounding must not break ties


def chosen(references: Cameras, index: Int[Tensor, "B"]) -> Cameras:
    """One reference camera for each view."""
    index = index.to(references.c2w.device)
    return replace(references, c2w=references.c2w[index], K=references.K[index])
