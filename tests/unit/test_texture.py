"""Texture look-up against torch's grid_sample, against a plain loop, and by its gradients; and rendered textures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dg.core.camera import orbit
from dg.core.rng import generator
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.mips import mip_level, mip_levels
from dg.meshraster.render import render_colours, render_mesh
from dg.meshraster.texture import sample, sample_torch
from dg.types import Mesh

SIZES = [(8, 8), (5, 7), (1, 1), (1, 6), (13, 2)]
RASTER = CpuMeshRasterizer()


def inputs(size, seed=0, channels=3, dtype=torch.float64):
    g = generator(seed, "texture")
    texture = torch.rand(*size, channels, generator=g, dtype=dtype)
    uv = torch.rand(2, 6, 5, 2, generator=g, dtype=dtype) * 1.4 - 0.2  # some beyond the border
    uv_dxy = (torch.rand(2, 6, 5, 4, generator=g, dtype=dtype) - 0.5) * 0.6
    mask = torch.rand(2, 6, 5, generator=g) < 0.7
    return texture, uv, uv_dxy, mask


def loop(texture, uv, uv_dxy):
    """One pixel at a time, straight from the definition."""
    levels, (h, w) = [texture], texture.shape[:2]
    while max(levels[-1].shape[:2]) > 1:
        image = levels[-1].permute(2, 0, 1)[None]
        size = [max(s // 2, 1) for s in image.shape[-2:]]
        levels.append(F.interpolate(image, size, mode="area")[0].permute(1, 2, 0))
    out = torch.zeros(*uv.shape[:-1], texture.shape[-1], dtype=texture.dtype)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in uv.shape[:-1])).tolist():
        p, d = uv[tuple(index)], uv_dxy[tuple(index)]
        jacobian = torch.tensor([[d[0] * w, d[1] * w], [d[2] * h, d[3] * h]], dtype=torch.float64)
        longest = torch.linalg.svdvals(jacobian)[0].item()
        level = min(max(math.log2(max(longest, 1e-9)), 0), len(levels) - 1)
        for k, weight in ((int(level), 1 - level % 1), (int(level) + 1, level % 1)):
            if weight == 0:
                continue
            image = levels[k].permute(2, 0, 1)[None]
            value = F.grid_sample(image, (p * 2 - 1)[None, None, None], padding_mode="border", align_corners=False)
            out[tuple(index)] += weight * value[0, :, 0, 0]
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [sample, sample_torch])
def test_bilinear_equals_grid_sample(size, function):
    texture, uv, _, mask = inputs(size)
    expected = F.grid_sample(
        texture.permute(2, 0, 1)[None].expand(2, -1, -1, -1), uv * 2 - 1, padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 1)
    torch.testing.assert_close(function(texture, uv), expected)
    torch.testing.assert_close(function(texture, uv, mask=mask), expected * mask[..., None])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [sample, sample_torch])
def test_trilinear_equals_the_definition(size, function):
    texture, uv, uv_dxy, mask = inputs(size, 1)
    expected = loop(texture, uv, uv_dxy)
    torch.testing.assert_close(function(texture, uv, uv_dxy), expected)
    torch.testing.assert_close(function(texture, uv, uv_dxy, mask), expected * mask[..., None])


@pytest.mark.parametrize("size", [(5, 7), (1, 3)])
@pytest.mark.parametrize("mip", [False, True])
def test_gradients(size, mip):
    texture, uv, uv_dxy, mask = inputs(size, 2, channels=2)
    uv_dxy = uv_dxy if mip else None
    assert torch.autograd.gradcheck(lambda t: sample(t, uv, uv_dxy, mask), texture.requires_grad_())
    weight = torch.rand(2, 6, 5, 2, generator=generator(0, "weight"), dtype=torch.float64)
    slopes = []
    for function in (sample, sample_torch):
        (slope,) = torch.autograd.grad((function(texture, uv, uv_dxy, mask) * weight).sum(), texture)
        slopes.append(slope)
    torch.testing.assert_close(*slopes)


def test_gradients_do_not_depend_on_threads():
    g = generator(0, "threads")
    texture = torch.rand(64, 64, 3, generator=g).requires_grad_()
    uv, uv_dxy = torch.rand(1, 300, 300, 2, generator=g), torch.rand(1, 300, 300, 4, generator=g) * 0.1
    weight = torch.rand(1, 300, 300, 3, generator=g)
    threads, slopes = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            slopes += torch.autograd.grad((sample(texture, uv, uv_dxy) * weight).sum(), texture)
    finally:
        torch.set_num_threads(threads)
    # the mip pyramid itself is torch's; its own sums are per texel
    assert torch.equal(slopes[0], slopes[1]) and torch.equal(slopes[0], slopes[2])


def test_level_of_a_known_scale():
    """4 texels per pixel along the longer axis is level 2, also for a rotated footprint; magnified is level 0."""
    cases = [
        ([4 / 32, 0, 0, 1 / 64], 2.0),
        ([0.1 / 32, 0, 0, 0.1 / 64], 0.0),
        ([1e6, 0, 0, 1e6], 6.0),
        ([0.0] * 4, 0.0),
    ]
    c, s = math.cos(0.7), math.sin(0.7)
    cases.append(([4 * c / 32, -s / 32, 4 * s / 64, c / 64], 2.0))  # (4, 1) turned by 0.7
    for slopes, level in cases:
        got = mip_level(torch.tensor([slopes]), (64, 32), 7)
        torch.testing.assert_close(got, torch.tensor([level], dtype=torch.float64), atol=1e-5, rtol=0)


def test_levels_keep_the_mean_and_halve():
    texture = torch.rand(16, 8, 3, generator=generator(0, "mean"))
    levels = mip_levels(texture)
    assert [tuple(x.shape[:2]) for x in levels] == [(16, 8), (8, 4), (4, 2), (2, 1), (1, 1)]
    for level in levels:
        torch.testing.assert_close(level.mean((0, 1)), texture.mean((0, 1)))
    assert [tuple(x.shape[:2]) for x in mip_levels(torch.rand(5, 7, 3))] == [(5, 7), (2, 3), (1, 1)]


def test_nothing_to_look_up():
    texture = torch.rand(4, 4, 3, requires_grad=True)
    out = sample(texture, torch.rand(1, 2, 2, 2), torch.rand(1, 2, 2, 4), torch.zeros(1, 2, 2, dtype=torch.bool))
    out.sum().backward()
    assert (out == 0).all() and (texture.grad == 0).all()


def quad(texture: torch.Tensor | None) -> Mesh:
    """A unit square in the plane z = 0 that faces +z; the texture's row 0 is its upper edge."""
    vertices = torch.tensor([[-0.5, 0.5, 0], [-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Mesh(vertices, faces, torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]]), faces, texture)


def test_render_of_a_textured_square():
    texture = torch.zeros(2, 2, 3)
    texture[0, 0] = torch.tensor([1.0, 0, 0])  # red at the upper left
    texture[1, 1] = torch.tensor([0.0, 0, 1])
    cameras = orbit([0.0, 0.0], [0.0, 180.0], 2.0, height=64)
    got = render_mesh(quad(texture), cameras, RASTER, torch.tensor([[1.0, 1, 1], [0.0, 1, 0]]))
    # side 64 px * 2.189 / 2 / 2 = 35 px: from pixel 14.5 to 49.5
    assert (got.alpha[0, 32, :, 0].nonzero()[[0, -1], 0] - torch.tensor([14, 49])).abs().max() <= 1
    torch.testing.assert_close(got.rgb[0, 16, 16], torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(got.rgb[0, 47, 47], torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(got.rgb[1, 16, 47], torch.tensor([1.0, 0, 0]))  # from behind it is mirrored
    torch.testing.assert_close(got.rgb[:, 2, 2], torch.tensor([[1.0, 1, 1], [0.0, 1, 0]]))
    inside = got.alpha[..., 0] > 0
    torch.testing.assert_close(got.depth[inside], torch.full_like(got.depth[inside], 2.0))
    assert (got.depth[~inside] == 0).all() and (got.normal[~inside] == 0).all()
    torch.testing.assert_close(got.normal[inside], torch.tensor([0.0, 0, 1]).expand(int(inside.sum()), 3))
    torch.testing.assert_close(got.viewcos[0, 32, 32], torch.tensor([1.0]))
    torch.testing.assert_close(got.viewcos[1, 32, 32], torch.tensor([-1.0]))


def test_viewcos_is_the_camera_space_z_of_the_normal():
    cameras = orbit(-30.0, 50.0, 2.0, height=32)
    got = render_mesh(quad(None), cameras, RASTER, torch.zeros(3))
    expected = math.cos(math.radians(30)) * math.cos(math.radians(50))
    torch.testing.assert_close(got.viewcos[0, 16, 16, 0], torch.tensor(expected))
    torch.testing.assert_close(got.rgb[0, 16, 16], torch.full((3,), 0.5))  # grey without a texture


def test_supersampling_is_the_mean_of_the_composited_picture():
    texture = torch.rand(8, 8, 3, generator=generator(0, "ssaa"))
    cameras = orbit([10.0, -20.0], [30.0, 70.0], 2.0, height=20)
    background = torch.tensor([0.2, 0.4, 0.9])
    large = render_mesh(quad(texture), cameras.resized(60, 60), RASTER, background)
    small = render_mesh(quad(texture), cameras, RASTER, background, ssaa=3)
    mean = lambda x: F.avg_pool2d(x.permute(0, 3, 1, 2), 3).permute(0, 2, 3, 1)  # noqa: E731
    torch.testing.assert_close(small.rgb, mean(large.rgb))
    torch.testing.assert_close(small.alpha, mean(large.alpha))
    assert ((small.alpha > 0) & (small.alpha < 1)).any()
    edge = (small.alpha[..., 0] > 0) & (small.alpha[..., 0] < 1)
    assert small.depth[edge].min() > 1  # means over covered samples only
    torch.testing.assert_close(small.normal[edge].norm(dim=-1), torch.ones(int(edge.sum())))
    assert small.fragments.face_id.shape == (2, 60, 60)
    for mips in (None, mip_levels(texture)):
        colours, _ = render_colours(quad(texture), cameras, RASTER, background, ssaa=3, mips=mips)
        assert torch.equal(colours, small.rgb)


@pytest.mark.parametrize("ssaa", [1, 2])
def test_render_gradient_reaches_the_texture_and_only_what_is_seen(ssaa):
    texture = torch.full((16, 16, 3), 0.5, requires_grad=True)
    cameras = orbit(0.0, 0.0, 2.0, height=40)
    got = render_mesh(quad(None), cameras, RASTER, torch.ones(3), ssaa=ssaa, texture=texture)
    got.rgb.sum().backward()
    # each covered pixel distributes a weight of one
    torch.testing.assert_close(texture.grad.sum() / 3, got.alpha.sum(), rtol=1e-4, atol=0)
    away = orbit(0.0, 0.0, 2.0, height=40, target=(50.0, 0.0, 0.0))
    (slope,) = torch.autograd.grad(
        render_mesh(quad(None), away, RASTER, torch.ones(3), texture=texture).rgb.sum(), texture
    )
    assert (slope == 0).all()


def test_render_refuses_what_it_cannot_draw():
    mesh = Mesh(quad(None).vertices, quad(None).faces)
    with pytest.raises(ValueError, match="uv"):
        render_mesh(mesh, orbit(0.0, 0.0, height=8), RASTER, torch.ones(3), texture=torch.rand(4, 4, 3))
    with pytest.raises(ValueError, match="ssaa"):
        render_mesh(mesh, orbit(0.0, 0.0, height=8), RASTER, torch.ones(3), ssaa=0)
