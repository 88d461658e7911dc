"""What a run says about itself without a truth: known answers, and a consistent prior before an inconsistent one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from dg.core.camera import orbit, project
from dg.data.objects import make, picture
from dg.eval.agreement import (
    AZIMUTHS,
    colours_at,
    in_words,
    invented_share,
    seen_from,
    spread,
    surface_points,
    views_agree,
)
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.oracle import MeshScore
from dg.priors.point import PointPrior
from dg.types import Mesh, Reference
from tests.shapes import ball

RASTER = CpuMeshRasterizer()


def gradient() -> torch.Tensor:
    """A texture that changes slowly, so that no view resolves more of it than another."""
    u = torch.linspace(0, 2 * torch.pi, 128)
    red = (0.5 + 0.4 * u.cos()).expand(64, -1)
    green = torch.linspace(0.2, 0.8, 64)[:, None].expand(-1, 128)
    return torch.stack([red, green, torch.full_like(red, 0.5)], -1)


def test_a_ball_shows_the_cap_that_its_distance_allows() -> None:
    # A sphere of radius r seen from d shows a share (1 - r / d) / 2 of its area.
    radius, distance = 0.5, 2.0
    share = invented_share(ball(gradient(), radius, rings=48), orbit(0.0, 0.0, distance, height=64), RASTER)
    assert share == pytest.approx(1 - (1 - radius / distance) / 2, abs=0.012)


def test_what_stands_before_another_hides_it() -> None:
    near, far = ball(gradient(), 0.3, centre=(0, 0, 0.5)), ball(gradient(), 0.2, centre=(0, 0, -0.5))
    both = Mesh(torch.cat([near.vertices, far.vertices]), torch.cat([near.faces, far.faces + len(near.vertices)]))
    points, normals = surface_points(both, 2000)
    seen = seen_from(both, points, normals, orbit(0.0, [0.0, 180.0], 2.0, height=64), RASTER)
    behind = points[:, 2] < 0
    assert not seen[0, behind].any() and seen[0, ~behind].any()
    assert seen[1, behind].any()


def test_views_that_agree_have_no_spread_and_red_against_blue_has_a_third() -> None:
    red, blue = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    seen = torch.tensor([[True, True, True], [True, True, False]])
    assert spread(red.expand(2, 3, 3), seen) == 0
    colours = torch.stack([red.expand(3, 3), torch.stack([blue, blue, blue])])
    assert spread(colours, seen) == pytest.approx(1 / 3)  # the third point has one witness and does not count
    one_agrees = torch.stack([red.expand(3, 3), torch.stack([blue, red, blue])])
    assert spread(one_agrees, seen) == pytest.approx(1 / 6)
    assert spread(colours, seen & torch.tensor([[True], [False]])) is None


def test_colours_are_read_where_the_pixel_is() -> None:
    row = torch.arange(8.0)
    pictures = torch.stack(torch.meshgrid(row, row, indexing="ij"), -1)[None]
    pictures = torch.cat([pictures, torch.zeros_like(pictures[..., :1])], -1)
    found = colours_at(pictures, torch.tensor([[[3.5, 5.5], [4.0, 2.25]]]))[0]
    assert torch.allclose(found[:, :2], torch.tensor([[5.0, 3.0], [1.75, 3.5]]), atol=1e-5)


def test_the_exact_prior_of_the_mesh_itself_has_nothing_to_change() -> None:
    mesh = ball(gradient(), rings=32)
    prior = MeshScore(mesh=mesh, rasterizer=RASTER, image_size=64, ssaa=4)
    found = views_agree(mesh, prior, None, None, RASTER)
    assert found["prior_psnr"] > 60
    assert found["spread"] == pytest.approx(found["spread_floor"], abs=1e-4) and found["spread"] < 0.01


def test_a_prior_that_sees_the_same_face_from_everywhere_contradicts_itself() -> None:
    mesh = ball(gradient(), rings=32)
    front = MeshScore(mesh=mesh, rasterizer=RASTER, image_size=64, ssaa=4)
    face = front.target(None, orbit(0.0, 0.0, 2.0, height=64), torch.ones(1, 3))[0]
    found = views_agree(mesh, PointPrior(target_rgb=face, image_size=64), None, None, RASTER)
    assert found["spread"] > 10 * found["spread_floor"] and found["prior_psnr"] < 30


def test_the_embedded_prior_agrees_less_about_a_toy_than_the_truth_does() -> None:
    from dg.priors.zero123_mini import Zero123Mini

    mesh = make("mug")
    camera = orbit(0.0, 0.0, 2.0, height=128)
    reference = Reference(picture(mesh, 128)[None], camera)
    exact = views_agree(mesh, MeshScore(mesh=mesh, rasterizer=RASTER, image_size=64), reference, None, RASTER)
    mini = views_agree(mesh, Zero123Mini(), reference, None, RASTER)
    assert mini["spread"] > exact["spread"]
    assert mini["prior_psnr"] < exact["prior_psnr"] - 3
    assert mini["spread_floor"] == exact["spread_floor"]  # a matter of the mesh alone


def test_views_surround_the_object_without_its_front() -> None:
    assert sorted(AZIMUTHS) == [22.5 + 45 * k for k in range(8)]
    assert all((b - a) % 360 == 90 for four in (AZIMUTHS[:4], AZIMUTHS[4:]) for a, b in pairwise(four))
    pixel, _ = project(torch.zeros(1, 3), orbit(0.0, list(AZIMUTHS), 2.0, height=64))
    assert torch.allclose(pixel, torch.full_like(pixel, 32.0), atol=1e-3)


def test_sentences_say_what_there_is_and_nothing_else() -> None:
    whole = {
        "mesh/psnr_ref": 27.14,
        "mesh/iou_ref": 0.962,
        "agreement/invented": 0.617,
        "agreement/prior_psnr": 24.0,
        "agreement/spread": 0.051,
        "agreement/spread_floor": 0.0123,
    }
    lines = in_words(whole)
    assert "27.1 dB" in lines[0] and "0.96" in lines[0]
    assert lines[1].startswith("62 % ") and "0.051" in lines[2] and "0.012" in lines[2]
    assert len(in_words({k: v for k, v in whole.items() if "spread" not in k})) == 2
    assert in_words({"agreement/spread": None}) == []
