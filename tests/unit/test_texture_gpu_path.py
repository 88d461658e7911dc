"""What texture look-up and mesh rendering do on a GPU, run on a CPU against what they do there."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import pytest
import torch

from dg.core.camera import orbit
from dg.core.rng import generator
from dg.meshraster import render as rendering
from dg.meshraster import texture_library
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.mips import mip_levels
from dg.meshraster.render import render_colours, render_mesh
from dg.meshraster.texture import sample, sample_gather, sample_torch
from dg.types import Mesh
from tests.sync_count import Reads

SIZES = [(8, 8), (5, 7), (1, 1), (1, 6), (13, 2), (32, 16)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("footprints", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_gathering_equals_the_definition(size, footprints, masked):
    g = generator(0, "texture")
    texture = torch.rand(*size, 3, generator=g, dtype=torch.float64)
    uv = torch.rand(2, 6, 5, 2, generator=g, dtype=torch.float64) * 1.4 - 0.2
    uv_dxy = (torch.rand(2, 6, 5, 4, generator=g, dtype=torch.float64) - 0.5) * 0.9 if footprints else None
    mask = torch.rand(2, 6, 5, generator=g) < 0.7 if masked else None
    pull, results = torch.randn(2, 6, 5, 3, generator=g, dtype=torch.float64), []
    for function in (sample_gather, sample_torch):
        leaf = texture.clone().requires_grad_()
        out = function(leaf, uv, uv_dxy, mask)
        (out * pull).sum().backward()
        results.append((out.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-9, rtol=1e-7)
    levels = mip_levels(texture)
    assert torch.equal(sample_gather(texture, uv, uv_dxy, mask, levels), results[0][0])


def test_nothing_is_read_on_the_way():
    g = generator(0, "texture")
    texture = torch.rand(16, 16, 3, generator=g)
    uv, uv_dxy = torch.rand(1, 6, 5, 2, generator=g), torch.rand(1, 6, 5, 4, generator=g)
    with Reads() as reads:
        sample_gather(texture, uv, uv_dxy)
    assert not reads.found
    with Reads() as reads:
        sample_torch(texture, uv, uv_dxy)
    assert reads.found, "the counter counts"


@pytest.fixture
def every_pixel(monkeypatch):
    """Renders as on a GPU."""

    def looked_at(fragments, faces):
        face_id = fragments.face_id.reshape(-1)
        return torch.arange(len(face_id)), (face_id > 0)[:, None]

    def switch():
        monkeypatch.setattr(rendering, "looked_at", looked_at)
        monkeypatch.setattr(rendering, "sample", sample_gather)

    return switch


@pytest.mark.parametrize("ssaa", [1, 3])
def test_rendering_every_pixel_equals_rendering_the_covered_ones(every_pixel, ssaa):
    g = generator(0, "mesh")
    corners = torch.rand(8, 3, generator=g) - 0.5
    faces = torch.randint(0, 8, (10, 3), generator=g)
    mesh = Mesh(corners, faces, torch.rand(8, 2, generator=g), faces, torch.rand(16, 16, 3, generator=g))
    cameras, behind = orbit([0, -20], [10, 130], 2.0, height=9, width=12), torch.tensor([0.2, 0.7, 1.0])

    def both():
        leaf = mesh.texture.clone().requires_grad_()
        seen = render_mesh(mesh, cameras, CpuMeshRasterizer(), behind, ssaa=ssaa, texture=leaf)
        rgb, alpha = render_colours(mesh, cameras, CpuMeshRasterizer(), behind, ssaa=ssaa, texture=leaf)
        (seen.rgb.square().sum() + rgb.square().sum()).backward()
        pictures = {f.name: getattr(seen, f.name) for f in dataclasses.fields(seen) if f.name != "fragments"}
        return pictures | {"colours": rgb, "alphas": alpha, "gradient": leaf.grad}

    expected = both()
    every_pixel()
    for name, value in both().items():
        torch.testing.assert_close(value, expected[name], atol=2e-6, rtol=1e-5, msg=name)
    assert 0 < expected["alpha"].mean() < 0.9


class Library:
    """nvdiffrast's `texture`, as far as it is used: one texture, a picture of coordinates, mip levels handed in."""

    def texture(self, tex, uv, uv_da=None, mip=None, *, filter_mode, boundary_mode):
        assert boundary_mode == "clamp"
        assert all(x is None or x.is_contiguous() for x in (tex, uv, uv_da, *(mip or ())))
        assert (filter_mode == "linear-mipmap-linear") == bool(mip) == (uv_da is not None)
        assert len(tex) == len(uv) == 1
        return sample_gather(tex[0], uv, uv_da, None, [tex[0], *(level[0] for level in mip or ())])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(2, 8, 16), (1, 5, 8), (1, 1, 13)])
@pytest.mark.parametrize("footprints", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_library_is_asked_for_the_definition(monkeypatch, size, shape, footprints, masked):
    monkeypatch.setattr(texture_library, "library", Library)
    monkeypatch.setattr(texture_library, "usable", lambda texture: True)
    _equals_the_definition(size, shape, footprints, masked, torch.device("cpu"), torch.float64, 1e-9)


def test_a_mesh_without_faces_is_no_question_to_the_library(monkeypatch):
    monkeypatch.setattr(texture_library, "library", lambda: None)
    monkeypatch.setattr(texture_library, "usable", lambda texture: True)
    texture = torch.rand(4, 4, 3, dtype=torch.float64, requires_grad=True)
    out = sample(texture, torch.rand(1, 1, 0, 2), torch.rand(1, 1, 0, 4))
    out.sum().backward()
    assert out.shape == (1, 1, 0, 3) and not texture.grad.any()


@pytest.mark.parametrize("error", [None, ImportError, RuntimeError, OSError])
def test_a_library_that_does_not_work_is_not_used(monkeypatch, error):
    def texture(texture, place, filter_mode):
        if error is not None:
            raise error("no compiler")

    installed = SimpleNamespace(texture=texture)
    monkeypatch.setitem(sys.modules, "nvdiffrast", SimpleNamespace(torch=installed))
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", installed)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: zeros(*shape))
    assert texture_library.library.__wrapped__() is (installed if error is None else None)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [*SIZES, (256, 256)])
@pytest.mark.parametrize("shape", [(2, 8, 16), (1, 5, 8), (1, 1, 13), (1, 256, 256)])
@pytest.mark.parametrize("footprints", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_nvdiffrast_looks_up_as_defined(size, shape, footprints, masked):
    pytest.importorskip("nvdiffrast.torch")
    _equals_the_definition(size, shape, footprints, masked, torch.device("cuda"), torch.float32, 2e-4)


def _equals_the_definition(size, shape, footprints, masked, device, dtype, tolerance):
    g = generator(0, "texture")
    texture = torch.rand(*size, 3, generator=g, dtype=torch.float64)
    uv = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * 1.4 - 0.2
    uv_dxy = (torch.rand(*shape, 4, generator=g, dtype=torch.float64) - 0.5) * 0.2 if footprints else None
    mask = torch.rand(*shape, generator=g) < 0.7 if masked else None
    pull, results = torch.randn(*shape, 3, generator=g, dtype=torch.float64), []
    for function, place, kind in ((sample, device, dtype), (sample_torch, torch.device("cpu"), torch.float64)):
        there = [None if x is None else x.to(place, kind) for x in (uv, uv_dxy)]
        leaf = texture.to(place, kind).requires_grad_()
        out = function(leaf, *there, None if mask is None else mask.to(place))
        (out * pull.to(place, kind)).sum().backward()
        results.append([x.detach().cpu().double() for x in (out, leaf.grad)])
    torch.testing.assert_close(results[0][0], results[1][0], atol=tolerance, rtol=0)
    scale = float(results[1][1].abs().max())
    torch.testing.assert_close(results[0][1], results[1][1], atol=tolerance * scale, rtol=0)
