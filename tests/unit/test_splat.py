"""Projection of Gaussians: numbers of the specification, independent formulas, sampling."""

import math

import pytest
import torch

from dg.core import camera, rng, splat
from dg.types import Cameras, Gaussians

F64 = torch.float64


def _one(mean=(0.0, 0.0, 0.0), scale=0.05, opacity=0.5, quat=(1.0, 0.0, 0.0, 0.0), K=1, dtype=F64) -> Gaussians:
    scales = (
        torch.tensor([scale], dtype=dtype).expand(1, 3)
        if isinstance(scale, float)
        else torch.tensor([scale], dtype=dtype)
    )
    return Gaussians(
        torch.tensor([mean], dtype=dtype),
        torch.tensor([quat], dtype=dtype),
        scales.clone(),
        torch.tensor([opacity], dtype=dtype),
        torch.zeros(1, K, 3, dtype=dtype),
    )


@pytest.mark.parametrize(("size", "focal"), [(128, 140.1110), (256, 280.2221), (512, 560.4441)])
def test_focal_lengths(size, focal):
    K = camera.intrinsics(49.1, size, size)
    assert K[0, 0].item() == pytest.approx(focal, abs=1e-3) and K[1, 1].item() == pytest.approx(focal, abs=1e-3)


@pytest.mark.parametrize(("size", "x", "y"), [(512, 340.0666, 143.9112), (128, 85.0167, 35.9778)])
def test_point_of_the_specification(size, x, y):
    projected = splat.project(_one((0.3, 0.4, 0.0)), camera.orbit(0, 0, 2, height=size))
    torch.testing.assert_close(projected.means_px[0, 0], torch.tensor([x, y], dtype=F64), atol=1e-3, rtol=0)
    assert projected.depths.item() == pytest.approx(2, abs=1e-6)


def test_rotation():
    q = torch.randn(50, 4, generator=rng.generator(0, "test"), dtype=F64)
    R = splat.rotation_from_quat(q)
    torch.testing.assert_close(R @ R.transpose(1, 2), torch.eye(3, dtype=F64).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(50, dtype=F64))
    torch.testing.assert_close(splat.rotation_from_quat(-3 * q), R)
    half = math.sqrt(0.5)
    quarter = splat.rotation_from_quat(torch.tensor([[half, 0, 0, half]], dtype=F64))[0]  # 90 degrees about z
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0], dtype=F64), torch.tensor([0.0, 1, 0], dtype=F64))
    assert torch.equal(splat.rotation_from_quat(torch.zeros(1, 4)), torch.eye(3)[None])


def test_covariance_has_the_scales_as_axes():
    g = rng.generator(1, "test")
    quats, scales = torch.randn(20, 4, generator=g, dtype=F64), torch.rand(20, 3, generator=g, dtype=F64)
    R = splat.rotation_from_quat(quats)
    expected = R @ torch.diag_embed(scales**2) @ R.transpose(1, 2)
    torch.testing.assert_close(splat.covariance(quats, scales), expected)


def test_jacobian_is_the_derivative_of_the_projection():
    cams = camera.orbit([0, 20], [0, 50], 2, height=60, width=90)
    cams = Cameras(cams.c2w.to(F64), cams.K.to(F64), cams.width, cams.height)
    g = rng.generator(2, "test")
    view = torch.cat(
        [torch.rand(2, 5, 2, generator=g, dtype=F64) - 0.5, 1 + torch.rand(2, 5, 1, generator=g, dtype=F64)], -1
    )
    J = splat.jacobian(view, cams)
    for v in range(2):
        for n in range(5):
            expected = torch.autograd.functional.jacobian(
                lambda p, K: (K @ p)[:2] / (K @ p)[2], (view[v, n], cams.K[v])
            )
            torch.testing.assert_close(J[v, n], expected[0])


def test_jacobian_is_clamped_beside_the_picture():
    cams = camera.orbit(0, 0, 2, height=60, width=90)
    cams = Cameras(cams.c2w.to(F64), cams.K.to(F64), cams.width, cams.height)
    tan_x, tan_y, f = 45 / cams.K[0, 0, 0], 30 / cams.K[0, 1, 1], cams.K[0, 0, 0]
    J = splat.jacobian(torch.tensor([[[9.0, -7.0, 2.0]]], dtype=F64), cams)[0, 0]
    torch.testing.assert_close(J[:, 2], torch.stack([-f * 1.3 * tan_x / 2, f * 1.3 * tan_y / 2]))


def test_isotropic_gaussian_on_the_axis():
    cams = camera.orbit(0, 0, 2, height=128)
    projected = splat.project(_one(scale=0.05), cams)
    variance = (140.1110 * 0.05 / 2) ** 2 + 0.3
    torch.testing.assert_close(
        projected.covs_px2[0, 0], torch.tensor([variance, 0, variance], dtype=F64), atol=1e-3, rtol=1e-5
    )
    torch.testing.assert_close(
        projected.conics[0, 0], torch.tensor([1 / variance, 0, 1 / variance], dtype=F64), atol=1e-6, rtol=1e-5
    )
    expected = math.sqrt(2 * math.log(255 * 0.5) * variance)
    assert splat.radii_px(projected, torch.tensor([0.5], dtype=F64), 128, 128).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_covariance_of_projected_samples():
    """A small Gaussian's samples, projected one by one, have the covariance that EWA claims."""
    gaussian = _one((0.2, -0.1, 0.3), scale=(0.03, 0.01, 0.02), quat=(0.3, -0.8, 0.4, 0.5))
    cams = camera.orbit(-25, 40, 2, height=400)
    g = rng.generator(3, "test")
    offsets = torch.randn(40000, 3, generator=g, dtype=F64) * gaussian.scales
    points = gaussian.means + offsets @ splat.rotation_from_quat(gaussian.quats)[0].T
    px, _ = camera.project(points, Cameras(cams.c2w.to(F64), cams.K.to(F64), 400, 400))
    measured = torch.cov(px[0].T)
    xx, xy, yy = splat.project(gaussian, cams).covs_px2[0, 0]
    expected = torch.stack([xx, xy, xy, yy]).reshape(2, 2) - 0.3 * torch.eye(2, dtype=F64)
    torch.testing.assert_close(measured, expected, rtol=0, atol=0.03 * expected.diag().max().item())


def test_conics_are_inverse_covariances():
    gaussian = _one((0.2, -0.1, 0.3), scale=(0.3, 0.01, 0.02), quat=(0.3, -0.8, 0.4, 0.5))
    p = splat.project(gaussian, camera.orbit(-25, [40, 220], 2, height=64))
    conics, covs = (t[..., [0, 1, 1, 2]].unflatten(-1, (2, 2)) for t in (p.conics, p.covs_px2))
    torch.testing.assert_close(conics @ covs, torch.eye(2, dtype=F64).expand(2, 1, 2, 2))


def test_radius_is_where_the_contribution_ends():
    gaussian = _one((0.1, 0.05, 0.0), scale=(0.1, 0.02, 0.05), quat=(0.9, 0.3, -0.2, 0.6), opacity=0.7)
    p = splat.project(gaussian, camera.orbit(10, 30, 2, height=256))
    xx, xy, yy = p.conics[0, 0]
    y, x = torch.meshgrid(torch.arange(-80, 80, 0.1, dtype=F64), torch.arange(-80, 80, 0.1, dtype=F64), indexing="ij")
    alpha = 0.7 * torch.exp(-0.5 * (xx * x * x + 2 * xy * x * y + yy * y * y))
    furthest = (x.square() + y.square()).sqrt()[alpha >= 1 / 255].max()
    radius = splat.radii_px(p, gaussian.opacities, 256, 256)
    assert radius.item() == pytest.approx(furthest.item(), abs=0.15)


@pytest.mark.parametrize(
    ("mean", "opacity", "visible"),
    [
        ((0, 0, 0), 0.5, True),
        ((0, 0, 0), 0.0039, False),  # 1 / 255 = 0.00392
        ((0, 0, 0), 0.00393, True),
        ((0, 0, 3.0), 0.5, False),  # behind
        ((0, 0, 1.801), 0.5, False),  # z = 0.199
        ((0, 0, 1.799), 0.5, True),
        ((3.0, 0, 0), 0.5, False),
        ((0, -3.0, 0), 0.5, False),
        ((0.95, 0, 0), 0.5, True),  # the centre is outside (0.914 is the edge), the footprint is not
    ],
)
def test_visibility(mean, opacity, visible):
    gaussian = _one(tuple(float(m) for m in mean), opacity=opacity)
    radius = splat.radii_px(splat.project(gaussian, camera.orbit(0, 0, 2, height=128)), gaussian.opacities, 128, 128)
    assert (radius.item() > 0) == visible


def test_everything_is_finite_behind_the_camera():
    gaussian = _one((0.1, 0.2, 2.0))
    means = gaussian.means.clone().requires_grad_()
    p = splat.project(
        Gaussians(means, gaussian.quats, gaussian.scales, gaussian.opacities, gaussian.sh), camera.orbit(0, 0, 2)
    )
    (p.means_px.sum() + p.conics.sum()).backward()
    assert p.means_px.isfinite().all() and p.conics.isfinite().all() and means.grad.isfinite().all()


def test_colors_look_from_the_camera():
    gaussian = _one(K=4)
    gaussian.sh[0, 2] = 1.0  # grows along +z
    rgb = splat.colors(gaussian, camera.orbit(0, [0, 90, 180], 2))
    assert rgb.shape == (3, 1, 3)
    torch.testing.assert_close(
        rgb[:, 0, 0], torch.tensor([0.5 - 0.4886025, 0.5, 0.5 + 0.4886025], dtype=F64), atol=1e-6, rtol=0
    )
    assert splat.colors(_one(), camera.orbit(0, [0, 90], 2)).shape == (1, 1, 3)
