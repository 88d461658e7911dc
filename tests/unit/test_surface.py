"""Iso-surfaces, cavities, carving, the choice of the level, cleaning: properties of the results, mostly on spheres."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dg.core.camera import orbit
from dg.core.carve import hull_distance, seen_empty, silhouette_distance, solid_field
from dg.core.cavities import outside
from dg.core.clean import (
    compact,
    decimate,
    merge_close_vertices,
    remove_degenerate,
    remove_small_components,
    taubin_smooth,
    topology,
)
from dg.core.density import Grid, density_grid
from dg.core.levelchoice import choose_level, max_along_rays
from dg.core.meshes import signed_volume
from dg.core.rng import generator
from dg.core.surface import fill_cavities, marching_cubes
from dg.types import Gaussians, Mesh

SIGMA = 0.1


def field(f, n=40, half=0.6) -> Grid:
    """f(x, y, z) on n^3 points over [-half, half]^3."""
    t = torch.linspace(-half, half, n)
    return Grid(f(*torch.meshgrid(t, t, t, indexing="ij")).float(), torch.full((3,), -half), 2 * half / (n - 1))


def ball(radius=0.4, n=40, centre=(0.0, 0.0, 0.0)) -> Grid:
    """Positive inside."""
    return field(
        lambda x, y, z: radius - ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2).sqrt(), n
    )


def torus(n=48) -> Grid:
    return field(lambda x, y, z: 0.12 - (((x**2 + y**2).sqrt() - 0.4) ** 2 + z**2).sqrt(), n)


def volume(mesh: Mesh) -> float:
    return float(signed_volume(mesh.vertices.double(), mesh.faces))


def disc_views(radius: float, cameras) -> torch.Tensor:
    """Alpha of a ball at the origin, exactly: rays that pass it at less than `radius`."""
    y, x = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
    out = []
    for c2w, K in zip(cameras.c2w, cameras.K, strict=True):
        rays = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)
        rays = torch.nn.functional.normalize(rays, dim=-1) @ c2w[:3, :3].T
        miss = torch.linalg.cross(rays, (-c2w[:3, 3]).expand_as(rays)).norm(dim=-1)
        out.append((miss < radius).float())
    return torch.stack(out)


# --- iso-surface


@pytest.mark.parametrize(("copies", "opacity", "level"), [(1, 1.0, 0.5), (3, 0.9, 1.0), (5, 1.0, 0.2)])
def test_stacked_gaussians_give_a_sphere(copies, opacity, level):
    """Radius sqrt(2 ln(sum of opacities / level)) sigma."""
    x = Gaussians(
        torch.tensor([[0.3, -0.2, 0.1]]).repeat(copies, 1),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(copies, 1),
        torch.full((copies, 3), SIGMA),
        torch.full((copies,), opacity),
        torch.zeros(copies, 1, 3),
    )
    mesh = marching_cubes(density_grid(x, 64, blur=0), level)
    distance = (mesh.vertices - x.means[0]).norm(dim=1)
    expected = math.sqrt(2 * math.log(copies * opacity / level)) * SIGMA
    assert (distance - expected).abs().max() < 0.01 * expected
    assert topology(mesh).closed and topology(mesh).euler == 2
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * expected**3, rel=0.02)


def test_a_surface_cut_by_the_border_is_closed_there():
    mesh = marching_cubes(ball(radius=0.8), 0.0)  # pokes through all six sides
    assert topology(mesh).closed and volume(mesh) > 0
    assert mesh.vertices.abs().max() < 0.6 + ball().spacing


def test_both_senses_of_a_field_face_outwards():
    """Values that fall outwards, whatever library convention: the normal points away from the centre."""
    mesh = marching_cubes(ball(), 0.0)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert ((torch.linalg.cross(b - a, c - a) * (a + b + c)).sum(1) >= 0).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([6, 9, 13]), st.booleans())
def test_any_field_gives_a_closed_surface(seed, n, coarse):
    """Noise is the worst case for the ambiguous cells; coarse noise hits the level exactly."""
    values = torch.rand(n, n, n, generator=generator(seed, "noise"))
    values = (values * 4).round() / 4 if coarse else values
    mesh = marching_cubes(Grid(values, torch.zeros(3), 1.0), 0.5)
    assert topology(mesh).closed
    assert volume(mesh) > 0


def test_no_surface_is_an_error():
    with pytest.raises(ValueError, match="peak"):
        marching_cubes(ball(radius=0.2), 0.5)


# --- cavities


def shell(inner=0.25, outer=0.4, n=40) -> Grid:
    return field(lambda x, y, z: torch.minimum(outer - (r := (x**2 + y**2 + z**2).sqrt()), r - inner), n)


def test_a_closed_cavity_becomes_solid():
    grid = shell()
    hollow = marching_cubes(grid, 0.0)
    solid = marching_cubes(Grid(fill_cavities(grid.values, 0.0), grid.origin, grid.spacing), 0.0)
    assert topology(hollow).components == 2 and topology(solid).components == 1
    assert volume(hollow) == pytest.approx(4 / 3 * math.pi * (0.4**3 - 0.25**3), rel=0.03)
    assert volume(solid) == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.02)
    # the outer wall did not move
    assert (solid.vertices.norm(dim=1) - 0.4).abs().max() < 0.2 * grid.spacing


def test_leaks_are_a_way_in_unless_asked_otherwise():
    values = shell().values.clone()
    values[19:21, 19:21, 20:] = -1.0  # a hole two points wide
    assert outside(values, 0.0)[20, 20, 20]
    filled = fill_cavities(values, 0.0, leak=2)
    assert filled[20, 20, 20] > 0 and filled[8, 20, 20] > 0 and filled[0, 0, 0] < 0
    solid = fill_cavities(shell().values, 0.0) > 0
    assert ((filled > 0) ^ solid).sum() < 80  # the hole's mouth is all that differs
    assert torch.equal(fill_cavities(values, 0.0) > 0, values > 0)


def test_narrow_gaps_are_no_cavities():
    """Two blocks side by side: the gap between them is open, however narrow."""
    values = torch.full((30, 30, 30), -1.0)
    values[5:14, 5:25, 5:25] = values[16:25, 5:25, 5:25] = 1.0
    assert torch.equal(fill_cavities(values, 0.0, leak=3), values)


def test_a_handle_is_not_a_cavity():
    grid = torus()
    assert torch.equal(fill_cavities(grid.values, 0.0), grid.values)
    mesh = marching_cubes(grid, 0.0)
    assert topology(mesh).euler == 0 and topology(mesh).closed


# --- carving


VIEWS = orbit([0] * 8 + [-50] * 6 + [50] * 6, [45 * i for i in range(8)] + [60 * i for i in range(6)] * 2, height=96)


def test_distance_to_a_silhouette_is_in_pixels():
    """A disc's contour, of which every pixel knows its distance."""
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    r = ((x - 30) ** 2 + (y - 33) ** 2).sqrt()
    distance = silhouette_distance((20.3 - r + 0.5).clamp(0, 1)[None])[0]
    near = (r - 20.3).abs() < 10
    assert (distance - (20.3 - r))[near].abs().max() < 0.5
    assert (distance - (20.3 - r))[near].mean().abs() < 0.05
    assert silhouette_distance(torch.zeros(1, 8, 8)).max() == -math.inf
    assert silhouette_distance(torch.ones(1, 8, 8)).min() == math.inf


def test_the_hull_of_a_ball_is_the_ball():
    grid = ball()
    hull = hull_distance(grid, disc_views(0.4, VIEWS), VIEWS)
    near = grid.values.abs() < 2 * grid.spacing
    error = (hull - grid.values)[near]
    assert error.mean().abs() < 0.01 and error.min() > -0.01  # outside the ball only between the views
    assert error.quantile(0.95) < 0.02


def test_votes_outlive_a_broken_view():
    grid, alpha = ball(), disc_views(0.4, VIEWS)
    alpha[3] = 0  # one view sees nothing at all
    centre = (20, 20, 20)
    assert hull_distance(grid, alpha, VIEWS)[centre] < 0
    assert hull_distance(grid, alpha, VIEWS, votes=2)[centre] > 0.3


def test_what_no_view_sees_as_empty_is_inside():
    """A thin wall with holes in it and nothing behind: solid all the same, where its depth is known."""
    grid = ball()
    alpha = disc_views(0.4, VIEWS)
    r = 0.4 - grid.values
    wall = torch.where((r - 0.38).abs() < 0.03, 1.0, 0.0)
    wall[18:22, :, 30:] = 0  # a slit
    distance = VIEWS.position.norm(dim=1)
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    depth = []
    for d, K in zip(distance, VIEWS.K, strict=True):  # the front of the ball, in view depth
        slope2 = ((x - K[0, 2]) ** 2 + (y - K[1, 2]) ** 2) / K[0, 0] ** 2
        root = (d * d - (1 + slope2) * (d * d - 0.16)).clamp_min(0).sqrt()
        depth.append((d - root) / (1 + slope2))
    empty = seen_empty(grid, torch.stack(depth), alpha, VIEWS, margin=0.01)
    assert empty[20, 20, 20] == 0 and empty[r > 0.5].min() >= 8
    dense = Grid(wall, grid.origin, grid.spacing)
    values = solid_field(dense, 0.5, hull_distance(grid, alpha, VIEWS), empty, votes=2)
    mesh = marching_cubes(Grid(values, grid.origin, grid.spacing), 0.0)
    assert topology(mesh).components == 1 and topology(mesh).euler == 2
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.06)


# --- level


def gaussian_ball(n=1500, radius=0.4, sigma=0.05, opacity=0.9) -> Gaussians:
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator(0, "ball")), dim=1)
    r = radius * torch.rand(n, 1, generator=generator(1, "ball")) ** (1 / 3)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    return Gaussians(direction * r, quats, torch.full((n, 3), sigma), torch.full((n,), opacity), torch.zeros(n, 1, 3))


def test_rays_find_the_maximum():
    grid = field(lambda x, y, z: torch.exp(-((x - 0.1) ** 2 + y**2 + z**2) / (2 * 0.15**2)), n=64)
    cameras = orbit([0, 0], [0, 90], height=32)
    peak = max_along_rays(grid, cameras)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    for v, (c2w, K) in enumerate(zip(cameras.c2w, cameras.K, strict=True)):
        rays = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)
        rays = torch.nn.functional.normalize(rays, dim=-1) @ c2w[:3, :3].T
        miss = torch.linalg.cross(rays, (torch.tensor([0.1, 0, 0]) - c2w[:3, 3]).expand_as(rays)).norm(dim=-1)
        expected = torch.exp(-(miss**2) / (2 * 0.15**2))
        assert (peak[v] - expected)[expected > 0.05].abs().max() < 0.01


def test_ious_equal_those_of_the_thresholded_pictures():
    peak = torch.rand(2, 9, 9, generator=generator(0, "peak")) * 3
    alpha = torch.rand(2, 9, 9, generator=generator(1, "alpha"))
    choice = choose_level(peak, alpha, lo=0.1, candidates=17)
    for level, iou in zip(choice.levels, choice.ious, strict=True):
        s = (peak > level).float()
        assert iou.item() == pytest.approx(
            (torch.minimum(s, alpha).sum() / torch.maximum(s, alpha).sum()).item(), abs=1e-5
        )
    assert choice.iou == pytest.approx(choice.ious.max().item())


def test_the_chosen_level_beats_the_fixed_one():
    """Gaussians that fill a ball and reach beyond it: at level 1 the mesh is too large, at the chosen one it fits."""
    truth = 0.4
    grid = density_grid(gaussian_ball(), 64)
    views = VIEWS[[0, 2, 8, 14]]
    choice = choose_level(max_along_rays(grid, views), disc_views(truth, views))
    offset = {}
    for name, level in (("fixed", 1.0), ("chosen", choice.level)):
        mesh = remove_small_components(marching_cubes(grid, level))
        offset[name] = abs((volume(mesh) / (4 / 3 * math.pi)) ** (1 / 3) - truth)
    assert offset["fixed"] > 0.05 > 0.012 > offset["chosen"]
    assert choice.iou > 0.93


def test_a_faint_field_lowers_the_range_of_levels():
    grid = density_grid(gaussian_ball(opacity=0.01), 48)
    peak = max_along_rays(grid, VIEWS[[0, 2]]) * (0.01 / grid.values.max())
    choice = choose_level(peak, disc_views(0.4, VIEWS[[0, 2]]))
    assert 0 < choice.level < 0.01 and choice.iou > 0.9


def test_an_empty_field_says_what_is_there():
    with pytest.raises(ValueError, match=r"largest alpha is 0.1.*99 % are <= 0.2"):
        choose_level(torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.1))
    with pytest.raises(ValueError, match="no surface"):
        choose_level(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))


# --- cleaning


def join(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    return Mesh(
        torch.cat([m.vertices for m in meshes]),
        torch.cat([m.faces + int(o) for m, o in zip(meshes, offsets, strict=False)]),
    )


def test_topology_of_known_shapes():
    sphere, ring = marching_cubes(ball(n=20), 0.0), marching_cubes(torus(n=32), 0.0)
    assert (topology(sphere).components, topology(sphere).euler, topology(sphere).closed) == (1, 2, True)
    assert (topology(ring).components, topology(ring).euler, topology(ring).closed) == (1, 0, True)
    both = topology(join(sphere, ring))
    assert (both.components, both.euler, both.closed) == (2, 2, True)
    assert not topology(Mesh(sphere.vertices, sphere.faces[1:])).closed
    flipped = sphere.faces.clone()
    flipped[0] = flipped[0].flip(0)
    assert not topology(Mesh(sphere.vertices, flipped)).closed
    assert not topology(Mesh(sphere.vertices, torch.cat([sphere.faces, sphere.faces[:1]]))).closed


def test_small_parts_go_and_the_largest_stays():
    large, small = marching_cubes(ball(0.3), 0.0), marching_cubes(ball(0.1, centre=(0.45, 0.45, 0.45)), 0.0)
    both = join(small, large)
    kept = remove_small_components(both, min_volume=0.1)
    assert topology(kept).components == 1 and volume(kept) == pytest.approx(volume(large), rel=1e-5)
    assert topology(remove_small_components(both, min_volume=0.01)).components == 2
    assert topology(remove_small_components(both, min_volume=0, min_diameter=0.3)).components == 1
    assert topology(remove_small_components(both, min_volume=0, min_faces=len(small.faces) + 1)).components == 1
    impossible = remove_small_components(both, min_volume=0, min_faces=10**9)
    assert len(impossible.faces) == len(large.faces) and len(impossible.vertices) == len(large.vertices)


def test_walls_of_cavities_go_with_positive_volume():
    mesh = remove_small_components(marching_cubes(shell(), 0.0), min_volume=0.01)
    assert topology(mesh).components == 1 and volume(mesh) == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.02)


def test_degenerate_and_double_faces_go():
    vertices = torch.rand(5, 3, generator=generator(0, "v"))
    faces = torch.tensor([[0, 1, 2], [2, 0, 1], [2, 1, 0], [3, 3, 1], [1, 2, 4]])
    mesh = remove_degenerate(Mesh(vertices, faces))
    assert mesh.faces.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert torch.equal(mesh.vertices, vertices[[0, 1, 2, 4]])


@pytest.mark.parametrize(("grid", "euler"), [(ball(), 2), (torus(), 0)])
def test_decimation_keeps_topology_and_volume(grid, euler):
    mesh = marching_cubes(grid, 0.0)
    small = decimate(mesh, 800)
    assert 4 <= len(small.faces) <= 800 < len(mesh.faces)
    assert topology(small).closed and topology(small).euler == euler and topology(small).components == 1
    assert volume(small) == pytest.approx(volume(mesh), rel=0.02)
    assert decimate(small, 10_000) is small


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_decimation_never_opens_a_surface(seed):
    """Smooth noise: many parts and handles. Closed before, closed after."""
    values = torch.rand(1, 1, 8, 8, 8, generator=generator(seed, "noise"))
    values = torch.nn.functional.interpolate(values, (20, 20, 20), mode="trilinear", align_corners=True)[0, 0]
    mesh = marching_cubes(Grid(values, torch.zeros(3), 1 / 19), 0.55)
    small = decimate(mesh, len(mesh.faces) // 4)
    assert topology(small).closed
    assert volume(small) == pytest.approx(volume(mesh), rel=0.051)


def test_an_open_surface_is_decimated_too():
    mesh = marching_cubes(ball(), 0.0)
    half = remove_degenerate(Mesh(mesh.vertices, mesh.faces[mesh.vertices[mesh.faces].mean(1)[:, 2] > 0]))
    assert len(decimate(half, 500).faces) <= 500


def test_taubin_takes_out_noise_and_keeps_the_volume():
    mesh = marching_cubes(ball(), 0.0)
    noise = torch.randn(mesh.vertices.shape, generator=generator(0, "noise")) * 0.2 * ball().spacing
    rough = Mesh(mesh.vertices + noise, mesh.faces)
    smooth = taubin_smooth(rough, 5)
    spread = lambda m: float((m.vertices.norm(dim=1) - 0.4).std())  # noqa: E731
    assert spread(smooth) < 0.5 * spread(rough)
    assert volume(smooth) == pytest.approx(volume(mesh), rel=0.01)
    assert taubin_smooth(mesh, 0) is mesh


def test_merging_coarsens():
    mesh = marching_cubes(ball(), 0.0)
    merged = merge_close_vertices(mesh, 2.5 * ball().spacing)
    assert len(merged.faces) < 0.5 * len(mesh.faces)
    assert (merged.faces[:, 0] != merged.faces[:, 1]).all()
    assert (merged.vertices.norm(dim=1) - 0.4).abs().max() < 1.5 * ball().spacing


@settings(max_examples=60, deadline=None)
@given(st.lists(st.permutations(range(5)).map(lambda x: x[:3]), min_size=1, max_size=12))
def test_topology_of_any_faces(faces):
    """Against counting edges one by one."""
    half = Counter(e for a, b, c in faces for e in ((a, b), (b, c), (c, a)))
    closed = all(n == 1 and half[b, a] == 1 for (a, b), n in half.items())
    edges, used = {tuple(sorted(e)) for e in half}, {v for f in faces for v in f}
    parts = {v: {v} for v in used}
    for a, b in edges:
        joined = parts[a] | parts[b]
        parts |= dict.fromkeys(joined, joined)
    mesh = Mesh(torch.zeros(7, 3), torch.tensor(faces) + 1)
    found = topology(mesh)
    assert found.closed == closed and found.components == len({frozenset(p) for p in parts.values()})
    assert found.euler == len(used) - len(edges) + len(faces)
    small = compact(mesh)
    assert len(small.vertices) == len(used) and sorted(small.faces.unique().tolist()) == list(range(len(used)))
