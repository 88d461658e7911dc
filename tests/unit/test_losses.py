"""The losses of stage 1 against literal re-derivations in numpy: values, and gradients by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dg.core.camera import orbit
from dg.core.depth_normals import normals_from_depth, surface_depth, view_points
from dg.losses.anisotropy import Anisotropy
from dg.losses.depth_smooth import DepthSmoothness
from dg.losses.lpips import LpipsLoss
from dg.losses.mask import MaskLoss
from dg.losses.normal_smooth import NormalSmoothness, blurred
from dg.losses.opacity_entropy import OpacityEntropy
from dg.losses.rgb import RgbLoss
from dg.losses.scale import ScaleSize
from dg.losses.terms import terms, wanted
from dg.losses.weighted import KnownViewLoss, NovelViewLoss, SplatLoss, Target
from dg.types import Cameras, Gaussians, Render

F = 12.0  # focal length of the small pictures, in pixels


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def splats(scales: np.ndarray | None = None, opacities: np.ndarray | None = None) -> Gaussians:
    scales = np.ones((len(opacities), 3)) if scales is None else scales
    opacities = np.ones(len(scales)) if opacities is None else opacities
    n, t = len(scales), torch.from_numpy
    return Gaussians(torch.zeros(n, 3), torch.zeros(n, 4), t(scales), t(opacities), torch.zeros(n, 1, 3))


def small_cameras(height: int, width: int) -> Cameras:
    K = torch.tensor([[[F, 0, width / 2], [0, F, height / 2], [0, 0, 1]]])
    return Cameras(torch.eye(4)[None], K, width, height)


def render(depth: np.ndarray, alpha: np.ndarray, rgb: np.ndarray | None = None) -> Render:
    """`depth` is the sum, as rasterisers give it; all [H W], rgb [H W 3]."""
    rgb = np.zeros((*depth.shape, 3)) if rgb is None else rgb
    parts = (torch.from_numpy(x)[None] for x in (rgb, alpha[..., None], depth[..., None]))
    return Render(*parts, torch.zeros(1, 0, 2), torch.zeros(1, 0))


def slopes(f: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences."""
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        out[index] = (f(up) - f(down)) / (2 * step)
    return out


def gradient_of(loss: torch.Tensor, *inputs: torch.Tensor) -> list[np.ndarray]:
    return [g.numpy() for g in torch.autograd.grad(loss, inputs)]


# --- of the Gaussians


def test_opacity_entropy() -> None:
    o = np.array([0.0, 0.01, 0.1, 0.5, 0.8, 1.0])
    x = splats(opacities=o)
    x.opacities.requires_grad_()
    loss = OpacityEntropy()(x)
    inner = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in o[1:-1]]
    assert loss.item() == pytest.approx(sum(inner) / 6, abs=1e-5)
    (got,) = gradient_of(loss, x.opacities)
    assert got[1:-1] == pytest.approx([math.log((1 - p) / p) / 6 for p in o[1:-1]]) and got[0] == got[-1] == 0
    assert OpacityEntropy()(splats(opacities=np.full(4, 0.5))).item() == pytest.approx(math.log(2))


def test_size_of_the_gaussians() -> None:
    s = 0.05 * draw(7, 3)
    x = splats(scales=s)
    x.scales.requires_grad_()
    assert ScaleSize()(x).item() == pytest.approx(s.mean())
    loss = ScaleSize(above=0.02)(x)
    assert loss.item() == pytest.approx(sum(max(v - 0.02, 0) for v in s.reshape(-1)) / 21)
    assert gradient_of(loss, x.scales)[0] == pytest.approx(np.where(s > 0.02, 1 / 21, 0))


def test_anisotropy() -> None:
    s = 0.02 + 0.3 * draw(9, 3)

    def literal(scales: np.ndarray) -> float:
        return sum(max(max(row) / min(row), 3.0) - 3.0 for row in scales) / len(scales)

    x = splats(scales=s)
    x.scales.requires_grad_()
    loss = Anisotropy(limit=3.0)(x)
    assert 0 < loss.item() == pytest.approx(literal(s))
    assert gradient_of(loss, x.scales)[0] == pytest.approx(slopes(literal, s), abs=1e-6)
    assert Anisotropy(limit=3.0)(splats(scales=np.array([[0.1, 0.2, 0.3]]))).item() == pytest.approx(0, abs=1e-12)


# --- of the novel view


def test_depth_smoothness() -> None:
    alpha = 0.3 + 0.7 * draw(6, 7)
    depth, rgb = alpha * (1.5 + 0.2 * draw(6, 7, seed=1)), draw(6, 7, 3, seed=2)
    frozen = np.where(alpha > 0.5, depth / alpha, 0)  # no gradient goes through what a pixel is wide

    def literal(total: np.ndarray, a: np.ndarray) -> float:
        d, values = total / a, []
        for y in range(6):
            for x in range(7):
                for v, u in ((y, x + 1), (y + 1, x)):
                    if v < 6 and u < 7 and min(alpha[y, x], alpha[v, u]) > 0.5:
                        wide = (frozen[y, x] + frozen[v, u]) / 2 / F
                        edge = np.mean(np.abs(rgb[v, u] - rgb[y, x]))
                        values.append(abs(d[v, u] - d[y, x]) / wide * math.exp(-10 * edge))
        return float(np.mean(values))

    seen = render(depth, alpha, rgb)
    for x in (seen.depth, seen.alpha, seen.rgb):
        x.requires_grad_()
    loss = DepthSmoothness()(seen, small_cameras(6, 7))
    assert loss.item() == pytest.approx(literal(depth, alpha))
    by_depth, by_alpha = gradient_of(loss, seen.depth, seen.alpha)
    assert by_depth[0, ..., 0] == pytest.approx(slopes(lambda x: literal(x, alpha), depth), abs=1e-6)
    assert by_alpha[0, ..., 0] == pytest.approx(slopes(lambda x: literal(depth, x), alpha), abs=1e-6)


@pytest.mark.parametrize("size", [32, 64])
def test_a_tilted_plane_has_its_slope_whatever_the_pictures_size(size: int) -> None:
    """z = 2 + x / 2 in view space: half a unit of depth per unit across, none up and down."""
    cameras = orbit(0, 0, 2.0, fovy_deg=20, height=size)
    x = (torch.arange(size) + 0.5 - size / 2) / cameras.K[0, 0, 0]
    depth = (2 / (1 - x / 2)).expand(size, -1).double().numpy().copy()
    alpha = np.ones_like(depth)
    across = DepthSmoothness(edges=0)(render(depth, alpha), cameras).item() * 2
    assert across == pytest.approx(0.5, rel=0.02)
    normals, known = normals_from_depth(
        *surface_depth(*(torch.from_numpy(y)[None, ..., None] for y in (depth, alpha))), cameras
    )
    expected = torch.tensor([0.5, 0, -1], dtype=torch.float64) / math.sqrt(1.25)
    assert (normals[known[..., 0]] - expected).abs().max() < 1e-4 and known.sum() == (size - 2) ** 2


def ball_depth(size: int, cameras: Cameras, radius: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    rays = view_points(torch.ones(1, size, size, 1, dtype=torch.float64), cameras)
    a, b, c = rays.square().sum(-1), -2 * 2.0 * rays[..., 2], 4.0 - radius**2
    inside = b**2 - 4 * a * c
    depth = torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / (2 * a), 0)
    return depth[..., None], (inside > 0)[..., None]


def test_normals_of_a_ball() -> None:
    cameras = orbit(0, 0, 2.0, height=128)
    depth, there = ball_depth(128, cameras)
    normals, known = normals_from_depth(depth, there, cameras)
    truth = (view_points(depth, cameras) - torch.tensor([0, 0, 2.0], dtype=torch.float64)) / 0.5
    cosine = (normals * truth).sum(-1)[known[..., 0]]
    assert cosine.quantile(0.05) > 0.999 and len(cosine) > 2000
    assert (normals[~known[..., 0]] == 0).all()


def test_normal_smoothness() -> None:
    alpha = 0.35 + 0.65 * draw(9, 10)
    depth = alpha * (1.5 + 0.03 * draw(9, 10, seed=1))
    cameras, kernel = small_cameras(9, 10), 5

    def normals(total: np.ndarray, a: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        def point(y: int, x: int) -> np.ndarray:
            return total[y, x] / a[y, x] * np.array([(x + 0.5 - 5) / F, (y + 0.5 - 4.5) / F, 1])

        found = {}
        for y in range(1, 8):
            for x in range(1, 9):
                cross = [(y, x), (y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)]
                if all(alpha[p] > 0.5 for p in cross):
                    n = np.cross(point(y + 1, x) - point(y - 1, x), point(y, x + 1) - point(y, x - 1))
                    found[y, x] = n / np.linalg.norm(n)
        return found

    window = [math.exp(-0.5 * (i / (kernel / 6)) ** 2) for i in (-2, -1, 0, 1, 2)]
    fixed = normals(depth, alpha)

    def target(y: int, x: int) -> np.ndarray:
        near = [
            (window[v - y + 2] * window[u - x + 2], n)
            for (v, u), n in fixed.items()
            if max(abs(v - y), abs(u - x)) <= 2
        ]
        return sum(w * n for w, n in near) / sum(w for w, _ in near)

    def literal(total: np.ndarray, a: np.ndarray) -> float:
        return float(np.mean([np.sum((n - target(*p)) ** 2) for p, n in normals(total, a).items()]))

    seen = render(depth, alpha)
    seen.depth.requires_grad_()
    seen.alpha.requires_grad_()
    loss = NormalSmoothness(kernel=kernel)(seen, cameras)
    assert len(fixed) > 8 and loss.item() == pytest.approx(literal(depth, alpha))
    by_depth, by_alpha = gradient_of(loss, seen.depth, seen.alpha)
    assert by_depth[0, ..., 0] == pytest.approx(slopes(lambda x: literal(x, alpha), depth), abs=1e-4)
    assert by_alpha[0, ..., 0] == pytest.approx(slopes(lambda x: literal(depth, x), alpha), abs=1e-4)


def test_bumps_are_rougher_than_a_ball() -> None:
    cameras = orbit(0, 0, 2.0, height=64)
    depth, there = (x[0, ..., 0].numpy() for x in ball_depth(64, cameras))
    alpha = there.astype(float)
    smooth, bumpy = render(depth, alpha), render(depth + 0.06 * alpha * draw(64, 64), alpha)
    for loss in (NormalSmoothness(), DepthSmoothness()):
        assert 0 < loss(smooth, cameras) < 0.6 * loss(bumpy, cameras)
    empty = render(np.zeros((64, 64)), np.zeros((64, 64)))
    empty.depth.requires_grad_()
    for loss in (NormalSmoothness(), DepthSmoothness()):
        assert loss(empty, cameras) == 0 and gradient_of(loss(empty, cameras), empty.depth)[0].max() == 0


def test_the_blur_keeps_constants_inside() -> None:
    out = blurred(torch.ones(1, 20, 20, 2), 9)
    torch.testing.assert_close(out[:, 4:-4, 4:-4], torch.ones(1, 12, 12, 2))
    with pytest.raises(ValueError, match="kernel=4 must be an odd number"):
        NormalSmoothness(kernel=4)


# --- of the known view, and all together


def test_known_view_losses() -> None:
    rgb, alpha = 1.2 * draw(4, 5, 3), draw(4, 5, seed=1)
    target = Target(*(torch.from_numpy(x)[None] for x in (draw(4, 5, 3, seed=2), draw(4, 5, 1, seed=3))))
    seen = render(np.zeros((4, 5)), alpha, rgb)
    assert RgbLoss()(seen, target).item() == pytest.approx(np.mean((np.minimum(rgb, 1) - target.rgb.numpy()) ** 2))
    assert MaskLoss()(seen, target).item() == pytest.approx(np.mean((alpha[..., None] - target.alpha.numpy()) ** 2))


def test_lpips_without_its_weights_is_one_clear_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"net=vgg cannot be had.*vgg16-397923af\.pth.*fetch") as caught:
        LpipsLoss()
    assert "\n" not in str(caught.value)
    assert LpipsLoss(weight=0).net == "vgg"


@dataclass(frozen=True)
class Refuses(NovelViewLoss):
    def __call__(self, render: Render, cameras: Cameras) -> torch.Tensor:
        raise AssertionError("a loss without a weight was computed")


def test_terms_are_weighted_by_kind_and_nothing_costs_nothing() -> None:
    losses = {"a": OpacityEntropy(2.0), "b": OpacityEntropy(4.0, ramp=True), "c": Refuses(0.0), "d": RgbLoss(0.0)}
    found = terms(losses, SplatLoss, 0.25, splats(opacities=np.full(3, 0.5)))
    assert {k: v.item() for k, v in found.items()} == pytest.approx({"a": 2 * math.log(2), "b": math.log(2)})
    assert terms(losses, NovelViewLoss, 1.0, None, None) == {} == terms(losses, KnownViewLoss, 1.0, None, None)
    assert wanted(losses, SplatLoss) and not wanted(losses, NovelViewLoss) and not wanted(losses, KnownViewLoss)
