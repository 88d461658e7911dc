"""Parameters of the Gaussians: activations, neighbours, the starting ball, spherical harmonics."""

import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from dg.core import gaussians as G
from dg.core import rng


def _raw(degree: int = 1) -> G.RawGaussians:
    g = rng.generator(3, "test")
    n, rest = 40, (degree + 1) ** 2 - 1
    shapes = {"means": (n, 3), "sh_dc": (n, 1, 3), "sh_rest": (n, rest, 3), "opacity_logits": (n, 1)}
    shapes |= {"log_scales": (n, 3), "quats": (n, 4)}
    return G.RawGaussians(**{k: torch.randn(s, generator=g) for k, s in shapes.items()})


def test_activation_round_trip():
    raw = _raw()
    back = G.deactivate(G.activate(raw))
    for name, value in raw.as_dict().items():
        torch.testing.assert_close(getattr(back, name), value, atol=1e-5, rtol=1e-5)


def test_activations():
    raw = _raw()
    active = G.activate(raw)
    torch.testing.assert_close(active.opacities, 1 / (1 + torch.exp(-raw.opacity_logits[:, 0])))
    torch.testing.assert_close(active.scales.log(), raw.log_scales)
    assert active.sh.shape == (40, 4, 3)
    assert torch.equal(active.sh[:, 0], raw.sh_dc[:, 0])
    assert len(raw) == len(active) == 40


def test_extreme_opacities_stay_finite():
    active = G.activate(_raw())
    extreme = G.Gaussians(active.means, active.quats, active.scales, active.opacities.round(), active.sh)
    assert G.deactivate(extreme).opacity_logits.isfinite().all()


def test_knn_against_brute_force():
    points = torch.rand(200, 3, generator=rng.generator(0, "test"))
    squared = torch.cdist(points.double(), points.double()).square().fill_diagonal_(torch.inf)
    expected = squared.topk(3, largest=False).values.mean(1).float()
    torch.testing.assert_close(G.knn_mean_squared_distance(points), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_knn_of_few_points(n):
    points = torch.arange(n, dtype=torch.float32)[:, None].expand(n, 3)
    value = G.knn_mean_squared_distance(points)
    assert value.shape == (n,) and (value >= 1e-7).all()
    if n == 2:
        torch.testing.assert_close(value, torch.tensor([3.0, 3.0]))


def test_knn_of_coinciding_points_is_clamped():
    assert torch.equal(G.knn_mean_squared_distance(torch.zeros(10, 3)), torch.full((10,), 1e-7))


def test_ball_is_uniform_and_as_large_as_its_neighbours():
    raw = G.ball(rng.generator(0, "init"))
    r = raw.means.norm(dim=1)
    assert r.max() <= 0.5 + 1e-6
    quantiles = (2 * r).pow(3).sort().values  # uniform in [0, 1] when the density is
    assert (quantiles - torch.linspace(0, 1, 5000)).abs().max() < 1.63 / math.sqrt(5000)  # Kolmogorov-Smirnov, 1 %
    direction = raw.means / r[:, None]
    assert direction.mean(0).norm() < 0.04
    torch.testing.assert_close((direction.T @ direction / 5000).diag(), torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    active = G.activate(raw)
    assert active.scales.mean() == pytest.approx(0.0353, abs=4e-4)
    assert torch.equal(active.scales[:, 0], active.scales[:, 2])
    torch.testing.assert_close(active.opacities, torch.full((5000,), 0.1))
    rgb = G.rgb_from_sh(active.sh, None)
    assert rgb.min() >= 0.5 and rgb.max() <= 0.5012
    small = G.activate(G.ball(rng.generator(0, "init"), num_points=1000))
    assert small.scales.mean() == pytest.approx(0.0613, abs=2e-3)  # 0.0613 +- 0.0005 over 30 seeds


def test_colors_are_clamped_from_below_only():
    sh = torch.tensor([[[-10.0, 0.0, 10.0]]])
    torch.testing.assert_close(G.rgb_from_sh(sh, None)[0, 0], torch.tensor([0.0, 0.5, 0.5 + 10 * G.SH_C0]))
    torch.testing.assert_close(
        G.rgb_from_sh(G.dc_from_rgb(torch.tensor([[[0.2, 0.4, 0.9]]])), None)[0, 0, 1].item(), 0.4
    )


def test_wrong_number_of_coefficients():
    with pytest.raises(ValueError, match="5 SH coefficients"):
        G.rgb_from_sh(torch.zeros(2, 5, 3), None)
    with pytest.raises(ValueError, match="25 SH"):
        G.rgb_from_sh(torch.zeros(2, 25, 3), None)


def test_basis_is_orthonormal_on_the_sphere():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    phi = np.arange(24) * 2 * np.pi / 24
    z, angle = np.meshgrid(nodes, phi, indexing="ij")
    s = np.sqrt(1 - z**2)
    d = torch.from_numpy(np.stack([s * np.cos(angle), s * np.sin(angle), z], -1).reshape(1, -1, 3))
    w = torch.from_numpy((weights[:, None] * np.full(24, 2 * np.pi / 24)).reshape(-1))
    basis = G.sh_basis(d, 3)[0]
    torch.testing.assert_close(basis.T @ (w[:, None] * basis), torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0)


def test_basis_against_scipy():
    """3DGS's order is m = -l .. l; its signs are those of scipy's real and imaginary parts (Condon-Shortley)."""
    d = torch.nn.functional.normalize(
        torch.randn(1, 50, 3, generator=rng.generator(1, "test"), dtype=torch.float64), dim=-1
    )
    theta, phi = np.arccos(d[0, :, 2].numpy()), np.arctan2(d[0, :, 1].numpy(), d[0, :, 0].numpy())
    basis = G.sh_basis(d, 3)[0].numpy()
    column = 0
    for l in range(4):
        for m in range(-l, l + 1):
            y = sph_harm_y(l, abs(m), theta, phi)
            expected = y.real if m == 0 else math.sqrt(2) * (y.real if m > 0 else y.imag)
            np.testing.assert_allclose(basis[:, column], expected, atol=1e-12, err_msg=f"l={l} m={m}")
            column += 1


def test_rgb_depends_on_the_view_from_degree_one():
    sh = torch.zeros(1, 4, 3)
    sh[0, 2] = 1.0  # the coefficient of z
    up, down = torch.tensor([[[0.0, 0.0, 1.0]], [[0.0, 0.0, -1.0]]])
    rgb = G.rgb_from_sh(sh, torch.stack([up, down]))
    torch.testing.assert_close(rgb[:, 0, 0], torch.tensor([0.5 + G.SH_C1, 0.5 - G.SH_C1]))


def test_the_ball_fits_the_picture():
    from dg.core.camera import orbit
    from dg.types import Reference

    rgba = torch.zeros(1, 256, 256, 4)
    rgba[0, 26:230, 60:100] = 1  # a recentred picture: 204 of 256 pixels
    recentred = G.ball(rng.generator(0, "init"), Reference(rgba, orbit(0, 0, 2.0, height=256)), num_points=4000)
    assert recentred.means.norm(dim=-1).max() == pytest.approx(0.5, abs=0.01)
    small = torch.nn.functional.pad(rgba[:, ::2, ::2], (0, 0, 64, 64, 64, 64))
    framed = G.ball(rng.generator(0, "init"), Reference(small, orbit(0, 0, 2.0, height=256)), num_points=4000)
    assert framed.means.norm(dim=-1).max() == pytest.approx(0.25, abs=0.01)
    assert G.ball(rng.generator(0, "init"), radius=0.3).means.norm(dim=-1).max() <= 0.3
