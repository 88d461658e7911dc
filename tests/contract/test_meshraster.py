"""The mesh rasteriser against ray casts, a slow loop, finite differences, and degenerate input."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dg.core.camera import clip_from_world, orbit
from dg.core.rng import generator
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.interpolate import interpolate, interpolate_dxy
from dg.meshraster.render import render_mesh
from dg.meshraster.torch_rows import TorchMeshRasterizer
from dg.types import Fragments


class OnGpu:
    """`TorchMeshRasterizer` on a GPU, for inputs and outputs on the CPU."""

    def __init__(self, *options):
        self.raster = TorchMeshRasterizer(*options)

    def __call__(self, clip, faces, size):
        found = self.raster(clip.cuda(), faces.cuda(), size)
        assert all(x.is_cuda for x in vars(found).values())
        return Fragments(*(x.cpu() for x in vars(found).values()))


KINDS = [CpuMeshRasterizer, TorchMeshRasterizer, pytest.param(OnGpu, marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def raster(kind):
    return kind()


def slow(clip, faces, size, near=0.01):
    """Every pixel against every face: solve for the barycentrics over depth, keep the nearest. float64."""
    height, width = size
    ids = torch.zeros(len(clip), height, width, dtype=torch.int32)
    bary = torch.zeros(len(clip), height, width, 2, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij")
    ndc = torch.stack([2 * x / width - 1, 2 * y / height - 1, torch.ones_like(x)], -1)
    for v in range(len(clip)):
        nearest = torch.full((height, width), torch.inf, dtype=torch.float64)
        for f, face in enumerate(faces):
            corners = clip[v, face][:, [0, 1, 3]].double()
            if len(set(face.tolist())) < 3:
                continue
            over_depth = ndc @ corners.inverse()
            depth = 1 / over_depth.sum(-1)
            inside = (over_depth >= 0).all(-1) & (depth >= near) & (depth < nearest)
            ids[v][inside] = f + 1
            bary[v][inside] = (over_depth * depth[..., None])[..., :2][inside]
            nearest[inside] = depth[inside]
    return ids, bary


def triangles(seed: int, count: int, shared: bool = True):
    g = generator(seed, "triangles")
    points = torch.rand(3 * count, 3, generator=g) * 2 - 1
    if shared:
        return points, torch.randint(0, len(points), (count, 3), generator=g)
    return points, torch.arange(3 * count).reshape(count, 3)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_slow_loop(raster, seed):
    points, faces = triangles(seed, 14)
    # radius 0.9: faces are large, some behind the camera, some across the near plane
    cameras = orbit([10.0, -40.0], [20.0 * seed, 200.0], [2.0, 0.9], height=33, width=47)
    clip = clip_from_world(points, cameras)
    got = raster(clip, faces, (33, 47))
    ids, bary = slow(clip, faces, (33, 47))
    assert got.face_id.dtype == torch.int32 and got.bary.dtype == got.bary_dxy.dtype == torch.float32
    assert (got.face_id != ids).sum() == 0
    torch.testing.assert_close(got.bary, bary.float(), atol=1e-5, rtol=0)
    assert (got.face_id > 0).float().mean() > 0.2


def test_equals_ray_casts(raster):
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("embreex")
    mesh = trimesh.creation.torus(0.35, 0.15, 96, 48)
    points, faces = torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(np.array(mesh.faces))
    size = 128
    cameras = orbit(-25.0, 40.0, 2.0, height=size)
    clip = clip_from_world(points, cameras)
    got = raster(clip, faces, (size, size))

    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    view = torch.stack([x, y, torch.ones_like(x)], -1) @ cameras.K[0].inverse().T
    rays = (view @ cameras.c2w[0, :3, :3].T).reshape(-1, 3).numpy()
    origins = cameras.position.expand(len(rays), 3).numpy()
    caster = trimesh.ray.ray_pyembree.RayMeshIntersector(
        trimesh.Trimesh(points.numpy(), faces.numpy(), process=False), scale_to_box=False
    )
    hit = torch.tensor(caster.intersects_first(origins, rays)).reshape(size, size) + 1
    bary = torch.cat([got.bary[0], 1 - got.bary[0].sum(-1, keepdim=True)], -1)
    inner = (bary.amin(-1) > 1e-3) | (got.face_id[0] == 0)  # a ray at an edge may go either way
    assert (got.face_id[0] > 0).float().mean() > 0.1
    assert (hit == got.face_id[0])[inner].float().mean() >= 0.999

    # where they agree: the interpolated position is the intersection, and depth its distance along the axis
    agree = (hit == got.face_id[0]) & (hit > 0)
    position = interpolate(points, got, faces)[0][agree]
    depth = interpolate(clip[..., 3:], got, faces)[0][agree]
    normal = torch.tensor(mesh.face_normals, dtype=torch.float32)[hit[agree] - 1]
    corner = points[faces[hit[agree] - 1, 0]]
    ray = torch.tensor(rays).reshape(size, size, 3)[agree]
    along = ((corner - cameras.position) * normal).sum(-1) / (ray * normal).sum(-1)  # ray z in view space is 1
    steep = (ray * normal).sum(-1).abs() > 0.1
    torch.testing.assert_close(depth[:, 0][steep], along[steep], atol=1e-4, rtol=0)
    torch.testing.assert_close(position[steep], (cameras.position + along[:, None] * ray)[steep], atol=1e-4, rtol=0)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.booleans())
def test_a_triangulated_rectangle_is_covered_exactly_once(raster, seed, snap):
    """A fan over random inner points, rotated and in perspective: no cracks, and no pixel drawn by two faces."""
    from scipy.spatial import Delaunay

    g = generator(seed, "fan")
    inner = torch.rand(30, 2, generator=g) * 2 - 1
    border = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
    plane = torch.cat([border, inner])
    if snap:  # vertices and edges exactly on pixel centres of the 16 x 16 picture
        plane = ((plane * 8).round() + 0.5) / 8
        plane = torch.unique(plane, dim=0)
    faces = torch.tensor(Delaunay(plane.numpy().astype(np.float64)).simplices.astype(np.int64))
    w = torch.ones(len(plane), 1) if snap else 1 + 0.3 * (plane @ torch.rand(2, 1, generator=g))
    clip = torch.cat([plane * w, torch.zeros(len(plane), 1), w], -1)[None]
    counts = torch.zeros(16, 16)
    for f in range(len(faces)):
        counts += (raster(clip, faces[f : f + 1], (16, 16)).face_id[0] > 0).float()
    together = raster(clip, faces, (16, 16)).face_id[0] > 0
    assert counts.max() <= 1
    assert torch.equal(together, counts > 0)
    assert counts[1:-1, 1:-1].min() == 1


def test_orientation_of_the_picture(raster):
    """Row 0 is at y = -1, column 0 at x = -1; u weighs vertex 0, v vertex 1."""
    clip = torch.tensor([[[-1.0, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]]])
    got = raster(clip, torch.tensor([[0, 1, 2]]), (4, 6))
    assert (got.face_id == 1).all()
    # at the centre of row 0, column 0: x = -1 + 1/6, y = -1 + 1/4
    v, last = (1 / 6) / 4, (1 / 4) / 4
    torch.testing.assert_close(got.bary[0, 0, 0], torch.tensor([1 - v - last, v]))
    # v grows by (2/6)/4 per column and not with the rows
    torch.testing.assert_close(got.bary_dxy[0, 2, 3, 2:], torch.tensor([1 / 12, 0.0]))


def test_derivatives_match_finite_differences(raster):
    points, faces = triangles(3, 4, shared=False)
    cameras = orbit(15.0, 70.0, 1.6, height=40)
    clip = clip_from_world(points, cameras).double()
    got = raster(clip, faces, (40, 40))
    step = 1e-3  # pixels

    def moved(dx, dy):
        shifted = clip.clone()
        shifted[..., 0] -= 2 * dx / 40 * clip[..., 3]
        shifted[..., 1] -= 2 * dy / 40 * clip[..., 3]
        return raster(shifted, faces, (40, 40))

    checked = 0
    for axis, (dx, dy) in enumerate([(step, 0), (0, step)]):
        ahead, behind = moved(dx, dy), moved(-dx, -dy)
        same = (ahead.face_id == got.face_id) & (behind.face_id == got.face_id) & (got.face_id > 0)
        slope = (ahead.bary.double() - behind.bary.double()) / (2 * step)
        for k in range(2):
            torch.testing.assert_close(
                got.bary_dxy[..., 2 * k + axis][same].double(), slope[..., k][same], atol=2e-4, rtol=1e-3
            )
        checked += int(same.sum())
    assert checked > 200


def test_equally_deep_faces_go_to_the_lower_index(raster):
    clip = torch.tensor([[[-1.0, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]]])
    faces = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 2, 0]])
    assert (raster(clip, faces, (9, 9)).face_id == 1).all()
    nearer = torch.cat([clip, clip * 0.5], 1)
    assert (raster(nearer, torch.tensor([[0, 1, 2], [3, 4, 5]]), (9, 9)).face_id == 2).all()


@pytest.mark.parametrize(
    "points, faces",
    [
        ([[0.0, 0, 0]], []),  # no faces
        ([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]], [[0, 1, 2], [0, 0, 0]]),  # zero area
        ([[0.0, 0, 0], [0.5, 0, 0], [1, 0, 0]], [[0, 1, 2]]),  # a line
        ([[0.0, 0, 0], [0, 1, 0], [0, 0, 1.0]], [[0, 1, 2]]),  # seen exactly edge-on from azimuth 0
        ([[0.0, 0, 5], [1, 0, 5], [0, 1, 5]], [[0, 1, 2]]),  # behind the camera
        ([[9.0, 9, 0], [10, 9, 0], [9, 10, 0]], [[0, 1, 2]]),  # outside the picture
        ([[float("nan"), 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]),  # not a number
        ([[float("inf"), 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]),
    ],
)
def test_nothing_to_draw(raster, points, faces):
    cameras = orbit([0.0, 0.0], [0.0, 0.0], 2.0, height=16, width=24)
    faces = torch.tensor(faces, dtype=torch.int64).reshape(-1, 3)
    got = raster(clip_from_world(torch.tensor(points), cameras), faces, (16, 24))
    assert (
        got.face_id.shape == (2, 16, 24) and got.bary.shape == (2, 16, 24, 2) and got.bary_dxy.shape == (2, 16, 24, 4)
    )
    assert (got.face_id == 0).all() and (got.bary == 0).all() and (got.bary_dxy == 0).all()


def test_a_face_across_the_near_plane_is_a_floor_up_to_the_horizon(raster):
    """A huge ground plane below a level camera: everything under the horizon is floor, at depth height / slope."""
    points = torch.tensor([[-1e4, -1, -1e4], [1e4, -1, -1e4], [0.0, -1, 1e4]])
    cameras = orbit(0.0, 0.0, 2.0, height=64)
    clip = clip_from_world(points, cameras)
    faces = torch.tensor([[0, 1, 2]])
    got = raster(clip, faces, (64, 64))
    assert (got.face_id[0, 33:] == 1).all() and (got.face_id[0, :32] == 0).all()
    depth = interpolate(clip[..., 3:], got, faces)[0, :, 10, 0]
    row = torch.arange(40, 64)
    expected = cameras.K[0, 1, 1] / (row + 0.5 - 32)
    torch.testing.assert_close(depth[40:], expected, rtol=2e-3, atol=0)


def test_nothing_is_drawn_nearer_than_near(kind):
    """A tilted floor that passes just below the camera: pixels nearer than `near` stay empty."""
    points = torch.tensor([[-1.0, -0.08, 3.0], [1.0, -0.03, 3.0], [0.3, -0.06, -2.0]])
    cameras = orbit(0.0, 0.0, 2.0, height=64)
    clip, faces = clip_from_world(points, cameras), torch.tensor([[0, 1, 2]])
    for near in (0.01, 0.3):
        got = kind(near)(clip, faces, (64, 64))
        ids, _ = slow(clip, faces, (64, 64), near)
        assert torch.equal(got.face_id, ids)
        depth = interpolate(clip[..., 3:], got, faces)[got.face_id > 0]
        assert len(depth) and depth.min() >= near * (1 - 1e-4)


def test_views_are_independent_and_repeatable(raster):
    points, faces = triangles(9, 60)
    cameras = orbit([0.0, -30.0, 50.0], [0.0, 120.0, 240.0], 2.0, height=50, width=30)
    clip = clip_from_world(points, cameras)
    together = raster(clip, faces, (50, 30))
    for v in range(3):
        alone = raster(clip[v : v + 1], faces, (50, 30))
        for a, b in zip(vars(together).values(), vars(alone).values(), strict=True):
            assert torch.equal(a[v : v + 1], b)


def test_positions_get_no_gradient(raster):
    points, faces = triangles(1, 5)
    clip = clip_from_world(points.requires_grad_(), orbit(0.0, 0.0, 2.0, height=16))
    got = raster(clip, faces, (16, 16))
    assert clip.requires_grad and not got.bary.requires_grad


def test_wrong_input_is_refused(kind, raster):
    clip = torch.zeros(1, 3, 4)
    with pytest.raises(ValueError, match="outside"):
        raster(clip, torch.tensor([[0, 1, 3]]), (4, 4))
    with pytest.raises(ValueError, match=r"\[V P 4\]"):
        raster(clip[..., :3], torch.tensor([[0, 1, 2]]), (4, 4))
    with pytest.raises(ValueError, match="near"):
        kind(0.0)


def test_interpolation_and_its_gradient(raster):
    points, faces = triangles(4, 10)
    cameras = orbit([0.0, 30.0], [10.0, 100.0], 2.0, height=12)
    got = raster(clip_from_world(points, cameras), faces, (12, 12))
    attributes = torch.rand(len(points), 3, dtype=torch.float64, generator=generator(0, "attributes")).requires_grad_()
    values = interpolate(attributes, got, faces)
    assert values.shape == (2, 12, 12, 3)
    v, y, x = (got.face_id > 0).nonzero()[5].tolist()
    a, b, c = attributes[faces[got.face_id[v, y, x] - 1]]
    u0, u1 = got.bary[v, y, x].double()
    torch.testing.assert_close(values[v, y, x], u0 * a + u1 * b + (1 - u0 - u1) * c)
    assert (values[got.face_id == 0] == 0).all()
    assert torch.autograd.gradcheck(lambda x: interpolate(x, got, faces), attributes)
    per_view = torch.stack([attributes, 2 * attributes])
    torch.testing.assert_close(interpolate(per_view, got, faces)[1], 2 * values[1])


def test_screen_derivatives_of_attributes(raster):
    """An attribute that is the pixel position itself, on a face parallel to the picture, changes by one per pixel."""
    clip = torch.tensor([[[-1.0, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]]])
    faces = torch.tensor([[0, 1, 2]])
    got = raster(clip, faces, (8, 10))
    pixels = torch.stack([(clip[0, :, 0] + 1) * 5, (clip[0, :, 1] + 1) * 4], -1)
    slopes = interpolate_dxy(pixels, got, faces)
    torch.testing.assert_close(slopes, torch.tensor([1.0, 0, 0, 1]).expand(1, 8, 10, 4), atol=1e-5, rtol=0)
    empty = Fragments(*(torch.zeros_like(x) for x in vars(got).values()))
    assert (interpolate_dxy(pixels, empty, faces) == 0).all()


def test_a_picture_and_the_gradient_of_its_texture(raster):
    """Two views, supersampled: what stage 2 does in each step. All rasterisers agree."""
    from dg.data.objects import make

    mesh, cameras = make("robot"), orbit([0.0, -20.0], [30.0, 200.0], 2.0, height=24)
    seen = []
    for drawn_by in (raster, CpuMeshRasterizer()):
        texture = mesh.texture.clone().requires_grad_()
        render = render_mesh(mesh, cameras, drawn_by, torch.ones(3), ssaa=2, texture=texture)
        (render.rgb * torch.linspace(-1, 1, 24)[:, None]).square().sum().backward()
        seen.append((render.rgb.detach(), render.alpha, texture.grad))
    assert seen[0][2].abs().sum() > 1
    for ours, theirs in zip(*seen, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_pixels_in_portions_are_the_same_pixels(at_once, monkeypatch):
    points, faces = triangles(5, 20)
    clip = clip_from_world(points, orbit(10.0, 20.0, 1.2, height=20))
    whole = TorchMeshRasterizer()(clip, faces, (20, 20))
    monkeypatch.setattr("dg.meshraster.torch_rows.PIXELS_AT_ONCE", at_once)
    for a, b in zip(vars(whole).values(), vars(TorchMeshRasterizer()(clip, faces, (20, 20))).values(), strict=True):
        assert torch.equal(a, b)


def test_no_views():
    got = TorchMeshRasterizer()(torch.zeros(0, 3, 4), torch.tensor([[0, 1, 2]]), (4, 5))
    assert [tuple(x.shape) for x in vars(got).values()] == [(0, 4, 5), (0, 4, 5, 2), (0, 4, 5, 4)]


def test_a_gpu_without_nvdiffrast_draws_with_torch(monkeypatch, caplog):
    from dg.runtime import device

    monkeypatch.setattr(device, "resolve", torch.device)
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    with caplog.at_level("INFO", "dg"):
        assert isinstance(device.mesh_rasterizer("cuda"), TorchMeshRasterizer)
    assert "meshraster=torch" in caplog.text and "git+https" in caplog.text
