"""A run's losses as terms of the sum that a step descends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dg.losses.weighted import Weighted


def wanted(losses: Mapping[str, Weighted], kind: type[Weighted]) -> bool:
    """Whether any loss of the kind has a weight: what it looks at need not be made otherwise."""
    return any(isinstance(loss, kind) and loss.weight for loss in losses.values())


def terms(losses: Mapping[str, Weighted], kind: type[Weighted], frac: float, *seen: Any) -> dict[str, Tensor]:
    """The losses of one kind that have a weight, by name, times their weights at this fraction of the run.

    Args:
        kind: `KnownViewLoss`, `SplatLoss` or `NovelViewLoss`.
        seen: what losses of that kind are called with.
    """
    return {
        name: loss.weight_at(frac) * loss(*seen)
        for name, loss in losses.items()
        if isinstance(loss, kind) and loss.weight
    }
