import math
from dataclasses import replace

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from dg.core.camera import orbit
from dg.core.inflate import inflate
from dg.eval.metrics import directions, lattice, occupancy, psnr, silhouette_iou, volume_iou
from dg.eval.score import score_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.types import Mesh
from tests import shapes

RASTER = CpuMeshRasterizer()


def ball(radius: float = 0.4, centre=(0.0, 0.0, 0.0)) -> Mesh:
    texture = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0))
    return shapes.ball(texture, radius, 24, centre)


def test_psnr_equals_skimage():
    a, b = torch.rand(2, 2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    expected = [peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=1) for x, y in zip(a, b, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(expected, abs=1e-4)
    assert psnr(a, a).tolist() == [100.0, 100.0]


def test_silhouette_iou():
    a, b = torch.zeros(2, 4, 4, 1), torch.zeros(2, 4, 4, 1)
    a[0, :, :2], b[0, :, 1:3] = 1, 1
    assert silhouette_iou(a, b).tolist() == pytest.approx([1 / 3, 1.0])


def test_directions_are_even():
    d = directions(200)
    torch.testing.assert_close(d.norm(dim=1), torch.ones(200))
    assert d.mean(0).abs().max() < 0.01


def test_occupancy_of_a_ball():
    points = lattice(torch.full((3,), -0.5), torch.full((3,), 0.5), 24)
    inside = occupancy(ball(), points, RASTER)
    truth = points.norm(dim=1) < 0.4
    clear = (points.norm(dim=1) - 0.4).abs() > 0.02
    assert (inside == truth)[clear].all()


def test_occupancy_copes_with_nested_flipped_and_holed_surfaces():
    points = lattice(torch.full((3,), -0.5), torch.full((3,), 0.5), 24)
    plain = ball()
    inner = ball(0.2)
    nested = Mesh(
        torch.cat([plain.vertices, inner.vertices]), torch.cat([plain.faces, inner.faces + len(plain.vertices)])
    )
    flipped = replace(plain, faces=plain.faces.flip(1), faces_uv=None, uv=None, texture=None)
    small_hole = plain.vertices[plain.faces].mean(1)[:, 1] > -0.395
    holed = Mesh(plain.vertices, plain.faces[small_hole])
    assert len(holed.faces) < len(plain.faces)
    expected = occupancy(plain, points, RASTER)
    for mesh in (nested, flipped, holed):
        assert (occupancy(mesh, points, RASTER) != expected).float().mean() < 1e-3


@pytest.mark.parametrize("ratio", [0.5, 0.8])
def test_volume_iou_of_concentric_balls(ratio):
    assert volume_iou(ball(0.4), ball(0.4 * ratio), RASTER) == pytest.approx(ratio**3, abs=0.02)


def test_volume_iou_of_apart_balls_is_zero():
    assert volume_iou(ball(0.2, centre=(0.5, 0, 0)), ball(0.2, centre=(-0.5, 0, 0)), RASTER) == 0


def test_truth_against_itself_is_perfect():
    score = score_mesh(ball(), ball(), RASTER)
    assert (score.psnr_db, score.silhouette_iou, score.volume_iou) == (100.0, 1.0, 1.0)


def test_each_corruption_moves_the_figures_that_should_see_it():
    truth = ball()
    recoloured = score_mesh(replace(truth, texture=1 - truth.texture), truth, RASTER)
    assert recoloured.psnr_db < 30 and recoloured.silhouette_iou == 1 and recoloured.volume_iou == 1
    moved = score_mesh(replace(truth, vertices=truth.vertices + torch.tensor([0.1, 0, 0])), truth, RASTER)
    assert moved.silhouette_iou < 0.9 and moved.volume_iou < 0.8
    turned = replace(truth, vertices=truth.vertices * torch.tensor([-1.0, 1, 1]))
    mirrored = score_mesh(turned, truth, RASTER)
    assert mirrored.psnr_db < 40 and mirrored.silhouette_iou > 0.99 and mirrored.volume_iou > 0.98


def test_a_flat_disc_inflates_to_something_measurable():
    rgba = torch.zeros(64, 64, 4)
    rgba[16:48, 16:48] = 1
    mesh = inflate(rgba, orbit(0, 0, 2.0, height=64), resolution=40)
    assert math.isclose(volume_iou(mesh, mesh, RASTER), 1.0)
