"""Perp-Neg's formula by hand, and which words a camera gets."""

import math

import torch

from dg.core.diffusion import guide
from dg.core.perp_neg import VIEWS, mix_views, nearest_view, perp_neg, perpendicular


def picture(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def test_the_formula_by_hand():
    uncond, cond = picture(1, 1), picture(3, 1)  # e = (2, 0)
    negatives = torch.stack([picture(5, 4), picture(0, -1)], 1)  # e_1 = (4, 3), e_2 = (-1, -2)
    weights = torch.tensor([[-0.5, -2.0]])
    # perpendicular to (2, 0): (0, 3) and (0, -2); the sum is (0, -1.5 + 4)
    torch.testing.assert_close(perp_neg(cond, uncond, negatives, weights), picture(3, 3.5))
    guided = guide(perp_neg(cond, uncond, negatives, weights), uncond, 10.0)
    torch.testing.assert_close(guided, picture(1 + 10 * 2, 1 + 10 * 2.5))


def test_what_overlaps_with_the_text_is_not_taken_from_it():
    torch.manual_seed(0)
    cond, uncond = torch.randn(2, 2, 4, 8, 8)
    weights = torch.full((2, 1), -3.0)
    torch.testing.assert_close(perp_neg(cond, uncond, cond[:, None], weights), cond)
    x = perpendicular(torch.randn(2, 4, 8, 8), cond)
    assert (x * cond).flatten(1).sum(1).abs().max() < 1e-3
    same = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(perpendicular(same, torch.zeros_like(same)), same)


def test_each_sample_has_its_own_projection_and_weight():
    torch.manual_seed(0)
    cond, uncond, a, b = torch.randn(4, 2, 4, 8, 8)
    negatives, weights = torch.stack([a, b], 1), torch.tensor([[-1.0, 0.0], [0.0, -2.0]])
    together = perp_neg(cond, uncond, negatives, weights)
    for i in range(2):
        e = (cond[i] - uncond[i]).flatten()
        n = (negatives[i, i] - uncond[i]).flatten()
        expected = cond[i].flatten() + weights[i, i] * (n - (n @ e) / (e @ e) * e)
        torch.testing.assert_close(together[i].flatten(), expected)


def test_words_by_azimuth_and_elevation():
    azimuth = torch.tensor([0.0, 59, -59, 61, -119, 121, 180, -180, 300, 359, 0, 0])
    elevation = torch.tensor([0.0] * 10 + [-60, 60])  # negative is from above
    names = [VIEWS[i] for i in nearest_view(elevation, azimuth).tolist()]
    assert names == ["front"] * 3 + ["side"] * 2 + ["back"] * 3 + ["side", "front", "overhead", "front"]


def test_the_mixture_of_texts():
    mixture = mix_views(torch.tensor([0.0, 0, 0, 0, 10, -70]), torch.tensor([0.0, 90, -180, 45, 225, 20]))
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(mixture.positive, torch.tensor(expected).float())
    assert mixture.negative[:, 0].tolist() == [
        VIEWS.index(v) for v in ("front", "side", "side", "front", "side", "front")
    ]
    front, side = 4 - 2.426, 4 * math.exp(-0.25) - 2.426
    weights = [[0, -front], [-(math.exp(-0.5) - 0.606), -(math.exp(-0.5) + 0.967)], [-0.394, -1.967], [-side, -side]]
    torch.testing.assert_close(mixture.weights[:4], torch.tensor(weights), atol=2e-4, rtol=0)
    assert mixture.weights[5].tolist() == [0, 0] and (mixture.weights <= 0).all()
