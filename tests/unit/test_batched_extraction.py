"""What the mesh stage does in torch on an accelerator equals the compiled loops of a CPU (here both run on the CPU)."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from dg.core import carve, cavities, dilate, gather, levelchoice
from dg.core.backproject import BakeOptions, backproject, bake_views
from dg.core.camera import orbit
from dg.core.density import Grid
from dg.core.dilate_torch import nearest_known
from dg.core.rng import generator
from dg.meshraster.render import render_mesh
from tests.unit.test_backproject import RASTER, blob
from tests.unit.test_surface import VIEWS, disc_views

LOW = orbit([0, -30, 40], [0, 100, 220], height=40)


def lumps(n: int = 33, seed: int = 0) -> Grid:
    """Smooth noise: solids, cavities and narrow ways between them."""
    noise = torch.randn(n, n, n, generator=generator(seed, "lumps")).numpy()
    values = torch.from_numpy(ndimage.gaussian_filter(noise, 2.0)) * 20
    return Grid(values.float(), torch.tensor([-0.5, -0.45, -0.55]), 1.0 / (n - 1))


@pytest.fixture
def batched(monkeypatch):
    def switch() -> None:
        for module in (carve, cavities, dilate, gather, levelchoice):
            monkeypatch.setattr(module, "batched", lambda device: True)

    return switch


@pytest.mark.parametrize(("leak", "level"), [(0, -1.5), (1, -0.8), (2, -1.0), (3, -1.0)])
def test_the_same_points_are_outside(batched, leak, level):
    grids = [lumps(seed=seed) for seed in range(3)]
    expected = [cavities.outside(grid.values, level, leak) for grid in grids]
    batched()
    got = [cavities.outside(grid.values, level, leak) for grid in grids]
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    hidden = sum(int(((grid.values < level) & ~out).sum()) for grid, out in zip(grids, got, strict=True))
    assert hidden > 20  # there is something to disagree about


def test_distances_are_exact():
    sources = torch.rand(19, 23, 11, generator=generator(0, "sources")) > 0.995
    expected = ndimage.distance_transform_edt(~sources.numpy())
    got = cavities.nearest_squared(sources).double().sqrt()
    torch.testing.assert_close(got, torch.from_numpy(expected), rtol=1e-12, atol=0)


def test_distances_in_each_of_many_pictures():
    sources = torch.rand(4, 31, 17, generator=generator(1, "sources")) > 0.98
    sources[2] = False
    got = cavities.nearest_squared(sources, batch_axes=1)
    assert (got[2] >= 3 * 31**2).all()
    for v in (0, 1, 3):
        expected = torch.from_numpy(ndimage.distance_transform_edt(~sources[v].numpy()))
        torch.testing.assert_close(got[v].double().sqrt(), expected, rtol=1e-12, atol=0)


def test_the_same_distances_to_contours(batched):
    alpha = disc_views(0.4, VIEWS)
    alpha[0], alpha[1] = 0.0, 1.0
    expected = carve.silhouette_distance(alpha, 0.4)
    batched()
    got = carve.silhouette_distance(alpha, 0.4)
    assert expected[0].isneginf().all() and expected[1].isposinf().all() and expected[2:].isfinite().all()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_same_maxima_along_rays(batched):
    grid = lumps()
    expected = levelchoice.max_along_rays(grid, LOW)
    batched()
    got = levelchoice.max_along_rays(grid, LOW)
    assert (expected > 0).float().mean() > 0.1 and (expected == 0).any()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_rays_that_miss_the_lattice_or_start_inside(batched):
    inside = orbit([0, 20], [10, 50], 0.2, height=12)
    aside = orbit(0, 0, 2.0, height=12, target=(30.0, 0, 0))
    expected = [levelchoice.max_along_rays(lumps(), views) for views in (inside, aside)]
    batched()
    got = [levelchoice.max_along_rays(lumps(), views) for views in (inside, aside)]
    assert (got[0] > 0).float().mean() > 0.9 and not got[1].any()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("votes", [1, 2, 3])
def test_the_same_hull_and_the_same_votes(batched, votes):
    grid, alpha = lumps(), disc_views(0.4, VIEWS)
    depth = 2.0 + 0.2 * torch.rand(alpha.shape, generator=generator(0, "depth"))
    hull = carve.hull_distance(grid, alpha, VIEWS, votes=votes)
    empty = carve.seen_empty(grid, depth, alpha, VIEWS, margin=0.01)
    batched()
    got = carve.hull_distance(grid, alpha, VIEWS, votes=votes)
    near = hull > -3 * grid.spacing  # further out the compiled loop stops early
    assert near.any() and not near.all()
    torch.testing.assert_close(got[near], hull[near], rtol=1e-5, atol=1e-6)
    assert (got[~near] <= -3 * grid.spacing).all()
    assert torch.equal(carve.seen_empty(grid, depth, alpha, VIEWS, margin=0.01), empty)
    assert empty.max() > 3


def speckled(height: int, width: int, share: float) -> torch.Tensor:
    return torch.rand(height, width, generator=generator(0, "speckles")) < share


@pytest.mark.parametrize("share", [0.002, 0.1, 0.9])
def test_the_nearest_texel_is_nearest(share):
    known = speckled(37, 53, share)
    index = nearest_known(known)
    y, x = torch.meshgrid(torch.arange(37), torch.arange(53), indexing="ij")
    got = ((index // 53 - y) ** 2 + (index % 53 - x) ** 2).double().sqrt()
    expected = torch.from_numpy(ndimage.distance_transform_edt(~known.numpy()))
    assert known.flatten()[index].all()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rest", ["nearest", "mean", "keep"])
def test_the_same_dilation_but_for_ties(batched, rest):
    known = speckled(60, 40, 0.01)
    y, x = torch.meshgrid(torch.arange(60), torch.arange(40), indexing="ij")
    texture = torch.stack([y / 60, x / 40, torch.zeros(60, 40)], -1)  # tells where a colour comes from
    expected = dilate.dilate(texture, known, iterations=7, rest=rest)
    batched()
    got = dilate.dilate(texture, known, iterations=7, rest=rest)
    here = torch.stack([y, x], -1)
    away = [((z[..., :2] * torch.tensor([60.0, 40.0])).round() - here).square().sum(-1) for z in (expected, got)]
    near = torch.from_numpy(ndimage.binary_dilation(known.numpy(), iterations=7)) | (rest == "nearest")
    torch.testing.assert_close(away[0][near], away[1][near])
    torch.testing.assert_close(expected[~near], got[~near])


def test_the_same_texture(batched):
    mesh, views = blob(), bake_views(2.0, 49.1, 96)[[0, 3, 5, 9, 14, 20, 25]]
    truth = render_mesh(
        mesh, views, RASTER, torch.ones(3), texture=torch.rand(64, 64, 3, generator=generator(0, "paint"))
    )
    options = BakeOptions(erode_px=1)
    priority = torch.linspace(1, 3, len(views))
    bake = lambda: backproject(  # noqa: E731
        mesh, truth.rgb, truth.alpha[..., 0] * 0.97, views, RASTER, size=96, options=options, priority=priority
    )
    expected = bake()
    batched()
    got = bake()
    assert torch.equal(got.seen, expected.seen) and torch.equal(got.surface, expected.surface)
    assert 0.5 < expected.share_seen < 1  # some are filled in
    inside = expected.surface > 0
    torch.testing.assert_close(got.texture[inside], expected.texture[inside], rtol=1e-4, atol=1e-5)
    assert (got.texture - expected.texture).abs().mean() < 0.02  # between the charts ties may go either way
