import colorsys

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from dg.core.camera import orbit
from dg.eval.images import facing, psnr, psnr_over, saturation, silhouette_iou, ssim


def pictures(seed: int = 0, size: int = 40):
    """A smooth picture on white and a noisy one of it."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 6, 6, generator=draw)
    a = torch.nn.functional.interpolate(coarse, (size, size + 8), mode="bicubic").clamp(0, 1).movedim(1, -1)
    a[:, :8] = 1
    return a, (a + 0.1 * torch.randn(a.shape, generator=draw)).clamp(0, 1)


def test_ssim_equals_skimage():
    a, b = pictures()
    expected = [
        structural_similarity(
            x.numpy(),
            y.numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-5)
    assert ssim(a, a).tolist() == [1.0, 1.0]


def test_ssim_names_pictures_that_are_too_small():
    with pytest.raises(ValueError, match="10 x 40 are too small"):
        ssim(torch.zeros(1, 10, 40, 3), torch.zeros(1, 10, 40, 3))


def test_psnr_over_some_pixels_pools_the_views():
    a, b = pictures()
    where = torch.rand(a.shape[:3], generator=torch.Generator().manual_seed(1)) < 0.3
    errors = [float((a[v, y, x, c] - b[v, y, x, c]) ** 2) for v, y, x in where.nonzero().tolist() for c in range(3)]
    assert psnr_over(a, b, where) == pytest.approx(-10 * np.log10(np.mean(errors)), abs=1e-3)
    everywhere = torch.ones(a.shape[:3], dtype=torch.bool)
    assert psnr_over(a[:1], b[:1], everywhere[:1]) == pytest.approx(float(psnr(a[:1], b[:1])))
    assert psnr_over(a, b, ~everywhere) is None


def test_a_pixel_covered_by_exactly_one_half_counts_before_and_after_8_bits():
    half = torch.full((1, 4, 4, 1), 0.5)
    stored = (half * 255).round() / 255
    assert silhouette_iou(half, stored).tolist() == [1.0]
    assert silhouette_iou(half, torch.full_like(half, 127 / 255)).tolist() == [0.0]


def test_saturation_equals_colorsys_over_covered_pixels():
    a, _ = pictures()
    alpha = torch.zeros(*a.shape[:3], 1)
    alpha[:, 10:20, 5:30] = 1
    alpha[:, 20] = 0.7  # mixed with the background
    expected = np.mean([colorsys.rgb_to_hsv(*rgb)[1] for rgb in a[alpha[..., 0] == 1].tolist()])
    assert saturation(a, alpha) == pytest.approx(expected, abs=1e-5)
    assert saturation(a, torch.zeros_like(alpha)) == 0


def test_front_and_back_leave_the_sides_out():
    azimuths = [0, 45, 89, 90, 91, 180, 269, 270, 271, 315, 405]
    front, back = facing(orbit(-20.0, azimuths))
    assert [a for a, f in zip(azimuths, front, strict=True) if f] == [0, 45, 89, 271, 315, 405]
    assert [a for a, b in zip(azimuths, back, strict=True) if b] == [91, 180, 269]
