"""Scorers with the interface of `dg.eval.clip.ClipScorer` that need no weights."""

from __future__ import annotations

import torch
from torch import Tensor


class ColourScorer:
    """Cosines of mean colours."""

    name = "mean colour"

    def image_image(self, a: Tensor, b: Tensor) -> Tensor:
        assert a.shape[1] == b.shape[1] == 3 and float(min(a.min(), b.min())) >= 0 and float(max(a.max(), b.max())) <= 1
        x, y = (torch.nn.functional.normalize(p.mean((2, 3)), dim=1) for p in (a, b))
        return x @ y.T

    def text_image(self, texts: list[str], images: Tensor) -> Tensor:
        return torch.tensor([[len(text) / 100 for _ in images] for text in texts])


class Absent:
    """A scorer whose weights are on no disk."""

    def __init__(self) -> None:
        from dg.eval.clip import Unavailable

        raise Unavailable("the weights of 'nowhere' are not on this machine")
