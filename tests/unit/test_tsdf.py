"""Fused depth pictures against solids whose surface has an equation, and the compiled loop against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dg.core.camera import orbit
from dg.core.clean import topology
from dg.core.density import Grid
from dg.core.depth_normals import view_points
from dg.core.meshes import signed_volume
from dg.core.rng import generator
from dg.core.surface import marching_cubes
from dg.core.tsdf import Evidence, evidence, fuse, views_around
from dg.core.tsdf_torch import fused
from dg.types import Cameras

Distance = Callable[[Tensor], Tensor]


def sphere(p: Tensor) -> Tensor:
    return p.norm(dim=-1) - 0.5


def torus(p: Tensor) -> Tensor:
    return (((p[..., 0].square() + p[..., 2].square()).sqrt() - 0.45).square() + p[..., 1].square()).sqrt() - 0.15


def pictures(cameras: Cameras, solid: Distance) -> tuple[Tensor, Tensor]:
    """(view depth, alpha) by sphere tracing (Hart 1996)."""
    rays = view_points(torch.ones(len(cameras), cameras.height, cameras.width, 1), cameras)
    length = rays.norm(dim=-1)
    step = (rays / length[..., None]).flatten(1, 2) @ cameras.c2w[:, :3, :3].transpose(1, 2)
    t = torch.full(step.shape[:2], 1.2)
    for _ in range(100):
        t = (t + solid(cameras.position[:, None] + t[..., None] * step)).clamp_max(3.5)
    hit = solid(cameras.position[:, None] + t[..., None] * step) < 2e-3
    return torch.where(hit, t, 0).reshape(length.shape) / length, hit.reshape(length.shape).float()


def seen_of(solid: Distance, views: int = 24, size: int = 72):
    cameras = views_around(views, 2.0, 49.1, size)
    depth, alpha = pictures(cameras, solid)
    return evidence(depth, alpha, cameras, max_slope=8.0)


@pytest.mark.parametrize(
    ("solid", "volume", "euler"),
    [(sphere, 4 / 3 * math.pi * 0.5**3, 2), (torus, 2 * math.pi**2 * 0.45 * 0.15**2, 0)],
)
def test_the_surface_is_found_to_a_fraction_of_the_spacing(solid: Distance, volume: float, euler: int) -> None:
    grid = fuse(seen_of(solid), resolution=48)
    mesh = marching_cubes(grid, 0.0)
    error = solid(mesh.vertices)
    assert error.abs().mean() < 0.1 * grid.spacing and error.abs().max() < 0.5 * grid.spacing
    assert float(signed_volume(mesh.vertices.double(), mesh.faces)) == pytest.approx(volume, rel=0.025)
    assert topology(mesh).closed and topology(mesh).euler == euler
    assert grid.values.abs().max() <= 1


def test_the_compiled_loop_is_the_definition() -> None:
    seen = seen_of(torus, views=7, size=40)
    grid = fuse(seen, resolution=24, truncation=2.5, votes=2)
    points = grid.points().reshape(-1, 3)
    slow = fused(points, seen.surface, seen.weight, seen.outside_px, seen.cameras, 2.5 * grid.spacing, 2)
    assert ((slow - grid.values.reshape(-1)).abs() < 1e-4).float().mean() > 0.999  # rounding may pick another pixel
    assert len(grid.values.unique()) > 1000


def wall(depth: float = 2.0, size: int = 33, hole: bool = False):
    camera = orbit(0, 0, 3.0, height=size)  # looks along -z from z = 3
    alpha = torch.zeros(1, size, size)
    alpha[:, 6:-6, 6:-6] = 1
    picture = torch.full((1, size, size), depth)
    if hole:
        alpha[:, size // 2, size // 2] = 0
    return evidence(picture, alpha, camera, max_slope=8.0)


def doubled(seen: Evidence) -> Cameras:
    return seen.cameras[[0, 0]]


def test_one_view_of_a_wall_written_out() -> None:
    """On the camera's axis the field is the truncated distance along it; behind it all is inside."""
    z = torch.tensor([2.0, 1.3, 1.05, 1.0, 0.95, 0.85, 0.7, -1.0])
    points = torch.stack([torch.zeros_like(z), torch.zeros_like(z), z], -1)
    seen = wall()
    got = fused(points, seen.surface, seen.weight, seen.outside_px, seen.cameras, 0.2, 1)
    # the wall is at z = 1; outside is negative
    torch.testing.assert_close(got, torch.tensor([-1, -1, -0.25, 0, 0.25, 0.75, 1, 1]), atol=1e-5, rtol=0)
    twice = fused(
        points, *(x.repeat(2, 1, 1) for x in (seen.surface, seen.weight, seen.outside_px)), doubled(seen), 0.2, 2
    )
    torch.testing.assert_close(twice, got)
    beyond = torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.0, 4.0]])  # beside the picture, behind the camera
    assert (fused(beyond, seen.surface, seen.weight, seen.outside_px, seen.cameras, 0.2, 1) == -1).all()
    beside = torch.tensor([[0.0, 0.0, 1.0]]) + torch.linspace(0, 0.85, 40)[:, None] * torch.tensor([[1.0, 0, 0]])
    field = fused(beside, seen.surface, seen.weight, seen.outside_px, seen.cameras, 0.2, 1)
    edge = 21 / 2 * 2.0 / float(seen.cameras.K[0, 0, 0])  # the wall's half width, in world units at its depth
    outside = beside[:, 0] > edge + 0.05
    expected = -((beside[:, 0] - edge) / 0.2).clamp(0, 1)
    assert outside.sum() > 3 and (field - expected)[outside].abs().max() < 0.15


def test_a_hole_in_one_view_bores_no_tunnel() -> None:
    full, hole = wall(), wall(hole=True)
    inside = torch.tensor([[0.0, 0.0, 0.3]])  # far behind the wall

    def field(*views, votes: int) -> float:
        parts = (torch.cat([getattr(v, name) for v in views]) for name in ("surface", "weight", "outside_px"))
        c = views[0].cameras
        cameras = Cameras(c.c2w.repeat(len(views), 1, 1), c.K.repeat(len(views), 1, 1), c.width, c.height)
        return float(fused(inside, *parts, cameras, 0.2, votes))

    assert field(full, hole, votes=2) == 1 > field(full, hole, votes=1)
    assert field(hole, hole, votes=2) < 1


def test_steps_between_two_surfaces_are_not_trusted() -> None:
    camera = orbit(0, 0, 3.0, height=32)
    depth = torch.full((1, 32, 32), 2.0)
    depth[:, :, 16:] = 2.6
    depth[0, 5, 5] = 9.0  # below: no object there
    depth[0, 20, 25] = 0.0  # something there, but no depth
    alpha = torch.ones(1, 32, 32)
    alpha[0, 4:7, 4:7] = 0
    seen = evidence(depth, alpha, camera, max_slope=8.0)
    doubtful = seen.surface.isnan()
    assert doubtful[:, :, 15:17].all() and doubtful[0, 20, 25] and doubtful.sum() == 64 + 5  # and its neighbours
    assert seen.surface[0, 5, 5] == math.inf and seen.outside_px[0, 5, 5] > 1 > 0 > seen.outside_px[0, 20, 5]
    assert seen.weight[0, 20, 14] == 0 < seen.weight[0, 20, 8]  # no normal beside what is not trusted


def test_the_views_lie_evenly() -> None:
    direction = torch.nn.functional.normalize(views_around(48, 2.0, 49.1, 16).position, dim=1)
    nearest = torch.cdist(direction, direction).fill_diagonal_(9).amin(1)
    assert direction.mean(0).norm() < 0.02 and nearest.min() > 0.75 * nearest.max()
    assert direction[0, 1] > 0.95 and direction[-1, 1] < -0.95


def test_nothing_to_see_is_an_error() -> None:
    camera = orbit(0, 0, 3.0, height=16)
    seen = evidence(torch.zeros(1, 16, 16), torch.zeros(1, 16, 16), camera, max_slope=8.0)
    with pytest.raises(ValueError, match="no view sees a surface"):
        fuse(seen, 24)


def test_noise_gives_no_field_beyond_its_range() -> None:
    cameras = views_around(5, 2.0, 49.1, 24)
    depth = 1.5 + torch.rand(5, 24, 24, generator=generator(0, "noise"))
    grid = fuse(evidence(depth, torch.rand(5, 24, 24, generator=generator(1, "noise")), cameras, max_slope=8.0), 20)
    assert isinstance(grid, Grid) and grid.values.isfinite().all() and grid.values.abs().max() <= 1
