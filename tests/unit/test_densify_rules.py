"""The rules beside the release's, against slow references."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from dg.core.densify import AdaptiveDensity, NoDensity, Statistics
from dg.core.densify_compact import CompactDensity, fill_gaps, neighbour_pairs
from dg.core.densify_fixed import FixedCount
from dg.core.densify_mcmc import MAX_COPIES, MCMCDensity, position_noise, relocate, share
from dg.core.floaters import WithoutFloaters, floaters
from dg.core.gaussians import RawGaussians, ball
from dg.core.rng import generator
from dg.core.splat import rotation_from_quat
from tests.unit.test_densify import raw_with


def applied(raw: RawGaussians, edit) -> RawGaussians:
    """What an edit leaves, without an optimiser."""
    result = {k: v[edit.keep] for k, v in raw.as_dict().items()}
    if edit.append is not None:
        result = {k: torch.cat([v, edit.append.as_dict()[k]]) for k, v in result.items()}
    return RawGaussians(**result | dict(edit.replace or {}))


def cloud(n: int = 200, scale: float = 0.02) -> RawGaussians:
    raw = ball(generator(0, "cloud"), num_points=n)
    draw = generator(1, "cloud")
    return replace(
        raw,
        log_scales=math.log(scale) + 0.3 * torch.randn(n, 3, generator=draw),
        quats=torch.randn(n, 4, generator=draw),
        opacity_logits=torch.randn(n, 1, generator=draw),
    )


# MCMC


@pytest.mark.parametrize("opacity", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("copies", [1, 2, 5, 20])
def test_copies_together_look_like_the_one_they_came_from(opacity: float, copies: int) -> None:
    """The centre's alpha, and the integral of the composited alpha along a line, by quadrature."""
    each, factor = (float(x) for x in share(torch.tensor([opacity], dtype=torch.float64), torch.tensor([copies])))
    assert 1 - (1 - each) ** copies == pytest.approx(opacity, rel=1e-9)
    x = np.linspace(-12, 12, 200_001)
    before = np.trapezoid(opacity * np.exp(-(x**2) / 2), x)
    after = np.trapezoid(1 - (1 - each * np.exp(-(x**2) / (2 * factor**2))) ** copies, x)
    assert after == pytest.approx(before, rel=1e-6)


def test_the_double_sum_of_the_paper() -> None:
    opacity, n = 0.7, 7
    each, factor = (float(x) for x in share(torch.tensor([opacity], dtype=torch.float64), torch.tensor([n])))
    total = sum(
        math.comb(i - 1, k) * (-1) ** k * each ** (k + 1) / math.sqrt(k + 1) for i in range(1, n + 1) for k in range(i)
    )
    assert factor == pytest.approx(opacity / total, rel=1e-9)


def test_one_stays_what_it_is_and_many_stay_finite() -> None:
    o = torch.tensor([0.3, 0.3, 0.999])
    opacity, factor = share(o, torch.tensor([1, 10_000, MAX_COPIES]))
    assert opacity[0] == pytest.approx(0.3) and factor[0] == pytest.approx(1)
    assert torch.isfinite(factor).all() and (factor > 0).all()


def test_the_dead_move_to_the_living_and_the_set_grows() -> None:
    raw = replace(cloud(), opacity_logits=torch.cat([torch.full((40, 1), -7.0), torch.randn(160, 1)]))
    result = MCMCDensity().edit(100, 500, raw, Statistics.zeros(200), generator(0, "m"))
    after = applied(raw, result.edit)
    assert len(after) == 210 and (result.prunes, result.clones) == (40, 50)
    assert after.opacity_logits.sigmoid().min() > 0.005
    live = {tuple(p) for p in raw.means[40:].tolist()}
    assert {tuple(p) for p in after.means.tolist()} == live
    # what lies at one place looks as before
    for place in live:
        at_old, at_new = ((x.means == torch.tensor(place)).all(1) for x in (raw, after))
        together = 1 - (1 - after.opacity_logits[at_new].sigmoid()).prod()
        torch.testing.assert_close(together, raw.opacity_logits[at_old].sigmoid()[0, 0], rtol=1e-4, atol=1e-6)


def test_opaque_ones_are_drawn_more_often() -> None:
    raw = raw_with([0.1] * 3, [0.1, 0.8, 0.1])
    edits = [relocate(raw, torch.zeros(3, dtype=torch.bool), 40, generator(seed, "m")) for seed in range(50)]
    at = torch.stack([applied(raw, e).means[:, None].eq(raw.means).all(-1).sum(0) for e in edits]) - 1
    torch.testing.assert_close(at.float().mean(0), 40 * torch.tensor([0.1, 0.8, 0.1]), rtol=0, atol=1.2)
    assert (at.sum(1) == 40).all()


def test_growth_ends_at_the_cap_and_nothing_moves_at_other_times() -> None:
    rule = MCMCDensity(max_gaussians=203)
    assert len(applied(cloud(), rule.edit(100, 500, cloud(), Statistics.zeros(200), generator(0, "m")).edit)) == 203
    assert rule.edit(150, 500, cloud(), Statistics.zeros(200), generator(0, "m")) is None
    assert rule.edit(500, 500, cloud(), Statistics.zeros(200), generator(0, "m")) is None
    with pytest.raises(FloatingPointError, match="all 2 Gaussians are fainter"):
        rule.edit(100, 500, raw_with([0.1] * 2, [0.001] * 2), Statistics.zeros(2), generator(0, "m"))
    assert rule.final(raw_with([0.1] * 2, [0.001, 0.5]), Statistics.zeros(2)).edit.keep.tolist() == [False, True]
    assert "no Gaussian ever moves in 50 steps" in rule.inert(50)[0] and not rule.inert(500)


def test_noise_has_the_shape_of_the_gaussian_and_fades_with_opacity() -> None:
    n = 20_000
    one = replace(
        raw_with([0.1]), log_scales=torch.tensor([[0.3, 0.1, 0.05]]).log(), quats=torch.tensor([[0.5, 0.5, -0.5, 0.5]])
    )
    many = RawGaussians(**{k: v.expand(n, *v.shape[1:]) for k, v in one.as_dict().items()})
    many = replace(many, opacity_logits=torch.full((n, 1), 0.005).logit())
    noise = position_noise(many, generator(0, "n"), amount=2.0, min_opacity=0.005)
    R = rotation_from_quat(one.quats)[0].double()
    sigma = R @ torch.diag(torch.tensor([0.09, 0.01, 0.0025], dtype=torch.float64)) @ R.T
    white = noise.double() @ torch.linalg.inv(2.0 * 0.5 * sigma)  # the gate is 1/2 at min_opacity
    torch.testing.assert_close(white.T.cov(), torch.eye(3, dtype=torch.float64), rtol=0, atol=0.04)
    solid = replace(many, opacity_logits=torch.full((n, 1), 0.5).logit())
    assert position_noise(solid, generator(0, "n"), amount=2.0, min_opacity=0.005).abs().max() < 1e-15
    assert MCMCDensity(noise_lr=0).noise(one, 0.01, generator(0, "n")) is None


def test_the_penalty_is_the_mean_opacity_and_scale() -> None:
    raw = raw_with([0.1, 0.3], [0.2, 0.6])
    assert float(MCMCDensity(opacity_reg=2.0, scale_reg=5.0).penalty(raw)) == pytest.approx(2 * 0.4 + 5 * 0.2)
    assert MCMCDensity(opacity_reg=0, scale_reg=0).penalty(raw) is None
    assert NoDensity().penalty(raw) is None and AdaptiveDensity().noise(raw, 1.0, generator(0, "n")) is None


# Compactness


def test_pairs_are_found_as_by_hand() -> None:
    points = cloud(40).means
    distance = torch.cdist(points.double(), points.double())
    near = [set(row.argsort()[1:4].tolist()) for row in distance]
    expected = [[i, j] for i, j in combinations(range(40), 2) if j in near[i] or i in near[j]]
    assert neighbour_pairs(points, 3).tolist() == expected
    assert neighbour_pairs(points[:1], 3).shape == (0, 2) and neighbour_pairs(points[:2], 3).tolist() == [[0, 1]]


def test_a_gap_on_a_line_is_filled_in_its_middle() -> None:
    raw = replace(raw_with([0.1, 0.2], [0.5, 0.5]), means=torch.tensor([[0.0, 0, 0], [0, 0, 1]]))
    new = fill_gaps(raw, 3)
    torch.testing.assert_close(new.means, torch.tensor([[0, 0, 0.45]]))  # from 0.1 to 0.8
    torch.testing.assert_close(new.log_scales.exp(), torch.full((1, 3), 0.7 / 6))
    assert len(fill_gaps(replace(raw, log_scales=torch.full((2, 3), math.log(0.51))), 3)) == 0


def test_gaps_of_turned_ellipsoids_by_bisection() -> None:
    """Each surface is found by walking along the line until the Mahalanobis distance is 1."""
    raw = cloud(30, scale=0.12)

    def reach(i: int, direction: torch.Tensor) -> float:
        R = rotation_from_quat(raw.quats[i : i + 1])[0].double()
        inverse = torch.linalg.inv(R @ torch.diag((2 * raw.log_scales[i]).double().exp()) @ R.T)
        lo, hi = 0.0, 10.0
        for _ in range(60):
            mid = (lo + hi) / 2
            p = mid * direction
            lo, hi = (mid, hi) if p @ inverse @ p < 1 else (lo, mid)
        return lo

    expected = []
    for i, j in neighbour_pairs(raw.means, 3).tolist():
        apart = (raw.means[j] - raw.means[i]).double()
        u = apart / apart.norm()
        a, b = reach(i, u), reach(j, u)
        if (gap := float(apart.norm()) - a - b) > 0:
            expected.append([*(raw.means[i].double() + (a + gap / 2) * u).tolist(), gap / 6])
    new = fill_gaps(raw, 3)
    found = torch.cat([new.means, new.log_scales[:, :1].exp()], 1).double()
    assert 10 < len(expected) < len(neighbour_pairs(raw.means, 3))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-6)


def test_filling_prunes_fires_and_stops_as_the_release() -> None:
    raw = raw_with([0.01] * 4, [0.5, 0.5, 0.001, 0.5])
    rule = CompactDensity()
    result = rule.edit(100, 500, raw, Statistics.zeros(4), generator(0, "c"))
    assert result.edit.keep.tolist() == [True, True, False, True] and result.clones == 3 and result.prunes == 1
    assert rule.edit(150, 500, raw, Statistics.zeros(4), generator(0, "c")) is None
    assert replace(rule, max_gaussians=5).edit(100, 500, raw, Statistics.zeros(4), generator(0, "c")).clones == 0


# Fixed count, absolute gradients, floaters


def test_what_goes_is_replaced_where_gradients_are_largest() -> None:
    raw = raw_with([0.02, 0.1, 0.02, 0.02, 0.02], [0.5, 0.5, 0.001, 0.001, 0.5])
    stats = replace(Statistics.zeros(5), grad_sum=torch.tensor([1e-9, 2e-9, 9, 9, 0]), count=torch.ones(5))
    result = FixedCount().edit(100, 500, raw, stats, generator(0, "f"))
    assert result.edit.keep.tolist() == [True, False, False, False, True]
    assert (result.clones, result.splits, result.prunes, len(result.edit.append)) == (1, 1, 2, 3)
    torch.testing.assert_close(result.edit.append.means[0], raw.means[0])
    assert FixedCount().final(raw, stats).edit.keep.all()


def test_the_count_never_changes_over_a_run() -> None:
    raw = cloud()
    for step in range(100, 500, 100):
        draw = generator(step, "f")
        raw = replace(raw, opacity_logits=torch.randn(200, 1, generator=draw) * 4)
        stats = replace(Statistics.zeros(200), grad_sum=torch.rand(200, generator=draw), count=torch.ones(200))
        result = FixedCount(min_opacity=0.02).edit(step, 1000, raw, stats, draw)
        raw = applied(raw, result.edit)
        assert len(raw) == 200 and result.prunes > 5
    with pytest.raises(FloatingPointError, match="would remove all"):
        FixedCount().edit(100, 500, raw_with([0.1], [0.001]), Statistics.zeros(1), generator(0, "f"))


def test_floaters_are_found_as_by_hand() -> None:
    points = torch.cat([cloud(80).means, torch.tensor([[2.0, 0, 0], [0, 2.2, 0]])])
    distance = torch.cdist(points.double(), points.double())
    near = distance.sort(1).values[:, 1:5].mean(1)
    expected = near > near.mean() + 3 * near.var(correction=0).sqrt()
    assert floaters(points, neighbours=4, deviations=3.0).equal(expected) and expected.nonzero().flatten().tolist() == [
        80,
        81,
    ]
    assert not floaters(points[:4], neighbours=4, deviations=0.0).any()


def test_floaters_go_beside_another_rule() -> None:
    raw = cloud(60)
    raw = replace(raw, means=torch.cat([raw.means[:-1], torch.tensor([[3.0, 0, 0]])]))
    inner = AdaptiveDensity(opacity_reset_interval=100, min_opacity=0.0)
    rule = WithoutFloaters(inner, interval=50, neighbours=4)
    assert rule.edit(40, 500, raw, Statistics.zeros(60), generator(0, "w")) is None
    alone = rule.edit(50, 500, raw, Statistics.zeros(60), generator(0, "w"))
    assert alone.edit.keep.sum() == 59 and not alone.edit.keep[-1] and alone.prunes == 1
    stats = replace(Statistics.zeros(60), grad_sum=torch.ones(60), count=torch.ones(60))
    both = rule.edit(100, 500, raw, stats, generator(0, "w"))
    after = applied(raw, both.edit)
    assert len(after) == 118 and after.means.norm(dim=1).max() < 1 and after.opacity_logits.sigmoid().max() < 0.0101
    assert not rule.final(raw, stats).edit.keep[-1]
    assert rule.gathers(100) == inner.gathers(100) and rule.gathers(1) == inner.gathers(1)
    assert WithoutFloaters(AdaptiveDensity(absolute_gradient=True)).absolute_gradient
    assert WithoutFloaters(MCMCDensity()).penalty(raw) is not None
    assert WithoutFloaters(MCMCDensity()).noise(raw, 0.01, generator(0, "w")) is not None
    assert "floaters go only at the end" in WithoutFloaters(NoDensity(), interval=100).inert(50)[0]
