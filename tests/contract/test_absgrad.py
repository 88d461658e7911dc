"""`absgrad` of every splat rasteriser against the gradient of one pixel at a time."""

from __future__ import annotations

import pytest
import torch

from dg.core.camera import orbit
from dg.core.rng import generator
from dg.raster.dense import DenseRasterizer
from dg.raster.gsplat import GsplatRasterizer
from dg.raster.numba_cpu import NumbaRasterizer
from dg.types import Gaussians
from tests.contract.test_raster import scene

KINDS = [
    pytest.param(DenseRasterizer, "cpu"),
    pytest.param(NumbaRasterizer, "cpu"),
    pytest.param(GsplatRasterizer, "cuda", marks=pytest.mark.gpu),
]


def pictures(device: str, count: int = 12):
    """(Gaussians that want gradients, two views of 9 x 7 pixels, weights of rgb, alpha and depth in a loss)."""
    gaussians = Gaussians(
        *(x.to(device).requires_grad_() for x in vars(scene(count, spread=0.2, log_scale=-1.5)).values())
    )
    cameras = orbit([0, -20], [10, 140], 2, height=7, width=9).to(device)
    draw = generator(3, "weights")
    weights = [torch.randn(2, 7, 9, c, generator=draw).to(device) for c in (3, 1, 1)]
    return gaussians, cameras, weights


def loss(render, weights, pixel=None):
    terms = [w * x for w, x in zip(weights, (render.rgb, render.alpha, render.depth), strict=True)]
    if pixel is not None:
        terms = [x[:, pixel[0], pixel[1]] for x in terms]
    return sum(x.sum() for x in terms)


def one_pixel_at_a_time() -> torch.Tensor:
    gaussians, cameras, weights = pictures("cpu")
    total = torch.zeros(2, 12, 2)
    for y in range(7):
        for x in range(9):
            render = DenseRasterizer()(gaussians, cameras, torch.zeros(3))
            loss(render, weights, (y, x)).backward()
            total += render.means_px.grad.abs()
    return total


@pytest.mark.parametrize(("kind", "device"), KINDS)
def test_it_is_the_sum_of_every_pixels_absolute_gradient(kind, device: str) -> None:
    gaussians, cameras, weights = pictures(device)
    render = kind()(gaussians, cameras, torch.zeros(3, device=device), absgrad=True)
    loss(render, weights).backward()
    expected = one_pixel_at_a_time().to(device)
    error = (render.means_px.absgrad - expected).norm() / expected.norm()
    assert error < 1e-4 and (expected > 0).float().mean() > 0.5
    assert (render.means_px.absgrad >= render.means_px.grad.abs() * (1 - 1e-4) - 1e-4).all()
    assert (render.means_px.absgrad.sum() > 1.2 * render.means_px.grad.abs().sum()).item()  # signs do cancel here


@pytest.mark.parametrize("kind", [DenseRasterizer, NumbaRasterizer])
def test_asking_for_it_changes_nothing_else(kind) -> None:
    results = []
    for absgrad in (False, True):
        gaussians, cameras, weights = pictures("cpu")
        render = kind()(gaussians, cameras, torch.zeros(3), absgrad=absgrad)
        loss(render, weights).backward()
        results.append([render.rgb, render.means_px.grad, *(x.grad for x in vars(gaussians).values())])
        assert hasattr(render.means_px, "absgrad") == absgrad
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
