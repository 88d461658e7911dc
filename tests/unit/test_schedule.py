from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dg.core.rng import generator
from dg.core.schedule import (
    ConstantAnneal,
    DreamTimeAnneal,
    LinearAnneal,
    ResolutionRamp,
    ShrinkingIntervalAnneal,
    SqrtAnneal,
    UniformAnneal,
    log_linear,
)

DRAW = generator(0, "test")


@pytest.mark.parametrize(
    ("step", "max_steps", "lr"),
    [
        (1, 500, 0.00992206),
        (100, 500, 0.00457305),
        (250, 500, 0.00141421),
        (500, 500, 0.0002),
        (1, 300, 0.00987045),
        (150, 300, 0.00141421),
        (400, 300, 0.0002),
    ],
)
def test_position_lr_of_the_release(step, max_steps, lr):
    assert log_linear(step / max_steps, 0.01, 0.0002) == pytest.approx(lr, rel=1e-5)


@pytest.mark.parametrize(("step", "t"), [(1, 980), (10, 980), (300, 400), (490, 20), (500, 20)])
def test_linear_anneal_of_the_release(step, t):
    assert LinearAnneal()(step / 500, DRAW, 1000) == t


@pytest.mark.parametrize(("until", "ts"), [(0.5, (980, 500, 20, 20)), (2.0, (980, 875, 750, 500))])
def test_linear_anneal_at_another_speed(until, ts):
    assert tuple(LinearAnneal(until=until)(frac, DRAW, 1000) for frac in (0.0, 0.25, 0.5, 1.0)) == ts


def test_an_annealing_that_takes_no_time_is_refused():
    with pytest.raises(ValueError, match="until=0 must be a positive share of the run"):
        LinearAnneal(until=0)


def test_sqrt_anneal_runs_from_max_to_min():
    anneal = SqrtAnneal()
    assert anneal(0.0, DRAW, 1000) == 980
    assert anneal(1.0, DRAW, 1000) == 20
    assert anneal(0.25, DRAW, 1000) == 500


def test_uniform_covers_both_ends():
    draw = generator(0, "uniform")
    ts = [UniformAnneal(0.02, 0.025)(0.5, draw, 1000) for _ in range(200)]
    assert set(ts) == {20, 21, 22, 23, 24, 25}


@given(st.floats(0, 1))
def test_annealed_t_stays_in_bounds(frac):
    everything = (LinearAnneal(), SqrtAnneal(), UniformAnneal(), DreamTimeAnneal(), ShrinkingIntervalAnneal())
    for anneal in (*everything, ConstantAnneal()):
        assert 20 <= anneal(frac, torch.Generator().manual_seed(0), 1000) <= 980


def test_constant_is_one_t():
    assert {ConstantAnneal(0.354)(frac, DRAW, 1000) for frac in (0.0, 0.3, 1.0)} == {354}
    with pytest.raises(ValueError, match="not 1"):
        ConstantAnneal(1.0)


@pytest.mark.parametrize("steps", [1000, 500])
def test_dreamtime_is_the_nearest_tail_of_its_weight(steps):
    """Literally: for every fraction, try every t and add up W above it."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, steps) ** 2
    a = np.cumprod(1 - betas)
    lo, hi = int(0.02 * steps), int(0.98 * steps)

    def w(t):
        u = t * 1000 / steps
        flank = np.exp(-((u - 800) ** 2) / (2 * 300**2)) if u > 800 else 1.0
        flank = np.exp(-((u - 500) ** 2) / (2 * 100**2)) if u < 500 else flank
        return np.sqrt((1 - a[t]) / a[t]) * flank

    weights = np.array([w(t) for t in range(lo, hi + 1)])
    for frac in np.linspace(0, 1, 41):
        apart = [abs(weights[t - lo :].sum() / weights.sum() - frac) for t in range(lo, hi + 1)]
        found = DreamTimeAnneal()(float(frac), DRAW, steps)
        assert apart[found - lo] == pytest.approx(min(apart), abs=1e-6)


def test_dreamtime_falls_and_spends_its_steps_where_the_weight_is():
    ts = [DreamTimeAnneal()(i / 500, DRAW, 1000) for i in range(501)]
    assert all(later <= sooner for sooner, later in pairwise(ts)) and ts[0] == 980
    density = DreamTimeAnneal().weight(torch.arange(20, 981), 1000)
    share = float(density[500 - 20 : 801 - 20].sum() / density.sum())
    assert sum(500 <= t <= 800 for t in ts) / 501 == pytest.approx(share, abs=0.005)
    with pytest.raises(ValueError, match="m2=900 must not exceed m1=800"):
        DreamTimeAnneal(m2=900)
    with pytest.raises(ValueError, match="ascend"):
        DreamTimeAnneal(t_min=0.9, t_max=0.1)


@pytest.mark.parametrize(("frac", "lo", "hi"), [(0.0, 500, 980), (0.5, 260, 540), (1.0, 20, 100)])
def test_the_interval_moves_and_shrinks(frac, lo, hi):
    draw = generator(0, "interval")
    ts = np.array([ShrinkingIntervalAnneal()(frac, draw, 1000) for _ in range(2000)])
    assert lo <= ts.min() < lo + 0.02 * (hi - lo) + 1 and hi - 0.02 * (hi - lo) - 1 < ts.max() <= hi
    uniform = np.sqrt((hi - lo) ** 2 / 12)  # standard deviation of a uniform draw
    assert ts.mean() == pytest.approx((lo + hi) / 2, abs=4 * uniform / np.sqrt(2000))
    assert ts.std() == pytest.approx(uniform, rel=0.05)


def test_an_interval_of_no_width_is_a_line_and_a_wrong_one_is_refused():
    line = ShrinkingIntervalAnneal(0.98, 0.98, 0.02, 0.02)
    assert [line(frac, DRAW, 1000) for frac in (0.0, 0.5, 1.0)] == [980, 500, 20]
    with pytest.raises(ValueError, match=r"ascend.* got 0.5 and 0.4"):
        ShrinkingIntervalAnneal(t_max=0.4)


@pytest.mark.parametrize("anneal", [UniformAnneal(), ShrinkingIntervalAnneal()], ids=repr)
def test_a_random_t_belongs_to_its_generator(anneal):
    a, b, c = (anneal(0.3, generator(0, "timestep", step), 1000) for step in (7, 7, 8))
    assert a == b != c


def test_resolution_boundaries_of_the_release():
    ramp = ResolutionRamp()
    sizes = [ramp(step / 500) for step in range(1, 501)]
    assert sizes == [128] * 149 + [256] * 150 + [512] * 201


def test_resolution_rejects_mismatched_lists():
    with pytest.raises(ValueError, match="2 sizes need 1 boundaries, got 2"):
        ResolutionRamp(sizes=(64, 128), boundaries=(0.3, 0.6))
    with pytest.raises(ValueError, match="ascend"):
        ResolutionRamp(sizes=(64, 128, 256), boundaries=(0.6, 0.3))
