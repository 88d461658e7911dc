"""Every splat rasteriser equals `dg.raster.dense` in values and gradients; dense equals a loop over pixels.

Relative errors are of norms over all elements of a tensor, against dense in float64. Measured for numba_cpu on these
scenes: values 7e-7, gradients 8e-6 at most.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dg.core import camera, gaussians, rng
from dg.raster import _threads
from dg.raster.dense import DenseRasterizer
from dg.raster.gsplat import GsplatRasterizer
from dg.raster.numba_cpu import NumbaRasterizer
from dg.types import Cameras, Gaussians, Render

FIELDS = ("means", "quats", "scales", "opacities", "sh")
IMAGES = ("rgb", "alpha", "depth")
# name: (factory, device, relative tolerance of values and gradients)
IMPLEMENTATIONS = {
    "numba_cpu": (NumbaRasterizer, "cpu", 1e-4),
    "gsplat": (GsplatRasterizer, "cuda", 1e-3),
}
MARKS = {"gsplat": [pytest.mark.gpu]}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, [])) for name in IMPLEMENTATIONS])
def implementation(request) -> tuple[Callable, str, float]:
    return IMPLEMENTATIONS[request.param]


def scene(n: int, seed: int = 0, K: int = 1, spread: float = 0.4, log_scale: float = -3.0) -> Gaussians:
    g = rng.generator(seed, "test.raster")
    return Gaussians(
        means=torch.randn(n, 3, generator=g) * spread,
        quats=torch.randn(n, 4, generator=g),
        scales=(torch.randn(n, 3, generator=g) * 0.7 + log_scale).exp(),
        opacities=torch.rand(n, generator=g),
        sh=torch.randn(n, K, 3, generator=g) * 0.5,
    )


def without_ties(g: Gaussians, cameras: Cameras) -> Gaussians:
    """Leaves out Gaussians as deep as another up to float32's rounding: their order depends on the arithmetic."""
    keep = torch.ones(len(g), dtype=torch.bool)
    for depth in camera.project(
        g.means.double(), dataclasses.replace(cameras, c2w=cameras.c2w.double(), K=cameras.K.double())
    )[1]:
        order = depth.argsort()
        keep[order[1:][depth[order].diff() < 5e-7]] = False
    return Gaussians(*(getattr(g, name)[keep] for name in FIELDS))


def cotangents(cameras: Cameras, seed: int = 0) -> dict[str, torch.Tensor]:
    g = rng.generator(seed, "test.cotangents")
    shape = (len(cameras), cameras.height, cameras.width)
    return {name: torch.randn(*shape, c, generator=g) for name, c in zip(IMAGES, (3, 1, 1), strict=True)}


def differentiate(
    rasterizer,
    g: Gaussians,
    cameras: Cameras,
    background: torch.Tensor,
    *,
    dtype=torch.float32,
    device="cpu",
    only=IMAGES,
) -> tuple[Render, dict[str, torch.Tensor]]:
    """One render and the gradients of a random linear function of its pictures."""
    leaf = lambda x: x.detach().to(device, dtype, copy=True).requires_grad_()  # noqa: E731
    inputs = {name: leaf(getattr(g, name)) for name in FIELDS}
    background = leaf(background)
    render = rasterizer(Gaussians(**inputs), cameras.to(device), background)
    weights = cotangents(cameras)
    sum((getattr(render, name) * weights[name].to(device, dtype)).sum() for name in only).backward()
    gradients = {name: x.grad for name, x in inputs.items()}
    return render, gradients | {"background": background.grad, "means_px": render.means_px.grad}


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference over the norm of b, which counts as 1e-9 at least; absent is zero."""
    if a is None or b is None:
        return 0.0 if (a is None or not a.any()) and (b is None or not b.any()) else math.inf
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    assert a.shape == b.shape
    return (a - b).norm().item() / max(b.norm().item(), 1e-9)


def compare(implementation, g: Gaussians, cameras: Cameras, background: torch.Tensor, only=IMAGES) -> None:
    factory, device, tolerance = implementation
    expected, expected_grads = differentiate(DenseRasterizer(), g, cameras, background, dtype=torch.float64, only=only)
    actual, grads = differentiate(factory(), g, cameras, background, device=device, only=only)
    errors = {name: error(getattr(actual, name), getattr(expected, name)) for name in (*IMAGES, "means_px", "radii_px")}
    errors |= {"d " + name: error(grads[name], expected_grads[name]) for name in expected_grads}
    print({name: f"{value:.0e}" for name, value in errors.items()})
    assert max(errors.values()) < tolerance, errors
    assert all(x is None or x.isfinite().all() for x in grads.values())


# --- dense itself -----------------------------------------------------------------------------------------------------


def naive(g: Gaussians, cameras: Cameras, background: np.ndarray) -> np.ndarray:
    """Pixel by pixel, Gaussian by Gaussian, with 3x3 matrices: [V H W 5] (rgb, alpha, depth). Degree 0 only."""
    out = np.zeros((len(cameras), cameras.height, cameras.width, 5))
    means, quats, scales, opacities, sh = (getattr(g, name).double().numpy() for name in FIELDS)
    for v in range(len(cameras)):
        w2c, K = np.linalg.inv(cameras.c2w[v].double().numpy()), cameras.K[v].double().numpy()
        tan = np.array([cameras.width / K[0, 0], cameras.height / K[1, 1]]) / 2
        splats = []
        for n in range(len(g)):
            x, y, z = w2c[:3, :3] @ means[n] + w2c[:3, 3]
            if z <= 0.2:
                continue
            w, *axis = quats[n] / np.linalg.norm(quats[n])
            cross = np.cross(np.eye(3), axis)  # cross @ x = axis x x
            R = np.eye(3) + 2 * w * cross + 2 * cross @ cross
            u, t = np.clip([x / z, y / z], -1.3 * tan, 1.3 * tan)
            J = np.array([[K[0, 0] / z, 0, -K[0, 0] * u / z], [0, K[1, 1] / z, -K[1, 1] * t / z]]) @ w2c[:3, :3] @ R
            cov = J @ np.diag(scales[n] ** 2) @ J.T + 0.3 * np.eye(2)
            centre = np.array([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]])
            splats.append((z, centre, np.linalg.inv(cov), opacities[n], np.maximum(0.28209479 * sh[n, 0] + 0.5, 0)))
        splats.sort(key=lambda s: s[0])
        for row in range(cameras.height):
            for column in range(cameras.width):
                T, rgb, depth = 1.0, np.zeros(3), 0.0
                for z, centre, conic, opacity, color in splats:
                    d = np.array([column + 0.5, row + 0.5]) - centre
                    alpha = min(0.999, opacity * math.exp(-0.5 * d @ conic @ d))
                    if alpha < 1 / 255:
                        continue
                    if T * (1 - alpha) <= 1e-4:
                        break
                    rgb, depth, T = rgb + T * alpha * color, depth + T * alpha * z, T * (1 - alpha)
                out[v, row, column] = [*(rgb + T * background), 1 - T, depth]
    return out


def test_dense_equals_a_loop_over_pixels():
    g = scene(25, log_scale=-2.6)
    g.opacities[:8] = 1.0  # so that pixels stop early
    cameras = camera.orbit([0, -40], [20, 200], [1.2, 2], height=11, width=14)
    background = torch.tensor([0.9, 0.2, 0.4])
    expected = naive(g, cameras, background.double().numpy())
    g64 = Gaussians(*(getattr(g, name).double() for name in FIELDS))
    render = DenseRasterizer(pairs_per_block=100)(g64, cameras, background)
    actual = torch.cat([render.rgb, render.alpha, render.depth], -1).numpy()
    assert (expected[..., 3] > 0.99).any() and (expected[..., 3] == 0).any()
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_dense_gradients_by_finite_differences():
    g = scene(4, seed=5, K=4, spread=0.15, log_scale=-1.3)
    cameras = camera.orbit([0, -30], [0, 80], 2, height=3, width=4)
    inputs = [getattr(g, name).double().requires_grad_() for name in FIELDS]
    background = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64, requires_grad=True)

    def pictures(*x):
        render = DenseRasterizer(pairs_per_block=16)(Gaussians(*x[:5]), cameras, x[5])
        return render.rgb, render.alpha, render.depth, render.means_px

    assert torch.autograd.gradcheck(pictures, (*inputs, background), eps=1e-6, atol=1e-6, rtol=1e-4)


def test_dense_differentiates_cameras():
    g = scene(10)
    cameras = camera.orbit(0, 0, 2, height=8)
    c2w = cameras.c2w.clone().requires_grad_()
    DenseRasterizer()(g, dataclasses.replace(cameras, c2w=c2w), torch.zeros(3)).rgb.square().sum().backward()
    assert c2w.grad.isfinite().all() and c2w.grad.any()


def test_dense_in_float32():
    compare((DenseRasterizer, "cpu", 2e-5), scene(100), camera.orbit(0, [0, 60], 2, height=24), torch.ones(3))


# --- every implementation against dense -------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 4, 16])
def test_values_and_gradients(implementation, K):
    cameras = camera.orbit([0, -25, 40], [0, 70, 200], [2, 1.5, 3], height=29, width=50)
    g = without_ties(scene(250, K=K), cameras)
    compare(implementation, g, cameras, torch.rand(3, 3, generator=rng.generator(0, "test")))


@pytest.mark.parametrize("only", IMAGES)
def test_each_picture_alone(implementation, only):
    compare(implementation, scene(150, seed=1), camera.orbit(10, 30, 2, height=33), torch.ones(3), only=(only,))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 9), (16, 16), (8, 16), (31, 49)])
def test_sizes(implementation, size):
    cameras = camera.orbit([0, 20], [0, 90], 2, height=size[0], width=size[1])
    compare(implementation, scene(80, seed=2), cameras, torch.tensor([0.2, 0.5, 0.8]))


def test_starting_ball(implementation):
    g = gaussians.activate(gaussians.ball(rng.generator(0, "init"), num_points=1000))
    cameras = camera.orbit(-10, 30, 2, height=32)
    compare(implementation, without_ties(g, cameras), cameras, torch.ones(3))


def test_opaque_surface(implementation):
    """Flat, nearly opaque Gaussians on a sphere: most pixels stop before the list ends."""
    generator = rng.generator(0, "test.surface")
    normal = torch.nn.functional.normalize(torch.randn(800, 3, generator=generator), dim=1)
    quats = torch.stack([1 + normal[:, 2], -normal[:, 1], normal[:, 0], torch.zeros(800)], 1)
    scales = torch.tensor([0.05, 0.04, 0.004]).expand(800, 3)
    sh = torch.randn(800, 1, 3, generator=generator)
    g = Gaussians(0.45 * normal, quats, scales, torch.full((800,), 0.95), sh)
    cameras = camera.orbit([0, -89.9], [0, 0], 2, height=28)
    compare(implementation, without_ties(g, cameras), cameras, torch.zeros(3))


def _edit(g: Gaussians, **fields) -> Gaussians:
    return dataclasses.replace(g, **fields)


EDGES = {
    "no Gaussians": lambda g: Gaussians(*(getattr(g, name)[:0] for name in FIELDS)),
    "one Gaussian": lambda g: Gaussians(*(getattr(g, name)[:1] for name in FIELDS)),
    "all invisible": lambda g: _edit(g, opacities=torch.full_like(g.opacities, 0.003)),
    "all opaque": lambda g: _edit(g, opacities=torch.ones_like(g.opacities)),
    "opacity 0 and 1": lambda g: _edit(g, opacities=g.opacities.round()),
    "behind the camera": lambda g: _edit(g, means=g.means + torch.tensor([0.0, 0.0, 9.0])),
    "around the camera": lambda g: _edit(g, means=g.means + torch.tensor([0.0, 0.0, 1.8])),
    "beside the picture": lambda g: _edit(g, means=g.means + torch.tensor([1.3, 0.7, 0.5])),
    "one covers everything": lambda g: _edit(
        g, scales=torch.cat([torch.full((1, 3), 30.0), g.scales[1:]]), opacities=g.opacities * 0.8
    ),
    "all are huge": lambda g: _edit(g, scales=g.scales * 30, opacities=g.opacities * 0.2),
    "points": lambda g: _edit(g, scales=torch.zeros_like(g.scales)),
    "needles": lambda g: _edit(g, scales=g.scales * torch.tensor([8.0, 0.02, 0.02])),
    "one place, one depth": lambda g: _edit(g, means=torch.zeros_like(g.means)),
    "unnormalised quaternions": lambda g: _edit(g, quats=g.quats * 1e3),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges(implementation, edge):
    compare(implementation, EDGES[edge](scene(60, seed=3)), camera.orbit(0, 0, 2, height=20, width=35), torch.ones(3))


def test_principal_point_off_centre(implementation):
    cameras = camera.orbit([0, 15], [0, 120], 2, height=24, width=30)
    K = cameras.K.clone()
    K[:, 0, 2], K[:, 1, 2], K[:, 0, 0] = 4.0, 19.5, 40.0
    compare(implementation, scene(100, seed=4), dataclasses.replace(cameras, K=K), torch.ones(3))


def test_contract_of_the_result(implementation):
    factory, device, _ = implementation
    cameras = camera.orbit([0, 10], [0, 10], 2, height=12, width=20).to(device)
    g = scene(30).to(device)
    render = factory()(g, cameras, torch.ones(3, device=device))
    assert render.rgb.shape == (2, 12, 20, 3) and render.alpha.shape == render.depth.shape == (2, 12, 20, 1)
    assert render.means_px.shape == (2, 30, 2) and render.radii_px.shape == (2, 30)
    assert not render.rgb.requires_grad and not render.radii_px.requires_grad
    assert render.alpha.min() >= 0 and render.alpha.max() <= 1 - 0.99e-4
    nothing = factory()(EDGES["no Gaussians"](g), cameras, torch.tensor([[0.1, 0.2, 0.3], [1, 1, 0]], device=device))
    assert torch.equal(nothing.rgb[1, 0, 0].cpu(), torch.tensor([1.0, 1, 0])) and not nothing.alpha.any()


def test_views_are_independent(implementation):
    factory, device, _ = implementation
    cameras = camera.orbit([0, 10, 30], [0, 100, 200], 2, height=20).to(device)
    g, background = scene(80, K=4).to(device), torch.rand(3, 3, generator=rng.generator(0, "test")).to(device)
    together = factory()(g, cameras, background)
    alone = factory()(g, cameras[1:2], background[1])
    atol = 0 if device == "cpu" else 1e-5  # cuBLAS multiplies batches of other sizes in other orders
    torch.testing.assert_close(together.rgb[1], alone.rgb[0], atol=atol, rtol=0)
    torch.testing.assert_close(together.radii_px[1], alone.radii_px[0], atol=atol, rtol=atol)


def test_gradient_of_the_screen_positions_is_in_pixels(implementation):
    """Moving a Gaussian's projected centre by one pixel moves the picture's centre of mass by one pixel."""
    factory, device, _ = implementation
    g = Gaussians(
        torch.zeros(1, 3, requires_grad=True, device=device),
        torch.tensor([[1.0, 0, 0, 0]], device=device),
        torch.full((1, 3), 0.05, device=device),
        torch.ones(1, device=device),
        torch.zeros(1, 1, 3, device=device),
    )
    render = factory()(g, camera.orbit(0, 0, 2, height=64).to(device), torch.zeros(3, device=device))
    mass = render.alpha[0, ..., 0]
    x = torch.arange(64, device=device) + 0.5
    (mass.sum(0) @ x / mass.sum().detach()).backward()
    assert render.means_px.grad[0, 0, 0].item() == pytest.approx(1, abs=0.02)
    assert g.means.grad[0, 0].item() == pytest.approx(camera.intrinsics(49.1, 64, 64)[0, 0].item() / 2, rel=0.02)


# --- numba_cpu alone --------------------------------------------------------------------------------------------------


def test_same_bits_in_every_run_and_for_any_number_of_threads():
    cameras = camera.orbit([0, 20], [0, 90], 2, height=50, width=61)
    g, before = scene(700, K=4), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2, 5):
            torch.set_num_threads(threads)
            results.append(differentiate(NumbaRasterizer(), g, cameras, torch.ones(3)))
    finally:
        torch.set_num_threads(before)
    (first, first_grads), *others = results
    for render, grads in others:
        assert all(torch.equal(getattr(render, f.name), getattr(first, f.name)) for f in dataclasses.fields(Render))
        assert all(torch.equal(grads[name], first_grads[name]) for name in grads)


def test_other_layouts_and_dtypes_are_converted():
    g, cameras = scene(50, K=4), camera.orbit(0, 0, 2, height=16)
    expected = NumbaRasterizer()(g, cameras, torch.ones(3))
    strided = Gaussians(*(getattr(g, name).repeat_interleave(2, 0)[::2].double() for name in FIELDS))
    assert torch.equal(NumbaRasterizer()(strided, cameras, torch.ones(3, dtype=torch.float64)).rgb, expected.rgb)
    render, grads = differentiate(NumbaRasterizer(), g, cameras, torch.ones(3), dtype=torch.float64)
    assert render.rgb.dtype == torch.float32 and grads["means"].dtype == torch.float64


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_named(name, value):
    g = scene(10)
    getattr(g, name).view(-1)[3] = value
    with pytest.raises(ValueError, match=rf"{name} has 1 value"):
        NumbaRasterizer()(g, camera.orbit(0, 0, 2, height=8), torch.ones(3))


def test_bad_inputs_are_named():
    g, cameras, render = scene(10), camera.orbit(0, [0, 1], 2, height=8), NumbaRasterizer()
    cases = {
        "opacities must be": (_edit(g, opacities=g.opacities + 1), cameras, torch.ones(3)),
        "means is on meta": (_edit(g, means=g.means.to("meta")), cameras, torch.ones(3)),
        r"opacities has shape \(10, 1\)": (_edit(g, opacities=g.opacities[:, None]), cameras, torch.ones(3)),
        "background has shape": (g, cameras, torch.ones(3, 3)),
        "cameras.K has": (g, dataclasses.replace(cameras, K=cameras.K * math.nan), torch.ones(3)),
        "no gradient for cameras": (
            g,
            dataclasses.replace(cameras, K=cameras.K.clone().requires_grad_()),
            torch.ones(3),
        ),
    }
    for message, args in cases.items():
        with pytest.raises(ValueError, match=message):
            render(*args)


def test_first_compilation_says_so_once(monkeypatch, caplog):
    slow = threading.Event().wait
    monkeypatch.setattr(_threads, "COMPILE_NOTICE_S", 0.02)
    monkeypatch.setattr(_threads, "_noticed", threading.Event())
    for _ in range(2):
        _threads._first_call(lambda counter, items: slow(0.2))
    assert [r.message for r in caplog.records if "compiling" in r.message] == [
        "compiling the CPU rasteriser, once: some 10 s"
    ]


def test_kernels_work_where_nothing_can_be_cached(monkeypatch):
    njit, calls = _threads.numba.njit, []

    def without_folder(**options):
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(_threads.numba, "njit", without_folder)

    @_threads.compiled()
    def double(x):
        return 2 * x

    assert double(4) == 8 and len(calls) == 2
