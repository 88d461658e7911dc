"""The mask that every distillation may have, and the weights that every one has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dg.core.distill import SDS, SJC, X0, Distillation, silhouette_weight
from dg.core.distill_guided import CSD, NFSD
from dg.core.distill_inverted import ISM, SDI
from dg.core.distill_particles import VSD
from dg.types import Prediction
from tests.unit.test_distill_variants import AB, ALPHA_BAR, curved, draw, name

ALL = [SDS(), SJC(), X0(), SDI(), CSD(), NFSD(), ISM(), VSD()]
GIVEN = draw("z", 2, 1, 8, 8), torch.tensor([60, 600]), draw("eps", 2, 1, 8, 8), ALPHA_BAR


def learnt(z_t: torch.Tensor, t: torch.Tensor) -> Prediction:
    """`curved`, and something as the renders' own score."""
    return replace(curved(z_t, t), own=torch.cos(z_t))


def slow_weight(alpha: np.ndarray, size: int, radius: int, outside: float) -> np.ndarray:
    """Pixel by pixel: the largest alpha of any pixel that touches a cell at most `radius` cells away."""
    step, out = len(alpha) / size, np.zeros((size, size))

    def touched(pixel: int) -> list[int]:
        return [cell for cell in range(size) if pixel < (cell + 1) * step and pixel + 1 > cell * step]

    for y, x in np.ndindex(alpha.shape):
        for i, j in np.ndindex(out.shape):
            if any(abs(i - k) <= radius for k in touched(y)) and any(abs(j - k) <= radius for k in touched(x)):
                out[i, j] = max(out[i, j], alpha[y, x])
    return outside + (1 - outside) * out


@pytest.mark.parametrize(("pixels", "size", "grow"), [(16, 8, 0.0), (16, 8, 0.125), (12, 8, 0.26), (8, 8, 0.125)])
def test_the_mask_pixel_by_pixel(pixels: int, size: int, grow: float) -> None:
    alpha = torch.zeros(1, 1, pixels, pixels)
    alpha[0, 0, 3:5, 6] = torch.tensor([0.4, 1.0])
    alpha[0, 0, -1, 0] = 0.7
    expected = slow_weight(alpha[0, 0].numpy(), size, round(grow * size), 0.2)
    found = silhouette_weight(alpha, (size, size), grow, 0.2)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_silhouette_smaller_than_the_prior_s_space() -> None:
    alpha = torch.zeros(1, 1, 2, 2)
    alpha[0, 0, 0, 1] = 1
    expected = torch.zeros(4, 4)
    expected[:2, 2:] = 1
    assert torch.equal(silhouette_weight(alpha, (4, 4), 0.0, 0.0)[0, 0], expected)


@pytest.mark.parametrize("method", ALL, ids=name)
def test_a_mask_multiplies_the_gradient_and_nothing_else(method: Distillation) -> None:
    alpha = torch.zeros(2, 1, 16, 16)
    alpha[:, :, 4:9, 3:8] = 1
    plain = method.gradient(learnt, *GIVEN)
    masked = replace(method, mask=0.1, outside=0.25).gradient(learnt, *GIVEN, alpha)
    torch.testing.assert_close(masked, plain * silhouette_weight(alpha, (8, 8), 0.1, 0.25))
    assert torch.equal(method.gradient(learnt, *GIVEN, alpha), plain)  # without a mask the silhouette says nothing
    assert (masked / plain).min() < 0.26 and (masked / plain).max() > 0.99
    with pytest.raises(ValueError, match="needs the render's silhouette"):
        replace(method, mask=0.1).gradient(learnt, *GIVEN)


@pytest.mark.parametrize("method", ALL, ids=name)
@pytest.mark.parametrize(
    ("weighting", "w"),
    [
        ("1-alpha_bar", lambda a: 1 - a),
        ("fantasia3d", lambda a: a**0.5 * (1 - a)),
        ("noise_to_signal", lambda a: ((1 - a) / a) ** 0.5),
    ],
)
def test_every_weight_works_with_every_distillation(method: Distillation, weighting: str, w) -> None:
    plain = replace(method, weighting="uniform").gradient(learnt, *GIVEN)
    weighted = replace(method, weighting=weighting).gradient(learnt, *GIVEN)
    factor = torch.tensor([w(float(AB[t])) for t in (60, 600)], dtype=torch.float32).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(weighted, plain * factor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ALL, ids=name)
@pytest.mark.parametrize("wrong", [{"mask": -0.1}, {"mask": 1.0}, {"outside": 1.5}], ids=str)
def test_impossible_masks(method: Distillation, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        replace(method, **wrong)
