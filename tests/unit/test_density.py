import math

import pytest
import torch

from dg.core.density import density_at, density_grid
from dg.core.rng import generator
from dg.types import Gaussians


def gaussians(means, scales, quats=None, opacities=None) -> Gaussians:
    means, scales = torch.as_tensor(means, dtype=torch.float32), torch.as_tensor(scales, dtype=torch.float32)
    n = len(means)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1) if quats is None else torch.as_tensor(quats)
    opacities = torch.ones(n) if opacities is None else torch.as_tensor(opacities)
    return Gaussians(means, quats, scales, opacities, torch.zeros(n, 1, 3))


def cloud(n=300, seed=0, scale=0.05) -> Gaussians:
    g = generator(seed, "cloud")
    return gaussians(
        torch.randn(n, 3, generator=g) * 0.3,
        torch.rand(n, 3, generator=g) * scale + 0.3 * scale,
        torch.randn(n, 4, generator=g),
        torch.rand(n, generator=g),
    )


def double(x: Gaussians) -> Gaussians:
    return Gaussians(*(v.double() for v in vars(x).values()))


def naive(points, x: Gaussians):
    """The formula, with the covariance inverted as a matrix."""
    w, i, j, k = torch.nn.functional.normalize(x.quats.double(), dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (j * j + k * k), 2 * (i * j - w * k), 2 * (i * k + w * j)],
        [2 * (i * j + w * k), 1 - 2 * (i * i + k * k), 2 * (j * k - w * i)],
        [2 * (i * k - w * j), 2 * (j * k + w * i), 1 - 2 * (i * i + j * j)],
    ]
    rotation = torch.stack([torch.stack(r, -1) for r in rows], -2)
    covariance = rotation @ torch.diag_embed(x.scales.double() ** 2) @ rotation.transpose(1, 2)
    delta = points.double()[:, None] - x.means.double()
    q = torch.einsum("pni,nij,pnj->pn", delta, covariance.inverse(), delta)
    return (x.opacities.double() * torch.exp(-q / 2)).sum(1)


def test_reference_values():
    isotropic = gaussians([[0.0, 0, 0]], [[0.1, 0.1, 0.1]], opacities=[0.7])
    assert density_at(torch.tensor([[0.1, 0, 0]]), isotropic).item() == pytest.approx(0.606531 * 0.7, abs=1e-6)
    half = math.radians(45) / 2
    turned = gaussians([[0.0, 0, 0]], [[0.2, 0.1, 0.05]], [[math.cos(half), 0, 0, math.sin(half)]])
    assert density_at(torch.tensor([[0.1, 0.1, 0]]), turned).item() == pytest.approx(0.778801, abs=1e-6)


def test_definition_against_inverted_matrices():
    x, points = cloud(), torch.randn(200, 3, generator=generator(1, "points")).double() * 0.4
    torch.testing.assert_close(density_at(points, double(x)), naive(points, x), rtol=1e-6, atol=1e-9)


def test_definition_is_differentiable_and_ignores_chunks():
    x = double(cloud(20))
    means = x.means.clone().requires_grad_()
    points = torch.randn(5, 3, generator=generator(1, "points")).double() * 0.3
    f = lambda m: density_at(points, Gaussians(m, x.quats, x.scales, x.opacities, x.sh), chunk=7)  # noqa: E731
    assert torch.autograd.gradcheck(f, (means,))
    torch.testing.assert_close(f(means), density_at(points, x))


@pytest.mark.parametrize("resolution", [16, 37])
def test_grid_equals_the_definition_up_to_what_is_culled(resolution):
    x, least = cloud(), 1e-6
    grid = density_grid(x, resolution, blur=0, min_density=least)
    expected = density_at(grid.points().reshape(-1, 3).double(), double(x)).reshape(grid.values.shape)
    assert expected.max() > 0.3
    torch.testing.assert_close(grid.values.double(), expected, rtol=1e-5, atol=len(x) * least)


def test_culling_is_exact_per_gaussian():
    """A lone Gaussian: sampled where it reaches the least density, zero beyond."""
    x = gaussians([[0.1, 0.2, 0.3]], [[0.1, 0.05, 0.02]], [[0.9, 0.1, -0.3, 0.2]], [0.8])
    grid = density_grid(x, 48, blur=0, min_density=0.01)
    expected = density_at(grid.points().reshape(-1, 3).double(), double(x)).reshape(grid.values.shape)
    expected = torch.where(expected >= 0.01, expected, 0)
    torch.testing.assert_close(grid.values.double(), expected, rtol=1e-5, atol=1e-7)
    assert (grid.values > 0).sum() > 100


def test_the_surface_stays_inside_the_lattice():
    grid = density_grid(cloud(), 32, support=0.05)
    border = torch.ones(32, 32, 32, dtype=torch.bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert grid.values[border].max() < 0.05 < grid.values.max()


def test_blur_keeps_sheets_that_are_thinner_than_the_lattice():
    flat = gaussians(
        torch.tensor([[0.003, 0.1 * i, 0.1 * j] for i in range(10) for j in range(10)]), [[1e-4, 0.1, 0.1]] * 100
    )
    assert density_grid(flat, 32, blur=0).values.max() < 1e-3
    assert density_grid(flat, 32, blur=0.5).values.max() > 1


def test_legacy_lattice_and_blocks():
    x = cloud(scale=0.02)  # small enough that the blocks miss nothing
    grid = density_grid(x, 32, culling="legacy")
    lo, hi = x.means.amin(0), x.means.amax(0)
    side = 2 * (hi - lo).max() / 1.8  # the centres' box fills [-0.9, 0.9] of a lattice over [-1, 1]
    torch.testing.assert_close(grid.origin, (lo + hi) / 2 - side / 2)
    assert grid.spacing == pytest.approx(side.item() / 31)
    expected = density_at(grid.points().reshape(-1, 3).double(), double(x)).reshape(grid.values.shape)
    torch.testing.assert_close(grid.values.double(), expected, rtol=1e-4, atol=1e-4)


def test_legacy_blocks_lose_what_is_larger_than_their_margin():
    """The release assumes that no Gaussian reaches farther than 1.5 block edges; exact culling does not."""
    large = gaussians([[-0.5, 0, 0], [0.5, 0, 0]], [[0.3, 0.3, 0.3]] * 2, opacities=[1.0, 0.01])
    legacy = density_grid(large, 64, culling="legacy")
    points = legacy.points().reshape(-1, 3)
    inside = ((points - large.means[0]).abs() < 0.25).all(1)  # 0.25 < 0.1875 * side / 2 + a block
    truth = density_at(points, large).reshape(legacy.values.shape)
    assert (truth - legacy.values).max() > 0.3
    assert (truth - legacy.values).flatten()[(points - large.means[0]).norm(dim=1) < 0.1].abs().max() < 0.02
    assert inside.any()


def test_any_number_of_threads_gives_the_same_bits():
    x, before = cloud(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = [density_grid(x, 40).values, density_grid(x, 32, culling="legacy").values]
        torch.set_num_threads(3)
        three = [density_grid(x, 40).values, density_grid(x, 32, culling="legacy").values]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("culling", ["exact", "legacy"])
def test_one_gaussian_or_one_place_is_no_division_by_zero(culling):
    grid = density_grid(gaussians([[1.0, 2, 3]] * 3, [[0.05, 0.05, 0.05]] * 3), 24, culling=culling)
    assert grid.values.isfinite().all() and grid.spacing > 0
    if culling == "exact":
        assert grid.values.max() > 2.5


def test_nothing_to_sample_is_an_error():
    faint = gaussians([[0.0, 0, 0]], [[0.1, 0.1, 0.1]], opacities=[0.004])
    broken = gaussians([[float("nan"), 0, 0]], [[0.1, 0.1, 0.1]])
    for x in (faint, broken, gaussians(torch.zeros(0, 3), torch.zeros(0, 3))):
        with pytest.raises(ValueError, match="nothing to mesh"):
            density_grid(x, 16)
    with pytest.raises(ValueError, match="culling"):
        density_grid(cloud(), 16, culling="none")


def test_a_floater_that_is_not_finite_is_left_out():
    x = cloud(50)
    x.means[3] = float("inf")
    assert density_grid(x, 24).values.isfinite().all()


@pytest.mark.parametrize("resolution", [24, 37])
def test_the_batched_lattice_equals_the_compiled_one(monkeypatch, resolution):
    compiled = density_grid(cloud(400), resolution)
    asked = []
    monkeypatch.setattr("dg.core.density.batched", lambda device: asked.append(device) is None)
    monkeypatch.setattr("dg.core.density_torch._AT_ONCE", 1 << 16)  # one Gaussian of many blocks at once, and many
    grid = density_grid(cloud(400), resolution)
    assert grid.spacing == compiled.spacing and grid.values.max() > 1
    assert len(asked) == 2  # the coarse lattice and the asked one
    torch.testing.assert_close(grid.values, compiled.values, rtol=1e-6, atol=1e-9)
