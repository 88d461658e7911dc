"""The known view as a network sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dg.eval.lpips import distance, needed
from dg.losses.weighted import KnownViewLoss, Target
from dg.types import Render


@dataclass(frozen=True)
class LpipsLoss(KnownViewLoss):
    """Mean LPIPS between the render and the reference, both on white (Zhang et al. 2018, arXiv 1801.03924).

    Attributes:
        net: the backbone; `vgg` is what LPIPS losses usually have, `alex` is ten times cheaper.

    Raises:
        FileNotFoundError: the backbone's weights are not there (nothing is downloaded), unless the weight is 0.
    """

    net: Literal["alex", "vgg"] = "vgg"

    def __post_init__(self) -> None:
        if self.weight:
            needed(self.net)

    def __call__(self, render: Render, target: Target) -> Tensor:
        return distance(render.rgb, target.rgb, self.net).mean()
