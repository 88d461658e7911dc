"""Pixels into textures: the release's scattering against its examples, the gathering against known colours."""

import numpy as np
import pytest
import torch

from dg.core.backproject import BakeOptions, backproject, bake_views, straight_colours
from dg.core.camera import orbit, spherical
from dg.core.density import Grid
from dg.core.dilate import dilate, fill_from_surface
from dg.core.gridput import grid_put_linear, grid_put_mip
from dg.core.rng import generator
from dg.core.surface import marching_cubes
from dg.core.uv import unwrap
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_mesh
from dg.types import Mesh

RASTER = CpuMeshRasterizer()
WHITE = torch.ones(3)

# --- scattering


def test_grid_put_examples():
    coords = torch.tensor([[0.25, -0.5], [1.0, 1.0]])
    total, count = grid_put_linear(coords, torch.tensor([[2.0], [3.0]]), (5, 5))
    expected, weight = torch.zeros(5, 5), torch.zeros(5, 5)
    expected[2, 1] = expected[3, 1] = 1
    weight[2, 1] = weight[3, 1] = 0.5
    expected[4, 4], weight[4, 4] = 3, 1
    torch.testing.assert_close(total[..., 0], expected)
    torch.testing.assert_close(count, weight)


def test_grid_put_loses_nothing_and_averages_linear_functions_exactly():
    coords = torch.rand(500, 2, generator=generator(0, "coords")) * 2 - 1
    values = torch.rand(500, 3, generator=generator(1, "values"))
    total, count = grid_put_linear(coords, values, (7, 11))
    torch.testing.assert_close(total.sum((0, 1)), values.sum(0), rtol=1e-4, atol=1e-4)
    assert count.sum().item() == pytest.approx(500, rel=1e-5)
    row = torch.linspace(-1, 1, 7)[:, None] * count  # first moments: bilinear weights reproduce them
    torch.testing.assert_close(row.sum(), coords[:, 0].sum(), rtol=1e-3, atol=1e-3)


def test_mip_fills_a_sparse_checkerboard():
    """Every other cell of 32 x 32 gets its value; the grid of half the size reaches the others."""
    rows, columns = torch.meshgrid(torch.arange(0, 32, 2), torch.arange(0, 32, 2), indexing="ij")
    coords = torch.stack([rows, columns], -1).reshape(-1, 2) / 31 * 2 - 1
    values = (coords[:, :1] + 2) / 4
    total, count = grid_put_linear(coords, values, (32, 32))
    assert (count == 0).float().mean() > 0.7
    total, count = grid_put_mip(coords, values, (32, 32), min_resolution=8)
    assert (count > 0).all()
    mean = total[..., 0] / count
    expected = (torch.linspace(-1, 1, 32)[:, None] + 2) / 4
    assert (mean - expected).abs().max() < 0.05
    direct = grid_put_linear(coords, values, (32, 32))
    hit = direct[1] > 0
    assert torch.equal(total[hit], direct[0][hit])  # coarse grids only reach cells that are still empty
    # levels 32 and 16, not 8: with min_resolution 32 nothing is put at all, with 31 only the full grid
    assert grid_put_mip(coords, values, (32, 32), min_resolution=32)[1].sum() == 0
    torch.testing.assert_close(grid_put_mip(coords, values, (32, 32), min_resolution=31)[1], direct[1])


# --- filling


def test_dilation_reaches_so_far_and_copies_the_nearest():
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[18:22, 18:22] = True
    texture = torch.zeros(40, 40, 3)
    texture[18:22, 18:20, 0], texture[18:22, 20:22, 1] = 1, 1
    out = dilate(texture, mask, iterations=5, rest="keep")
    reached = out.sum(-1) > 0
    assert reached[20, 13:27].all() and not reached[20, 12] and not reached[20, 27]
    assert not reached[14, 14]  # four-connected: five steps do not lead around the corner
    assert torch.equal(out[mask], texture[mask])
    assert (out[:, :20, 1] == 0).all() and (out[:, 20:, 0] == 0).all()
    assert (dilate(texture, mask, iterations=5).sum(-1) == 1).all()
    mean = dilate(texture, mask, iterations=5, rest="mean")
    torch.testing.assert_close(mean[0, 0], torch.tensor([0.5, 0.5, 0]))


def test_dilation_without_anything_known():
    empty = torch.zeros(8, 8, dtype=torch.bool)
    assert (dilate(torch.zeros(8, 8, 3), empty) == 0.5).all()
    assert (dilate(torch.zeros(8, 8, 3), empty, rest="keep") == 0).all()
    with pytest.raises(ValueError, match="rest"):
        dilate(torch.zeros(8, 8, 3), empty, rest="all")


def test_unseen_texels_take_what_is_near_in_space():
    """The texel next door in the texture belongs to the far end of the object."""
    texture = torch.zeros(1, 3, 3)
    texture[0, 0, 0], texture[0, 2, 1] = 1, 1
    points = torch.tensor([[[0.0, 0, 0], [5.0, 0, 0], [5.1, 0, 0]]])
    known = torch.tensor([[True, False, True]])
    out = fill_from_surface(texture, known, torch.ones(1, 3, dtype=torch.bool), points, neighbours=1)
    torch.testing.assert_close(out[0, 1], torch.tensor([0.0, 1, 0]))
    assert torch.equal(out[known], texture[known])
    assert torch.equal(fill_from_surface(texture, known & False, known, points), texture)


# --- views


def test_views_are_the_releases_in_its_order():
    cameras = bake_views(2.0, 49.1, 64)
    elevation, azimuth, radius = spherical(cameras)
    ring = [0, 45, -45, 90, -90, 135, -135, 180]
    assert len(cameras) == 26 and cameras.width == cameras.height == 64
    assert elevation.tolist() == pytest.approx([0] * 8 + [-45] * 8 + [45] * 8 + [-89.9, 89.9], abs=0.02)
    assert np.abs((azimuth[:24].numpy() - np.array(ring * 3) + 180) % 360 - 180).max() < 0.01
    assert radius.tolist() == pytest.approx([2.0] * 26, abs=1e-5)


def test_straight_colours_undo_compositing():
    colour = torch.rand(1, 4, 4, 3, generator=generator(0, "c"))
    alpha = torch.full((1, 4, 4), 0.6)
    torch.testing.assert_close(straight_colours(colour * 0.6 + 0.4, alpha), colour, rtol=1e-5, atol=1e-6)
    assert straight_colours(torch.ones(1, 1, 1, 3), torch.zeros(1, 1, 1)).isfinite().all()


# --- back-projection


def cube(half=0.35, cuts=6) -> Mesh:
    """A finely cut cube with its uv: six sides in a 3 x 2 layout."""
    vertices, faces, uv = [], [], []
    axes = torch.eye(3)
    for side in range(6):
        n = axes[side // 2] * (1 if side % 2 else -1)
        u = axes[(side // 2 + 1) % 3]
        v = torch.linalg.cross(n, u)
        base = sum(map(len, vertices))
        t = torch.linspace(-1, 1, cuts + 1)
        grid_v, grid_u = torch.meshgrid(t, t, indexing="ij")
        vertices.append((half * (n + grid_u[..., None] * u + grid_v[..., None] * v)).reshape(-1, 3))
        place = torch.tensor([side % 3, side // 3]) / torch.tensor([3.0, 2.0])
        uv.append(
            (torch.stack([grid_u / 3, grid_v / 2], -1) * 0.45 + place + torch.tensor([1 / 6, 1 / 4])).reshape(-1, 2)
        )
        for i in range(cuts):
            for j in range(cuts):
                a = base + i * (cuts + 1) + j
                faces += [[a, a + 1, a + cuts + 2], [a, a + cuts + 2, a + cuts + 1]]
    index = torch.tensor(faces)
    return Mesh(torch.cat(vertices), index, torch.cat(uv), index.clone())


SIDE_COLOURS = torch.tensor(
    [[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.9], [0.8, 0.8, 0.1], [0.7, 0.1, 0.8], [0.1, 0.7, 0.8]]
)


def painted(mesh: Mesh, size=96) -> tuple[Mesh, torch.Tensor]:
    """The cube with one colour per side, and which texels belong to which side (-1: none)."""
    side = torch.full((size, size), -1)
    texture = torch.ones(size, size, 3)
    for s in range(6):
        x0, y0 = s % 3 * size // 3, s // 3 * size // 2
        texture[y0 : y0 + size // 2, x0 : x0 + size // 3] = SIDE_COLOURS[s]
        w, h = round(size / 3 * 0.45 * 0.9), round(size / 2 * 0.45 * 0.9)
        cx, cy = x0 + size // 6, y0 + size // 4
        side[cy - h : cy + h, cx - w : cx + w] = s
    return Mesh(mesh.vertices, mesh.faces, mesh.uv, mesh.faces_uv, texture), side


@pytest.mark.parametrize("method", ["gather", "splat"])
def test_each_side_of_a_cube_gets_its_colour(method):
    mesh, side = painted(cube())
    views = bake_views(2.0, 49.1, 160)[[0, 3, 4, 7, 9, 14, 17, 22, 24, 25]]
    truth = render_mesh(mesh, views, RASTER, WHITE)
    bare = Mesh(mesh.vertices, mesh.faces, mesh.uv, mesh.faces_uv)
    options = BakeOptions(method=method)
    baked = backproject(bare, truth.rgb, truth.alpha[..., 0], views, RASTER, size=96, options=options)
    inside = side >= 0
    error = (baked.texture - SIDE_COLOURS[side.clamp_min(0)]).abs().amax(-1)[inside]
    assert error.quantile(0.95) < 0.02 and error.max() < (0.1 if method == "gather" else 0.5)
    assert baked.texture.shape == (96, 96, 3)
    assert (baked.surface[inside] == 1).all()
    if method == "gather":
        assert baked.share_seen > 0.99
        again = backproject(bare, truth.rgb, truth.alpha[..., 0], views, RASTER, size=96, options=options)
        assert torch.equal(baked.texture, again.texture)


def blob() -> Mesh:
    """A ball with two horns: overhangs, grazing views, charts from the unwrapper."""
    t = torch.linspace(-0.6, 0.6, 44)
    x, y, z = torch.meshgrid(t, t, t, indexing="ij")
    values = 0.35 - (x**2 + y**2 + z**2).sqrt()
    for s in (-1, 1):
        values = torch.maximum(values, 0.11 - ((x - 0.3 * s) ** 2 + (y - 0.32) ** 2 + z**2).sqrt())
    return unwrap(marching_cubes(Grid(values, torch.full((3,), -0.6), 1.2 / 43), 0.0), resolution=256)


def pattern(points: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.35 * torch.sin(points * torch.tensor([9.0, 11.0, 7.0]))


@pytest.fixture(scope="module")
def scene():
    """The blob, its pattern in 12 views, and in 6 others."""
    mesh = blob()
    seen = orbit(
        [0] * 6 + [-50] * 3 + [50] * 3, [60 * i for i in range(6)] + [120 * i for i in range(3)] * 2, height=160
    )
    novel = orbit([-20, 10, 30, -35], [30, 100, 200, 280], height=128)

    def look(cameras):
        plain = render_mesh(mesh, cameras, RASTER, WHITE)
        y, x = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
        rays = torch.stack(
            [
                (x - cameras.K[0, 0, 2]) / cameras.K[0, 0, 0],
                (y - cameras.K[0, 1, 2]) / cameras.K[0, 1, 1],
                torch.ones_like(x),
            ],
            -1,
        )
        points = torch.einsum("vij,hwj->vhwi", cameras.c2w[:, :3, :3], rays) * plain.depth
        colours = pattern(points + cameras.position[:, None, None])
        return torch.where(plain.alpha > 0, colours, 1.0), plain.alpha[..., 0]

    return mesh, seen, look(seen), novel, look(novel)


def novel_psnr(scene, texture) -> float:
    mesh, _, _, novel, (rgb, alpha) = scene
    render = render_mesh(mesh, novel, RASTER, WHITE, texture=texture)
    error = (render.rgb - rgb).square()[alpha > 0].mean()
    return float(-10 * error.log10())


def test_gathering_beats_scattering_in_novel_views(scene):
    mesh, seen, (rgb, alpha), _, _ = scene
    psnr = {}
    for method in ("gather", "splat"):
        baked = backproject(mesh, rgb, alpha, seen, RASTER, size=160, options=BakeOptions(method=method))
        psnr[method] = novel_psnr(scene, baked.texture)
    assert psnr["gather"] > 34
    assert psnr["gather"] > psnr["splat"] + 0.3


def test_no_background_bleeds_in(scene):
    """White behind a dark object must not reach the texture, even where the views' edges are half transparent."""
    mesh, seen, (_, alpha), _, _ = scene
    soft = torch.nn.functional.avg_pool2d(alpha[:, None], 5, 1, 2)[:, 0]
    dark = 0.1 * soft[..., None] + 1 - soft[..., None]  # composited on white, not made straight
    texture = backproject(mesh, dark, soft, seen, RASTER, size=256).texture
    assert (texture > 0.2).any(-1).float().mean() < 0.01
    careless = BakeOptions(sharpness=1.0, min_alpha=0.0, erode_px=0, min_viewcos=0.0)
    texture = backproject(mesh, dark, soft, seen, RASTER, size=256, options=careless).texture
    assert (texture > 0.2).any(-1).float().mean() > 0.02


def test_priority_decides_where_views_disagree(scene):
    mesh, seen, (_, alpha), _, _ = scene
    front = torch.where(alpha[:1, ..., None] > 0, torch.tensor([1.0, 0, 0]), 1.0)
    mixed = torch.cat([front, torch.where(alpha[1:, ..., None] > 0, torch.tensor([0.0, 0, 1.0]), 1.0)])
    priority = torch.ones(len(seen))
    plain = backproject(mesh, mixed, alpha, seen, RASTER, size=128, priority=priority).texture
    priority[0] = 100
    first = backproject(mesh, mixed, alpha, seen, RASTER, size=128, priority=priority).texture
    red = lambda t: float((t[..., 0] > 0.8).float().mean())  # noqa: E731
    assert red(first) > 1.5 * red(plain) > 0


def test_what_no_view_sees_is_filled_in(scene):
    mesh, seen, (rgb, alpha), _, _ = scene
    baked = backproject(mesh, rgb[:1], alpha[:1], seen[[0]], RASTER, size=128)
    assert 0.1 < baked.share_seen < 0.6
    # the pattern's range: nothing is left white or black
    assert float(baked.texture.min()) > 0.14 and float(baked.texture.max()) < 0.86
    blind = backproject(mesh, rgb[:1], alpha[:1], orbit(0, 0, 2.0, height=160, target=(9.0, 0, 0)), RASTER, size=64)
    assert blind.share_seen == 0 and (blind.texture == 0.5).all()


def test_mistakes_are_named(scene):
    mesh, seen, (rgb, alpha), _, _ = scene
    with pytest.raises(ValueError, match="unwrap"):
        backproject(Mesh(mesh.vertices, mesh.faces), rgb, alpha, seen, RASTER)
    with pytest.raises(ValueError, match="method"):
        backproject(mesh, rgb, alpha, seen, RASTER, options=BakeOptions(method="paint"))
