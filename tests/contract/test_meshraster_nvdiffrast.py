"""`dg.meshraster.nvdiffrast` against the CPU rasteriser. Needs a GPU and nvdiffrast.

nvdiffrast snaps vertices to a sixteenth of a pixel, so pixels at edges may go either way, and barycentrics are compared
where both see the same face.
"""

from __future__ import annotations

import pytest
import torch

from dg.core.camera import clip_from_world, orbit
from dg.core.rng import generator
from dg.data.objects import make
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.interpolate import interpolate
from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer
from dg.meshraster.render import render_mesh
from dg.types import Fragments

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def raster() -> NvdiffrastMeshRasterizer:
    pytest.importorskip("nvdiffrast")
    return NvdiffrastMeshRasterizer()


def on_gpu(raster: NvdiffrastMeshRasterizer, clip, faces, size) -> Fragments:
    found = raster(clip.cuda(), faces.cuda(), size)
    assert all(x.is_cuda for x in vars(found).values())
    return Fragments(*(x.cpu() for x in vars(found).values()))


@pytest.mark.parametrize("size", [(96, 96), (64, 101), (7, 5)])
def test_equals_the_cpu(raster, size):
    mesh = make("robot")
    cameras = orbit([0.0, -35.0, 20.0], [0.0, 130.0, 250.0], [2.0, 2.0, 1.2], height=size[0], width=size[1])
    clip = clip_from_world(mesh.vertices, cameras)
    mine, cpu = on_gpu(raster, clip, mesh.faces, size), CpuMeshRasterizer()(clip, mesh.faces, size)
    assert mine.face_id.dtype == cpu.face_id.dtype == torch.int32
    same = mine.face_id == cpu.face_id
    assert same.float().mean() > (0.97 if min(size) > 20 else 0.8) and (cpu.face_id > 0).any()
    hit = same & (cpu.face_id > 0)
    position, expected = (interpolate(mesh.vertices, f, mesh.faces)[hit] for f in (mine, cpu))
    torch.testing.assert_close(position, expected, atol=2e-3, rtol=0)
    assert (mine.bary[hit] - cpu.bary[hit]).abs().quantile(0.9) < 0.02


def test_screen_derivatives_equal_the_cpus(raster):
    """One large triangle in perspective, where snapping changes nothing."""
    points = torch.tensor([[-0.8, -0.7, 0.3], [0.9, -0.5, -0.4], [0.1, 0.8, 0.2]])
    clip = clip_from_world(points, orbit(0.0, 20.0, 2.0, height=64))
    faces = torch.tensor([[0, 1, 2]])
    mine, cpu = on_gpu(raster, clip, faces, (64, 64)), CpuMeshRasterizer()(clip, faces, (64, 64))
    hit = (mine.face_id > 0) & (cpu.face_id > 0)
    assert hit.sum() > 300
    torch.testing.assert_close(mine.bary[hit], cpu.bary[hit], atol=5e-3, rtol=0)
    torch.testing.assert_close(mine.bary_dxy[hit], cpu.bary_dxy[hit], atol=2e-4, rtol=0.02)


@pytest.mark.parametrize(
    "points, faces",
    [
        ([[0.0, 0, 0]], []),  # no faces
        ([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]], [[0, 1, 2], [0, 0, 0]]),  # zero area
        ([[0.0, 0, 5], [1, 0, 5], [0, 1, 5]], [[0, 1, 2]]),  # behind the camera
        ([[9.0, 9, 0], [10, 9, 0], [9, 10, 0]], [[0, 1, 2]]),  # outside the picture
    ],
)
def test_nothing_to_draw(raster, points, faces):
    cameras = orbit([0.0, 0.0], [0.0, 0.0], 2.0, height=16, width=24)
    faces = torch.tensor(faces, dtype=torch.int64).reshape(-1, 3)
    got = on_gpu(raster, clip_from_world(torch.tensor(points), cameras), faces, (16, 24))
    assert got.face_id.shape == (2, 16, 24) and got.bary.shape == (2, 16, 24, 2)
    assert got.bary_dxy.shape == (2, 16, 24, 4) and not got.face_id.any()


def test_a_face_across_the_near_plane_is_a_floor_up_to_the_horizon(raster):
    points = torch.tensor([[-50.0, -1, -50], [50, -1, -50], [0.0, -1, 50]])
    cameras = orbit(0.0, 0.0, 2.0, height=64)
    got = on_gpu(raster, clip_from_world(points, cameras), torch.tensor([[0, 1, 2]]), (64, 64))
    assert (got.face_id[0, 40:] == 1).all() and (got.face_id[0, :32] == 0).all()


def test_many_meshes_at_once(raster):
    """`ranges` draws view v from its own faces, and face ids count in the whole."""
    g = generator(0, "ranges")
    points, faces = torch.rand(24, 3, generator=g) * 2 - 1, torch.arange(24).reshape(8, 3)
    clip = clip_from_world(points, orbit(0.0, 0.0, 3.0, height=40))
    ranges = torch.tensor([[0, 3], [3, 4], [7, 1]])
    together = raster.ranges(clip[0].cuda(), faces.cuda(), ranges.cuda(), (40, 40))
    for v, (start, count) in enumerate(ranges.tolist()):
        alone = on_gpu(raster, clip, faces[start : start + count], (40, 40))
        expected = torch.where(alone.face_id[0] > 0, alone.face_id[0] + start, 0)
        assert torch.equal(together.face_id[v].cpu(), expected) and expected.any()
        torch.testing.assert_close(together.bary[v].cpu(), alone.bary[0])


def test_pictures_of_a_textured_mesh(raster):
    mesh = make("robot")
    cameras = orbit([0.0, -20.0], [30.0, 200.0], 2.0, height=64)
    cpu = render_mesh(mesh, cameras, CpuMeshRasterizer(), torch.ones(3), ssaa=2)
    gpu = render_mesh(mesh.to("cuda"), cameras.to("cuda"), raster, torch.ones(3), ssaa=2)
    difference = (gpu.rgb.cpu() - cpu.rgb).abs()
    assert difference.mean() < 3e-3 and (gpu.alpha.cpu() - cpu.alpha).abs().mean() < 3e-3
