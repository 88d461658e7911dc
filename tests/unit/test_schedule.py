import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dg.core.rng import generator
from dg.core.schedule import LinearAnneal, ResolutionRamp, SqrtAnneal, UniformAnneal, log_linear

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
    for anneal in (LinearAnneal(), SqrtAnneal(), UniformAnneal()):
        assert 20 <= anneal(frac, torch.Generator().manual_seed(0), 1000) <= 980


def test_resolution_boundaries_of_the_release():
    ramp = ResolutionRamp()
    sizes = [ramp(step / 500) for step in range(1, 501)]
    assert sizes == [128] * 149 + [256] * 150 + [512] * 201


def test_resolution_rejects_mismatched_lists():
    with pytest.raises(ValueError, match="2 sizes need 1 boundaries, got 2"):
        ResolutionRamp(sizes=(64, 128), boundaries=(0.3, 0.6))
    with pytest.raises(ValueError, match="ascend"):
        ResolutionRamp(sizes=(64, 128, 256), boundaries=(0.6, 0.3))
