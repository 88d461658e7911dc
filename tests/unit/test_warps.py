"""Smooth deformations of training objects: half are left alone, symmetry survives, and the bank can do without."""

from __future__ import annotations

import numpy as np
import torch

from dg.core import rng
from dg.data.instances import Warps, draw_warps
from dg.data.library import TexturedObject
from dg.data.pool import ObjectPool
from dg.data.training_views import ViewBank
from dg.meshraster.cpu import CpuMeshRasterizer


def moved(strength: float, m: int = 400) -> torch.Tensor:
    """Lengths of the shifts of 50 points each [m 50]."""
    points = torch.rand(50, 3, generator=rng.generator(0, "points")) - 0.5
    warps = draw_warps(m, strength, rng.generator(0, "warps"))
    owner = torch.arange(m).repeat_interleave(50)
    return (warps(points.repeat(m, 1), owner) - points.repeat(m, 1)).norm(dim=-1).reshape(m, 50)


def test_half_of_the_instances_keep_their_shape():
    still = (moved(0.05) == 0).all(1).float().mean()
    assert 0.42 < still < 0.58


def test_strength_bounds_the_shift():
    assert 0.02 < moved(0.05).max() < 4 * 3**0.5 * 0.05  # four waves, each at most 0.05 along each axis
    torch.testing.assert_close(moved(0.1), 2 * moved(0.05), atol=1e-6, rtol=1e-3)
    assert not moved(0.0).any()


def test_what_is_symmetric_stays_so():
    points = torch.rand(200, 3, generator=rng.generator(1, "points")) - 0.5
    mirror = torch.tensor([-1.0, 1, 1])
    warps, owner = draw_warps(8, 0.1, rng.generator(3, "warps")), torch.arange(200) % 8
    torch.testing.assert_close(warps(points * mirror, owner), warps(points, owner) * mirror)
    plane = points * torch.tensor([0.0, 1, 1])
    assert not warps(plane, owner)[:, 0].any()


def test_one_wave_by_hand():
    warps = Warps(torch.tensor([[[0.0, 2, 0]]]), torch.tensor([[0.5]]), torch.tensor([[[0.0, 0, 0.1]]]))
    out = warps(torch.tensor([[0.3, 0.25, -0.1]]), torch.tensor([0]))
    torch.testing.assert_close(out, torch.tensor([[0.3, 0.25, -0.1 + 0.1 * np.sin(1.0)]]).float())


def test_the_bank_draws_everything_else_as_without_warps():
    """Cameras and colours do not change with the option, and the pictures do."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32) - 0.5
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]], np.int64)
    box = TexturedObject("box", corners, corners[:, :2] + 0.5, faces, np.full((4, 4, 3), 120, np.uint8))
    banks = []
    for warp in (0.0, 0.0, 0.2):
        bank = ViewBank(
            ObjectPool.of([box]),
            [(0, 1, 1.0)],
            CpuMeshRasterizer(),
            size=16,
            instances=6,
            targets=1,
            chunk=6,
            warp=warp,
        )
        bank.refresh()
        banks.append(bank)
    plain, again, warped = banks
    assert torch.equal(plain.pictures, again.pictures) and not torch.equal(plain.pictures, warped.pictures)
    assert torch.equal(plain.views.azimuth, warped.views.azimuth) and torch.equal(
        plain.views.radius, warped.views.radius
    )
