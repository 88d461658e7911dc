"""Words for views, and Perp-Neg: text priors prefer front views, so every side of an object gets a face (Janus).

Perp-Neg (Armandpour et al. 2023, arXiv 2304.04968) pushes away from what other views' texts ask for, but only along
what is perpendicular to the text itself. Its weights by view, as shifted exponentials a exp(-b r) + c, are those in
public use (threestudio's defaults, as facts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

VIEWS = ("front", "side", "back", "overhead")
_FRONT, _SIDE, _BACK, _OVERHEAD = range(4)
FRONT_BELOW_DEG, SIDE_BELOW_DEG = 60.0, 120.0  # azimuth from the front (DreamGaussian's sd_utils.py)
OVERHEAD_DEG = 60.0  # above the horizon

_SIDE_AT_BACK = (1.0, 0.5, -0.606)  # against "side", between side (0) and back
_FRONT_AT_BACK = (1.0, 0.5, 0.967)  # against "front", between side and back
_AT_FRONT = (4.0, 0.5, -2.426)  # against "front" and "side", between front and side; 0 at the view itself


def nearest_view(elevation_deg: Float[Tensor, V], azimuth_deg: Float[Tensor, V]) -> Int[Tensor, V]:
    """The index in `VIEWS` of the words for a camera. Azimuth 0 is the front; elevation is negative from above."""
    turn = from_front(azimuth_deg)
    view = torch.full_like(turn, _BACK, dtype=torch.long)
    view[turn < SIDE_BELOW_DEG] = _SIDE
    view[turn < FRONT_BELOW_DEG] = _FRONT
    view[elevation_deg <= -OVERHEAD_DEG] = _OVERHEAD
    return view


def from_front(azimuth_deg: Float[Tensor, V]) -> Float[Tensor, V]:
    """The angle to the front, in [0, 180] degrees."""
    return ((azimuth_deg + 180) % 360 - 180).abs()


@dataclass(frozen=True)
class ViewMixture:
    """Which of the four views' texts a camera gets, and which it is pushed away from."""

    positive: Float[Tensor, "V 4"]  # shares of the four texts; they add up to 1
    negative: Int[Tensor, "V 2"]  # indices of the two texts to avoid
    weights: Float[Tensor, "V 2"]  # of those, 0 or less


def mix_views(elevation_deg: Float[Tensor, V], azimuth_deg: Float[Tensor, V]) -> ViewMixture:
    """Perp-Neg's texts: linear between front, side and back; a view from overhead avoids nothing."""
    rows = [_mix(e, a) for e, a in zip(elevation_deg.tolist(), from_front(azimuth_deg).tolist(), strict=True)]
    positive, negative, weights = (torch.tensor(list(column)) for column in zip(*rows, strict=True))
    return ViewMixture(positive, negative, weights)


def _mix(elevation_deg: float, turn_deg: float) -> tuple[list[float], list[int], list[float]]:
    if elevation_deg <= -OVERHEAD_DEG:
        return [0.0, 0.0, 0.0, 1.0], [_FRONT, _SIDE], [0.0, 0.0]
    if turn_deg < 90:
        r = 1 - turn_deg / 90  # 1 at the front, 0 at the side
        weights = [-_decay(*_AT_FRONT, r), -_decay(*_AT_FRONT, 1 - r)]
        return [r, 1 - r, 0.0, 0.0], [_FRONT, _SIDE], weights
    r = 2 - turn_deg / 90  # 1 at the side, 0 at the back
    return [0.0, r, 1 - r, 0.0], [_SIDE, _FRONT], [-_decay(*_SIDE_AT_BACK, r), -_decay(*_FRONT_AT_BACK, r)]


def _decay(a: float, b: float, c: float, r: float) -> float:
    """Nought where the constants' rounding would make it slightly negative."""
    return max(a * math.exp(-b * r) + c, 0.0)


def perpendicular(x: Float[Tensor, "B *"], y: Float[Tensor, "B *"]) -> Float[Tensor, "B *"]:
    """x without its part along y, each sample by itself; x itself where y is zero."""
    flat_x, flat_y = x.flatten(1), y.flatten(1)
    along = (flat_x * flat_y).sum(1) / flat_y.square().sum(1).clamp_min(1e-12)
    return x - along.reshape(-1, *([1] * (x.ndim - 1))) * y


def perp_neg(
    cond: Float[Tensor, "B C h w"],
    uncond: Float[Tensor, "B C h w"],
    negatives: Float[Tensor, "B N C h w"],
    weights: Float[Tensor, "B N"],
) -> Float[Tensor, "B C h w"]:
    """The conditional prediction that makes guidance Perp-Neg's.

    With e = cond - uncond and e_i = negative_i - uncond it is uncond + e + sum_i w_i perp(e_i; e), so that
    `dg.core.diffusion.guide` gives uncond + scale (e + sum_i w_i perp(e_i; e)).
    """
    towards = cond - uncond
    total = cond
    for i in range(negatives.shape[1]):
        weight = weights[:, i].to(cond).reshape(-1, 1, 1, 1)
        total = total + weight * perpendicular(negatives[:, i] - uncond, towards)
    return total
