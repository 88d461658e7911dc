"""Texture coordinates: complete, inside the texture, without overlap, apart; and the grid that stands in for xatlas."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from skimage.measure import marching_cubes

from dg.core.facegrid import face_grid, paint_corners
from dg.core.rng import generator
from dg.core.uv import _pieces, unwrap
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.interpolate import interpolate
from dg.meshraster.texture import sample
from dg.types import Fragments, Mesh


def bumpy(n: int = 24) -> Mesh:
    """A ring with bumps: the surface of marching cubes, genus 1."""
    x, y, z = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j, -1 : 1 : n * 1j]
    field = np.hypot(np.hypot(x, y) - 0.6, z) - 0.25 - 0.04 * np.sin(9 * x) * np.sin(8 * y)
    vertices, faces, _, _ = marching_cubes(field, 0.0)
    return Mesh(torch.tensor(vertices.copy()), torch.tensor(faces.astype(np.int64)))


def raster_uv(mesh: Mesh, size: int) -> Fragments:
    clip = torch.cat([mesh.uv * 2 - 1, torch.zeros(len(mesh.uv), 1), torch.ones(len(mesh.uv), 1)], 1)
    return CpuMeshRasterizer()(clip[None], mesh.faces_uv, (size, size))


def uv_area(mesh: Mesh) -> torch.Tensor:
    a, b, c = mesh.uv[mesh.faces_uv].double().unbind(1)
    (x1, y1), (x2, y2) = (b - a).unbind(1), (c - a).unbind(1)
    return (x1 * y2 - x2 * y1).abs() / 2


def charts(mesh: Mesh) -> torch.Tensor:
    """Which connected piece of the layout each face is in [F]."""
    label = torch.arange(len(mesh.uv))
    while True:
        least = label[mesh.faces_uv].amin(1, keepdim=True).expand(-1, 3)
        new = label.scatter_reduce(0, mesh.faces_uv.reshape(-1), least.reshape(-1), "amin")
        if torch.equal(new, label):
            return label[mesh.faces_uv[:, 0]]
        label = new


@pytest.mark.parametrize("piece_faces", [None, 1500, 200])
def test_layout_is_complete_inside_and_without_overlap(piece_faces):
    mesh = bumpy()
    got = unwrap(mesh, resolution=512, piece_faces=piece_faces)
    assert got.vertices is mesh.vertices and got.faces is mesh.faces and got.texture is None
    assert got.faces_uv.shape == mesh.faces.shape and got.faces_uv.dtype == torch.int64
    assert torch.isfinite(got.uv).all() and got.uv.min() >= 0 and got.uv.max() <= 1
    assert got.faces_uv.min() >= 0 and got.faces_uv.max() < len(got.uv)
    # a uv point belongs to one vertex
    owner = torch.full((len(got.uv),), -1)
    owner[got.faces_uv.reshape(-1)] = mesh.faces.reshape(-1)
    assert torch.equal(owner[got.faces_uv], mesh.faces)
    # without overlap the covered part of the texture is the sum of all faces
    covered = (raster_uv(got, 1024).face_id > 0).float().mean()
    torch.testing.assert_close(covered.double(), uv_area(got).sum(), atol=2e-3, rtol=0)
    assert covered > 0.4
    # faces with an area in space have one in the texture
    assert (uv_area(got) > 0).float().mean() > 0.99


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_charts_keep_their_distance(padding):
    got = unwrap(bumpy(), resolution=256, padding=padding)
    image = raster_uv(got, 256).face_id[0].long()
    image = torch.where(image > 0, charts(got)[(image - 1).clamp_min(0)] + 1, 0)
    assert len(image.unique()) > 2
    for dy in range(padding + 1):
        for dx in range(padding + 1):
            a, b = image[: 256 - dy, : 256 - dx], image[dy:, dx:]
            assert not ((a > 0) & (b > 0) & (a != b)).any()


def test_layout_is_repeatable_and_does_not_depend_on_scale():
    mesh = bumpy(16)
    got = unwrap(mesh, resolution=256)
    assert torch.equal(unwrap(mesh, resolution=256).uv, got.uv)
    tiny = unwrap(Mesh(mesh.vertices * 1e-4, mesh.faces), resolution=256)
    assert (uv_area(tiny) > 0).float().mean() > 0.99


def test_awkward_meshes():
    quad = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    flat = torch.tensor([[0, 1, 2], [0, 2, 3]])
    cases = [
        Mesh(quad, flat),
        Mesh(quad, torch.cat([flat, flat, flat.flip(1)])),  # doubled faces
        Mesh(quad, torch.cat([flat, torch.tensor([[0, 0, 1], [2, 2, 2]])])),  # without area
        Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])),  # a point
    ]
    for mesh in cases:
        got = unwrap(mesh, resolution=64)
        assert got.faces_uv.shape == mesh.faces.shape
        assert torch.isfinite(got.uv).all() and got.uv.min() >= 0 and got.uv.max() <= 1
    with pytest.raises(ValueError, match="without faces"):
        unwrap(Mesh(quad, flat[:0]))
    with pytest.raises(ValueError, match="finite"):
        unwrap(Mesh(quad / 0, flat))


def test_grid_stands_in_when_xatlas_fails(monkeypatch, caplog):
    class Broken:
        def add_mesh(self, *_):
            raise RuntimeError("no such luck")

    import xatlas

    monkeypatch.setattr(sys.modules["xatlas"], "Atlas", Broken)
    assert xatlas.Atlas is Broken
    mesh = bumpy(12)
    got = unwrap(mesh, resolution=512)
    assert "no such luck" in caplog.text
    assert got.uv.min() >= 0 and got.uv.max() <= 1
    covered = (raster_uv(got, 1024).face_id > 0).float().mean()
    torch.testing.assert_close(covered.double(), uv_area(got).sum(), atol=1e-2, rtol=0)
    assert (uv_area(got) > 0).all()


@pytest.mark.parametrize("count, resolution", [(1, None), (2, 32), (7, None), (20, 47)])
def test_grid_shows_linear_colours_exactly(count, resolution):
    """Looked up anywhere in a face, the texture is the linear function of its corners; neighbours do not bleed in."""
    g = generator(count, "corners")
    colours = torch.rand(count, 3, 3, generator=g) * 0.3 + 0.35  # so that the extension stays in [0, 1]
    grid = face_grid(count, resolution)
    texture = paint_corners(colours, grid)
    assert texture.shape == (grid.resolution, grid.resolution, 3)
    weights = torch.distributions.Dirichlet(torch.full((3,), 0.5)).sample((count, 40))
    points = torch.einsum("fsk,fkc->fsc", weights, grid.uv[grid.faces_uv])
    got = sample(texture, points[None])[0]
    torch.testing.assert_close(got, torch.einsum("fsk,fkc->fsc", weights, colours), atol=2e-6, rtol=0)


def test_grid_that_is_too_small():
    assert face_grid(2 * 16**2, 64).cell == 4
    with pytest.raises(ValueError, match="at least 68"):
        face_grid(2 * 16**2 + 1, 64)


def test_positions_can_be_painted_into_the_texture():
    """What the stages do with a layout: rasterise in texture space, store positions, look them up again."""
    mesh = bumpy()
    got = unwrap(mesh, resolution=512)
    fragments = raster_uv(got, 512)
    positions = interpolate(mesh.vertices, fragments, mesh.faces)
    middle = got.uv[got.faces_uv].mean(1)
    texel = (middle * 512).long().clamp(0, 511)
    hit = fragments.face_id[0, texel[:, 1], texel[:, 0]].long() - 1
    own = hit == torch.arange(len(hit))
    assert own.float().mean() > 0.6
    found = positions[0, texel[:, 1], texel[:, 0]]
    edge = (mesh.vertices[mesh.faces[:, 0]] - mesh.vertices[mesh.faces[:, 1]]).norm(dim=1).max()
    assert ((found - mesh.vertices[mesh.faces].mean(1)).norm(dim=1)[own] < edge).all()


def test_pieces_are_cells_of_about_the_asked_size_and_cover_every_face_once():
    mesh = bumpy(48)
    unit = (mesh.vertices - mesh.vertices.amin(0)) / (mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()
    pieces = _pieces(unit.numpy(), mesh.faces.numpy(), 400)
    assert np.array_equal(np.sort(np.concatenate(pieces)), np.arange(len(mesh.faces)))
    assert 200 < len(mesh.faces) / len(pieces) < 800
    assert len(_pieces(unit.numpy(), mesh.faces.numpy(), None)) == 1


def test_the_same_mesh_is_laid_out_the_same():
    first, second = unwrap(bumpy(), piece_faces=200), unwrap(bumpy(), piece_faces=200)
    assert torch.equal(first.uv, second.uv) and torch.equal(first.faces_uv, second.faces_uv)
