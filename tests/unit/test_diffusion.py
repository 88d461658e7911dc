import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dg.core.diffusion import (
    add_noise,
    ddim_step,
    ddim_timesteps,
    eps_from_x0,
    guide,
    scaled_linear_alpha_bar,
    sdedit,
    sdedit_start,
    x0_from_eps,
)


def test_alpha_bar_matches_the_published_schedule():
    a = scaled_linear_alpha_bar()
    assert len(a) == 1000
    for t, value in ((20, 0.981314), (500, 0.276333), (980, 0.005844)):
        assert a[t].item() == pytest.approx(value, abs=1e-6)


def test_noise_and_picture_are_inverse():
    x0, eps = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    a = torch.tensor([0.9, 0.1], dtype=torch.float64).reshape(2, 1, 1, 1)
    x_t = add_noise(x0, eps, a)
    torch.testing.assert_close(x0_from_eps(x_t, eps, a), x0)
    torch.testing.assert_close(eps_from_x0(x_t, x0, a), eps)


def test_guidance():
    cond, uncond = torch.tensor([3.0]), torch.tensor([1.0])
    assert guide(cond, uncond, 5.0).item() == 11.0
    assert guide(cond, uncond, 1.0).item() == 3.0
    assert guide(cond, None, 5.0) is cond


def test_ddim_timesteps_are_leading_with_offset_one():
    ts = ddim_timesteps(50)
    assert (ts[0], ts[1], ts[-1], len(ts)) == (981, 961, 1, 50)


def test_ddim_lands_on_the_point_when_the_noise_is_exact():
    x0, eps = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    x_t = add_noise(x0, eps, torch.tensor(0.2))
    torch.testing.assert_close(ddim_step(x_t, eps, torch.tensor(0.2), torch.tensor(1.0)), x0, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("step", "start", "t", "count"),
    [(1, 40, 181, 10), (10, 41, 161, 9), (25, 43, 121, 7), (40, 46, 61, 4), (50, 47, 41, 3)],
)
def test_sdedit_start_follows_the_release(step, start, t, count):
    strength = 0.8 + 0.15 * step / 50
    assert sdedit_start(50, 1 - strength) == start
    run = ddim_timesteps(50)[start:]
    assert (run[0], len(run)) == (t, count)


def test_sdedit_start_histogram_of_the_release():
    starts = [sdedit_start(50, 1 - (0.8 + 0.15 * s / 50)) for s in range(1, 51)]
    assert [starts.count(i) for i in range(40, 48)] == [6, 7, 6, 7, 7, 6, 7, 4]


def test_sdedit_with_the_true_noise_returns_the_picture():
    z, noise = torch.rand(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    a = scaled_linear_alpha_bar()
    out = sdedit(lambda z_t, t: eps_from_x0(z_t, z, a[t]), z, noise, a, t_start_ratio=0.2)
    # The last step goes to alpha_bar[0] < 1, so sqrt(1 - alpha_bar[0]) = 0.029 of the noise remains.
    torch.testing.assert_close(out, add_noise(z, noise, a[0]), atol=2e-3, rtol=0)


def test_sdedit_reaches_the_prior_s_picture_from_another():
    target, z, a = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), scaled_linear_alpha_bar()
    out = sdedit(lambda z_t, t: eps_from_x0(z_t, target, a[t]), z, torch.randn(z.shape), a, t_start_ratio=1.0)
    assert (out - target).abs().mean() < 0.05


@given(st.integers(1, 100), st.floats(0, 1))
def test_sdedit_start_is_a_valid_index(num_steps, ratio):
    assert 0 <= sdedit_start(num_steps, ratio) <= num_steps - 1


def test_sdedit_to_clean_leaves_no_noise():
    z, noise, a = torch.rand(1, 3, 8, 8), torch.randn(1, 3, 8, 8), scaled_linear_alpha_bar()
    out = sdedit(lambda z_t, t: eps_from_x0(z_t, z, a[t]), z, noise, a, t_start_ratio=0.2, to_clean=True)
    torch.testing.assert_close(out, z, atol=1e-4, rtol=0)
