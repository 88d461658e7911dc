"""The bootstrap against a slow direct version, an exhaustive one, and cases that are known."""

import itertools
import random
from statistics import NormalDist, mean

import numpy as np
import pytest

from dg.eval.board.statistics import mean_estimate, paired_difference, tail_share

# Phi(-sqrt(n / (n - 1)) t_0.975,n-1) by hand: t = 2.7764 for 5 objects, 2.3646 for 8, 2.2010 for 12
TAIL = {n: NormalDist().cdf(-((n / (n - 1)) ** 0.5) * t) for n, t in ((5, 2.776445), (8, 2.364624), (12, 2.200985))}


def slow_bootstrap(pairs, resamples, seed):
    """Word by word: draw objects, then draw each object's seeds; pairs of seeds where both sides have the same."""
    draw = random.Random(seed)
    means = []
    for _ in range(resamples):
        values = []
        for _ in pairs:
            ours, theirs = draw.choice(pairs)
            if set(ours) == set(theirs):
                drawn = [draw.choice(list(ours)) for _ in ours]
                values.append(mean(ours[s] for s in drawn) - mean(theirs[s] for s in drawn))
            else:
                a = [draw.choice(list(ours.values())) for _ in ours]
                b = [draw.choice(list(theirs.values())) for _ in theirs]
                values.append(mean(a) - mean(b))
        means.append(mean(values))
    return np.quantile(means, [TAIL[len(pairs)], 1 - TAIL[len(pairs)]])


def noisy(seed, objects=12, seeds=(0, 1, 2), offset=0.0):
    draw = random.Random(seed)
    levels = [random.Random(i).gauss(20, 3) for i in range(objects)]
    return {f"o{i}": {s: levels[i] + offset + draw.gauss(0, 1) for s in seeds} for i in range(objects)}


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2), (5, 6)], ids=["no common", "same seeds", "other seeds"])
def test_difference_agrees_with_the_slow_version(seeds):
    ours, theirs = noisy(1, offset=1.0), noisy(2, seeds=seeds)
    found = paired_difference(ours, theirs, resamples=10_000)
    low, high = slow_bootstrap([(ours[k], theirs[k]) for k in ours], 2500, 0)
    assert found.mean == pytest.approx(mean(mean(ours[k].values()) - mean(theirs[k].values()) for k in ours))
    width = high - low
    assert abs(found.low - low) < 0.08 * width and abs(found.high - high) < 0.08 * width


def test_mean_agrees_with_the_slow_version_for_uneven_seeds():
    scores = noisy(3)
    scores["o0"] = {0: 25.0}
    scores["o1"] = {0: 15.0, 1: 30.0, 2: 16.0, 3: 22.0}
    found = mean_estimate(scores, resamples=10_000)
    low, high = slow_bootstrap([(v, {-1: 0.0}) for v in scores.values()], 2500, 1)
    width = high - low
    assert abs(found.low - low) < 0.08 * width and abs(found.high - high) < 0.08 * width


def test_the_interval_is_that_of_all_possible_samples():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    every = [mean(sample) for sample in itertools.product(values, repeat=5)]
    found = mean_estimate({str(i): {0: v} for i, v in enumerate(values)}, resamples=30_000)
    assert found.low == pytest.approx(np.quantile(every, TAIL[5]), abs=0.15)
    assert found.high == pytest.approx(np.quantile(every, 1 - TAIL[5]), abs=0.15)


def test_the_tails_are_those_of_student():
    assert [tail_share(n) for n in TAIL] == pytest.approx(list(TAIL.values()), rel=1e-5)
    assert tail_share(100_000) == pytest.approx(0.025, abs=1e-5)


def test_eight_objects_cover_the_truth_as_often_as_they_say():
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        scores = {str(i): {0: float(v)} for i, v in enumerate(draw.normal(0, 1, 8))}
        found = mean_estimate(scores)
        hits += found.low <= 0 <= found.high
    assert 0.92 < hits / 600 < 0.97  # the plain percentile interval gives 0.89


def test_many_objects_give_the_normal_interval():
    draw = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = mean_estimate({str(i): {0: float(v)} for i, v in enumerate(draw)}, resamples=4000)
    half = NormalDist().inv_cdf(0.975) * draw.std() / 20
    assert found.low == pytest.approx(draw.mean() - half, abs=0.02)
    assert found.high == pytest.approx(draw.mean() + half, abs=0.02)


def test_pairing_removes_what_objects_share():
    """Objects differ by ten, methods by exactly one: unpaired intervals overlap, the paired one has no width."""
    base = {str(i): {0: 10.0 * i} for i in range(6)}
    ours = {k: {0: v[0] + 1} for k, v in base.items()}
    a, b, d = mean_estimate(ours), mean_estimate(base), paired_difference(ours, base)
    assert a.low < b.high
    assert (d.mean, d.low, d.high) == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))
    assert d.excludes_zero


def test_a_tie_is_no_difference():
    scores = noisy(4)
    found = paired_difference(scores, scores)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.excludes_zero


def test_every_object_weighs_the_same_whatever_its_seeds():
    assert mean_estimate({"a": {0: 0.0}, "b": dict.fromkeys(range(9), 1.0)}).mean == pytest.approx(0.5)


def test_one_or_two_objects_give_no_interval():
    assert mean_estimate({"a": {0: 1.0}, "b": {0: 2.0}}).low is None
    assert mean_estimate({"a": {0: 1.0}, "b": {0: 2.0}, "c": {0: 3.0}}).low is not None
    found = mean_estimate({"a": {0: 1.0, 1: 3.0}})
    assert (found.mean, found.low, found.high, found.objects, found.values) == (2.0, None, None, 1, 2)
    assert not paired_difference({"a": {0: 1.0}}, {"a": {0: 2.0}}).excludes_zero


def test_only_common_objects_are_paired():
    found = paired_difference({"a": {0: 2.0}, "b": {0: 9.0}, "d": {}}, {"a": {0: 1.0}, "c": {0: 5.0}, "d": {0: 1.0}})
    assert (found.mean, found.objects) == (1.0, 1)
    assert paired_difference({"a": {0: 2.0}}, {"c": {0: 5.0}}) is None
    assert mean_estimate({}) is None and mean_estimate({"a": {}}) is None


def test_same_seed_same_interval_in_any_order():
    scores = noisy(5)
    backwards = dict(reversed(scores.items()))
    assert mean_estimate(scores, seed=3) == mean_estimate(backwards, seed=3)
    assert mean_estimate(scores, seed=3) != mean_estimate(scores, seed=4)
