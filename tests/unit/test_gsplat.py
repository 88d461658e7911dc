"""`dg.raster.gsplat` over a stand-in for gsplat that works on the CPU: what it asks for and makes of the answer.

The stand-in follows the documented interface of gsplat 1.5.3: positional order, depth as the last channel, whole-pixel
radii per axis, rubbish where nothing was drawn. The kernels themselves are tested in tests/contract (marked gpu).
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types

import pytest
import torch
from torch import Tensor

from dg.core import camera, rng
from dg.core.gaussians import SH_C0
from dg.core.splat import footprint, project
from dg.raster.dense import DenseRasterizer
from dg.raster.gsplat import GsplatRasterizer
from dg.raster.together import View, render_together
from dg.types import Cameras, Gaussians

FIELDS = ("means", "quats", "scales", "opacities", "sh")


class _Positions(torch.autograd.Function):
    """Like gsplat's projection: an output of its own, rubbish where nothing is drawn, and no gradient from there."""

    @staticmethod
    def forward(ctx, means_px: Tensor, drawn: Tensor) -> Tensor:
        ctx.save_for_backward(drawn)
        return torch.where(drawn[..., None], means_px, math.nan)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (drawn,) = ctx.saved_tensors
        return torch.where(drawn[..., None], grad, 0), None


def rasterization(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height,
    near_plane=0.01, eps2d=0.3, packed=True, backgrounds=None, render_mode="RGB", absgrad=False,
):  # fmt: skip
    assert not packed and render_mode == "RGB+D" and eps2d == 0.3 and near_plane == 0.2
    assert all(x.is_contiguous() and x.dtype == torch.float32 for x in (means, quats, scales, opacities, colors, Ks))
    assert backgrounds.shape == (len(viewmats), 3) and viewmats.is_contiguous()
    assert colors.shape in ((len(means), 3), (len(viewmats), len(means), 3))
    cameras = Cameras(torch.linalg.inv(viewmats), Ks, width, height)
    projected = project(Gaussians(means, quats, scales, opacities, colors[..., None, :]), cameras)
    axes = (footprint(opacities)[None, :, None] * projected.covs_px2[..., [0, 2]]).sqrt().ceil().int()
    drawn = (projected.depths > near_plane) & (opacities >= 1 / 255)
    means2d = _Positions.apply(projected.means_px, drawn)
    images, alphas = [], []
    for v in range(len(viewmats)):
        seen = colors if colors.dim() == 2 else colors[v]
        splats = Gaussians(means, quats, scales, opacities, ((seen - 0.5) / SH_C0)[:, None])
        picture = DenseRasterizer()(splats, cameras[v : v + 1], backgrounds[v])
        images.append(torch.cat([picture.rgb, picture.depth], -1))
        alphas.append(picture.alpha)
    pull = torch.where(drawn[..., None], means2d, 0).sum((1, 2)) * 0.25  # stands for the pictures
    pull = pull[:, None, None, None]
    return (
        torch.cat(images) + pull - pull.detach(),
        torch.cat(alphas),
        {
            "means2d": means2d,
            "radii": axes * drawn[..., None],
            "conics": torch.where(drawn[..., None], projected.conics, math.nan),
        },
    )


@pytest.fixture
def gsplat(monkeypatch):
    module, cuda, backend = (types.ModuleType(f"gsplat{n}") for n in ("", ".cuda", ".cuda._backend"))
    module.rasterization, backend._C = rasterization, object()
    for name, part in (("gsplat", module), ("gsplat.cuda", cuda), ("gsplat.cuda._backend", backend)):
        monkeypatch.setitem(sys.modules, name, part)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(GsplatRasterizer, "device_type", "cpu")
    return module


def scene(n: int = 40, K: int = 4) -> Gaussians:
    g = rng.generator(0, "test.gsplat")
    return Gaussians(
        torch.randn(n, 3, generator=g) * 0.5 + torch.tensor([0, 0, 0.6]),
        torch.randn(n, 4, generator=g),
        (torch.randn(n, 3, generator=g) * 0.5 - 2.5).exp(),
        torch.rand(n, generator=g) - 0.1 * (torch.rand(n, generator=g) < 0.2).float(),
        torch.randn(n, K, 3, generator=g) * 0.3,
    )


def with_valid_opacity(g: Gaussians) -> Gaussians:
    return dataclasses.replace(g, opacities=g.opacities.clamp(0, 1))


@pytest.mark.parametrize("K", [1, 4])
def test_values_are_those_of_dense(gsplat, K):
    g = with_valid_opacity(scene(K=K))
    cameras, background = camera.orbit([0, -20], [0, 130], 1.2, height=12, width=17), torch.tensor([0.2, 0.9, 0.4])
    actual, expected = GsplatRasterizer()(g, cameras, background), DenseRasterizer()(g, cameras, background)
    for field in dataclasses.fields(expected):
        torch.testing.assert_close(
            getattr(actual, field.name), getattr(expected, field.name), atol=2e-5, rtol=1e-4, msg=field.name
        )
    assert (expected.radii_px == 0).any() and (actual.means_px.isfinite()).all()


def test_screen_positions_keep_their_gradient(gsplat):
    g = with_valid_opacity(scene())
    leaves = {name: getattr(g, name).clone().requires_grad_() for name in FIELDS}
    render = GsplatRasterizer()(Gaussians(**leaves), camera.orbit(0, 0, 2, height=6), torch.ones(3))
    render.rgb.sum().backward()
    drawn = project(g, camera.orbit(0, 0, 2, height=6)).depths[0] > 0.2
    drawn &= g.opacities >= 1 / 255
    expected = torch.where(drawn[:, None], 0.25 * 6 * 6 * 3, 0.0).expand(-1, 2)
    torch.testing.assert_close(render.means_px.grad[0], expected)
    assert not render.radii_px.requires_grad and all(x.grad.isfinite().all() for x in leaves.values())


def test_no_gaussians(gsplat):
    g = Gaussians(*(x[:0] for x in vars(scene()).values()))
    render = GsplatRasterizer()(g, camera.orbit([0, 1], 0, 2, height=4), torch.tensor([[1.0, 0, 0], [0, 0, 1]]))
    assert render.rgb[1, 2, 2].tolist() == [0, 0, 1] and not render.alpha.any() and not render.depth.any()
    assert render.means_px.shape == (2, 0, 2) and render.radii_px.shape == (2, 0)


def test_other_dtypes_are_converted(gsplat):
    g = Gaussians(*(x.double() for x in vars(with_valid_opacity(scene())).values()))
    render = GsplatRasterizer()(g, camera.orbit(0, 0, 2, height=4), torch.ones(3, dtype=torch.float64))
    assert render.rgb.dtype == render.means_px.dtype == torch.float32


def test_mistakes_are_named(gsplat, monkeypatch):
    g, cameras = with_valid_opacity(scene()), camera.orbit(0, 0, 2, height=4)
    with pytest.raises(ValueError, match="intrinsics"):
        GsplatRasterizer()(g, dataclasses.replace(cameras, K=cameras.K.clone().requires_grad_()), torch.ones(3))
    monkeypatch.setattr(GsplatRasterizer, "device_type", "cuda")
    with pytest.raises(ValueError, match="means is on cpu"):
        GsplatRasterizer()(g, cameras, torch.ones(3))


def test_what_is_missing_is_named(gsplat, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="CUDA device"):
        GsplatRasterizer()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys.modules["gsplat.cuda._backend"], "_C", None)
    with pytest.raises(RuntimeError, match="no nvcc"):
        GsplatRasterizer()
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(ImportError, match="pip install 'gsplat"):
        GsplatRasterizer()


def test_auto_takes_gsplat_and_falls_back_where_it_cannot_work(gsplat, monkeypatch, caplog):
    from dg.runtime import device

    monkeypatch.setattr(device, "resolve", lambda name: torch.device(name))
    assert isinstance(device.rasterizer("cuda"), GsplatRasterizer)
    monkeypatch.setattr(sys.modules["gsplat.cuda._backend"], "_C", None)
    assert isinstance(device.rasterizer("cuda"), DenseRasterizer)
    assert "no nvcc" in caplog.text
    monkeypatch.setitem(sys.modules, "gsplat", None)
    assert isinstance(device.rasterizer("cuda"), DenseRasterizer)
    assert "pip install" in caplog.text or "needs gsplat" in caplog.text


def test_views_of_two_sizes_in_one_call(gsplat, monkeypatch):
    """As by themselves, in values and gradients, with one call of gsplat."""
    g, calls = with_valid_opacity(scene()), []
    g = dataclasses.replace(g, means=g.means * 0.3)  # inside every frustum
    small, large = camera.orbit([0, 20], [0, 70], 2.0, height=8, width=10), camera.orbit(-20, 130, 2.0, height=14)
    views = [View(small, torch.tensor([0.2, 0.9, 0.4])), View(large, torch.ones(3))]
    raster = GsplatRasterizer()
    monkeypatch.setattr(raster, "_rasterization", lambda *a, **k: calls.append(1) or rasterization(*a, **k))
    results = {}
    for name, plain in (("together", False), ("apart", True)):
        leaves = {f: getattr(g, f).clone().requires_grad_() for f in FIELDS}
        which = (lambda *a, **k: raster(*a, **k)) if plain else raster
        renders = render_together(which, lambda leaves=leaves: Gaussians(**leaves), views)
        (renders[0].rgb.square().sum() + renders[1].rgb.square().sum() + renders[1].alpha.sum()).backward()
        results[name] = renders, {f: x.grad for f, x in leaves.items()}
    assert len(calls) == 3
    for ours, theirs in zip(results["together"][0], results["apart"][0], strict=True):
        for field in dataclasses.fields(ours):
            a, b = getattr(ours, field.name), getattr(theirs, field.name)
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=field.name)
        assert ours.means_px.grad is not None and ours.means_px.grad.shape == theirs.means_px.grad.shape
        torch.testing.assert_close(ours.means_px.grad, theirs.means_px.grad, atol=1e-5, rtol=1e-4)
    for name, grad in results["together"][1].items():
        torch.testing.assert_close(grad, results["apart"][1][name], atol=1e-4, rtol=1e-3, msg=name)


def test_radii_are_not_to_be_had_after_the_gaussians_have_moved(gsplat):
    g = with_valid_opacity(scene(K=1))
    views = [View(camera.orbit(0, a, 1.2, height=12), torch.ones(3)) for a in (0, 90)]
    first, second = GsplatRasterizer().together(g, views)
    kept = second.radii_px
    g.means.add_(0.1)
    assert second.radii_px is kept and first.radii_px.shape == kept.shape  # both come of one look at the projection
    third = GsplatRasterizer()(g, views[0].cameras, torch.ones(3))
    g.means.add_(0.1)
    with pytest.raises(RuntimeError, match="after its Gaussians have moved"):
        _ = third.means_px


def test_tensors_of_inference_mode_are_rendered(gsplat):
    with torch.inference_mode():
        render = GsplatRasterizer()(with_valid_opacity(scene(K=1)), camera.orbit(0, 0, 1.2, height=12), torch.ones(3))
        assert render.means_px.isfinite().all() and (render.radii_px > 0).any()
