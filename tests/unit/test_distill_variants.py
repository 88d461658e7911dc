"""Every distillation against a literal re-derivation, and where it ends: the known optimum, or as far off as said."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from dg.core.camera import orbit
from dg.core.diffusion import scaled_linear_alpha_bar
from dg.core.distill import SDS, SJC, X0, Distillation, weight_of_t
from dg.core.distill_guided import CSD, NFSD
from dg.core.distill_inverted import ISM, SDI, divided, invert, strided
from dg.core.distill_particles import VSD
from dg.core.rng import generator
from dg.io.mesh import save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.exact import gaussian_blur
from dg.priors.oracle import OraclePrior
from dg.priors.point import PointPrior
from dg.types import Prediction
from tests.shapes import ball

ALPHA_BAR = scaled_linear_alpha_bar()
AB = ALPHA_BAR.double().numpy()
PLAIN = {"weighting": "uniform", "scale_to_elements": None}
UNGUIDED = [SDS(), SJC(), X0(), SDI()]  # work with a prior that answers one prediction
GUIDED = [CSD(), NFSD(), ISM()]


def name(method: Distillation) -> str:
    return type(method).__name__.lower()


def draw(what: str, *shape: int, step: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(3, what, step))


def curved(z_t: torch.Tensor, t: torch.Tensor) -> Prediction:
    """Some network: nonlinear in the picture and different at every t."""
    u = t.reshape(-1, 1, 1, 1) / 1000
    return Prediction(torch.sin(z_t + u) + 0.3 * u, 0.5 * torch.cos(2 * z_t) - u * z_t)


def literal(method: Distillation, x: np.ndarray, e: np.ndarray, t: int) -> np.ndarray:
    """The papers' lines once more, in numpy, for one sample and `curved`."""
    s, a = method.guidance_scale, AB[t]

    def y(z: np.ndarray, t: int) -> np.ndarray:
        return np.sin(z + t / 1000) + 0.3 * t / 1000

    def empty(z: np.ndarray, t: int) -> np.ndarray:
        return 0.5 * np.cos(2 * z) - t / 1000 * z

    def cfg(z: np.ndarray, t: int, s: float) -> np.ndarray:
        return (1 - s) * empty(z, t) + s * y(z, t)

    def walk(z: np.ndarray, path: list[int], noise) -> np.ndarray:
        for now, after in pairwise(path):
            n = noise(z, now)
            clean = (z - math.sqrt(1 - AB[now]) * n) / math.sqrt(AB[now])
            z = math.sqrt(AB[after]) * clean + math.sqrt(1 - AB[after]) * n
        return z

    x_t = math.sqrt(a) * x + math.sqrt(1 - a) * e
    start = math.sqrt(AB[20]) * x + math.sqrt(1 - AB[20]) * e
    if isinstance(method, SJC):
        sigma = math.sqrt(1 / a - 1)
        perturbed = x + sigma * e
        d = perturbed - sigma * cfg(perturbed / math.sqrt(1 + sigma**2), t, s)
        return -(d - (x if method.variance_reduced else perturbed)) / sigma
    if isinstance(method, X0):
        path = [t]
        for left in range(method.steps - 1, 0, -1):
            path.append(path[-1] * left // (left + 1))
        x_t, t = walk(x_t, path, lambda z, t: cfg(z, t, s)), path[-1]
        a = AB[t]
        return 2 * (x - (x_t - math.sqrt(1 - a) * cfg(x_t, t, s)) / math.sqrt(a))
    if isinstance(method, CSD):
        return s * (y(x_t, t) - empty(x_t, t))
    if isinstance(method, NFSD):
        return (empty(x_t, t) if t < 200 else 0) + s * (y(x_t, t) - empty(x_t, t))
    if isinstance(method, ISM):
        path = [max(t - 80, 20)]
        while path[0] > 20:
            path.insert(0, max(path[0] - 200, 20))
        x_s = walk(start, path, empty)
        x_t = walk(x_s, [path[-1], t], empty)
        return cfg(x_t, t, s) - empty(x_s, path[-1])
    if isinstance(method, SDI):
        path = [round(20 + (t - 20) * k / 10) for k in range(11)]
        x_t = walk(start, path, lambda z, t: cfg(z, t, -s))
        return 2 * (x - (x_t - math.sqrt(1 - a) * cfg(x_t, t, s)) / math.sqrt(a))
    return cfg(x_t, t, s) - e


@pytest.mark.parametrize("method", [*UNGUIDED, SJC(variance_reduced=False), X0(steps=3), *GUIDED], ids=repr)
@pytest.mark.parametrize("s", [1.0, 3.0])
def test_values_and_the_gradient_on_the_picture(method: Distillation, s: float) -> None:
    method = replace(method, guidance_scale=s, weight=1.7, scale_to_elements=4096)
    z, eps, t = draw("z", 3, 2, 4, 4).requires_grad_(), draw("eps", 3, 2, 4, 4), torch.tensor([47, 401, 777])
    value = method.loss(curved, z, t, eps, ALPHA_BAR)
    value.backward()
    w = {"1-alpha_bar": lambda a: 1 - a, "uniform": lambda a: 1, "noise_to_signal": lambda a: math.sqrt(1 / a - 1)}
    arrays = z.detach().double().numpy(), eps.double().numpy()
    expected = np.stack(
        [
            1.7 * w[method.weighting](AB[t_]) * literal(method, x, e, int(t_)) * 4096 / 32
            for x, e, t_ in zip(*arrays, t, strict=True)
        ]
    )
    largest = np.abs(expected).max()
    np.testing.assert_allclose(z.grad.double().numpy(), expected / 3, atol=3e-4 * largest / 3, rtol=0)
    assert value.item() == pytest.approx(0.5 * (expected**2).sum() / 3, rel=2e-3)


def test_noise_to_signal_and_its_name_in_the_complaint() -> None:
    assert weight_of_t(torch.tensor(0.2), "noise_to_signal").item() == pytest.approx(2)
    with pytest.raises(ValueError, match="noise_to_signal"):
        weight_of_t(torch.tensor(0.2), "snr")


def test_what_the_methods_are_of_each_other() -> None:
    """SJC is SDS with w = 1; x0 is SDS with w = 2 sqrt((1 - a) / a); CSD is what guidance adds to SDS."""
    given = draw("z", 2, 1, 4, 4), torch.tensor([60, 600]), draw("eps", 2, 1, 4, 4), ALPHA_BAR
    sds, none, csd = (m.gradient(curved, *given) for m in (SDS(1, 3, **PLAIN), SDS(1, 0, **PLAIN), CSD(1, 3, **PLAIN)))
    torch.testing.assert_close(SJC(1, 3, **PLAIN).gradient(curved, *given), sds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sds - none, csd, atol=1e-5, rtol=1e-4)
    doubled = SDS(2, 3, "noise_to_signal", None).gradient(curved, *given)
    torch.testing.assert_close(X0(1, 3, **PLAIN).gradient(curved, *given), doubled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", GUIDED, ids=name)
def test_without_an_unconditional_prediction_the_mend_is_named(method: Distillation) -> None:
    def one(z_t: torch.Tensor, t: torch.Tensor) -> Prediction:
        return Prediction(z_t)

    z = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=rf"distill={name(method)} .*choose distill=sds, sjc, x0 or sdi, .*zero123"):
        method.loss(one, z, torch.tensor([500]), z, ALPHA_BAR)


def test_paths_of_the_inversions() -> None:
    t = torch.tensor([430, 50])
    assert [p.tolist() for p in strided(t, 200)] == [[20, 20], [30, 20], [230, 20], [430, 50]]
    assert [p.tolist() for p in divided(t, 2)] == [[20, 20], [225, 35], [430, 50]]
    for t in (torch.tensor([20]), torch.tensor([7])):
        assert torch.equal(strided(t, 200)[0], t) and len(strided(t, 200)) == 1
        assert all(torch.equal(p, t) for p in divided(t, 3))


def test_inverting_along_an_exact_score_keeps_the_noise() -> None:
    """The path of a point mass is straight: the noise found at t is the one that the start had about x*."""
    target, z, eps = draw("x", 1, 1, 4, 4), draw("z", 1, 1, 4, 4), draw("eps", 1, 1, 4, 4)

    def exact(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = ALPHA_BAR[t].reshape(-1, 1, 1, 1)
        return (x_t - a.sqrt() * target) / (1 - a).sqrt()

    x_t = invert(exact, z, eps, divided(torch.tensor([600]), 4), ALPHA_BAR)
    noise = eps + (AB[20] / (1 - AB[20])) ** 0.5 * (z - target)
    torch.testing.assert_close(x_t, AB[600] ** 0.5 * target + (1 - AB[600]) ** 0.5 * noise, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("method", [{"delta": 0}, {"stride": 0}, {"inversion_steps": 0}], ids=str)
def test_impossible_inversions(method: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        (SDI if "inversion_steps" in method else ISM)(**method)


def descend(method: Distillation, predict, shape: tuple[int, ...], ts: list[int], steps: int = 120) -> torch.Tensor:
    """Adam on pixels with a falling rate; each noise is followed by its negative."""
    z = torch.full(shape, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.01 ** (step / steps)
        optimizer.zero_grad()
        eps, t = draw("descent", *shape, step=step), torch.full(shape[:1], ts[step % len(ts)])
        for sign in (1, -1):
            method.loss(predict, z, t, sign * eps, ALPHA_BAR).backward()
        optimizer.step()
    return z.detach()


@pytest.mark.parametrize("method", [*UNGUIDED, SJC(variance_reduced=False)], ids=repr)
def test_with_the_point_prior_the_optimum_is_the_picture(method: Distillation) -> None:
    target = torch.rand(3, 16, 16, generator=generator(3, "picture"))
    prior = PointPrior(target_rgb=target, image_size=16)
    condition = prior.condition(None, None, orbit([0.0], [0.0], 2.0, height=16), torch.ones(1, 3))
    found = descend(method, lambda z, t: prior.predict(z, t, condition), (1, 3, 16, 16), [900, 600, 300, 100])
    assert (found[0] - target).abs().max() < 0.02


@pytest.mark.parametrize("method", UNGUIDED, ids=name)
def test_with_oracle_blur_the_optimum_is_its_blurred_and_wrong_picture(method: Distillation, tmp_path) -> None:
    """At one t: x* blurred plus that view's error. The bias against x* is the prior's own, whatever the method."""
    save_mesh(ball(torch.rand(16, 16, 3, generator=generator(3, "texture"))), tmp_path / "ball.glb")
    prior = OraclePrior(
        mesh=tmp_path / "ball.glb", rasterizer=CpuMeshRasterizer(), image_size=16, blur_px=1.5, noise=0.1, seed=7
    )
    cameras, background = orbit([10.0], [40.0], 2.0, height=16), torch.ones(1, 3)
    sharp = prior.target(None, cameras, background)
    error = torch.randn(3, 16, 16, generator=generator(7, "error/10.00/40.00", 500))
    known = gaussian_blur(sharp, 1.5) + 0.1 * error
    condition = prior.condition(None, None, cameras, background)
    if name(method) == "sdi":  # its inversion asks at other timesteps, the answer counts at t alone
        method = replace(method, inversion_steps=3)
    found = descend(method, lambda z, t: prior.predict(z, t, condition), sharp.shape, [500])
    assert (found - known).abs().max() < 0.02
    assert 0.1 < (found - sharp).square().mean().sqrt() < 0.4


WITH, WITHOUT = (0.8, 0.1), (0.3, 0.4)  # mean and standard deviation of the data with and without the condition


def gauss(x_t, a, data: tuple[float, float]):
    """The exact noise prediction for normal data: sqrt(1 - a) (x_t - sqrt(a) m) / (a s^2 + 1 - a)."""
    return (1 - a) ** 0.5 * (x_t - a**0.5 * data[0]) / (a * data[1] ** 2 + 1 - a)


def normal(z_t: torch.Tensor, t: torch.Tensor) -> Prediction:
    a = ALPHA_BAR[t].reshape(-1, 1, 1, 1)
    return Prediction(gauss(z_t, a, WITH), gauss(z_t, a, WITHOUT))


def resting_point(method: Distillation, t: int) -> float:
    """Where the expected gradient vanishes for normal data: it is linear in x, and its noise averages out."""
    a, s = AB[t], method.guidance_scale
    v, v0 = (a * sd**2 + 1 - a for _, sd in (WITH, WITHOUT))
    (m, _), (m0, _) = WITH, WITHOUT
    if isinstance(method, CSD) or (isinstance(method, NFSD) and t >= 200):
        return (m / v - m0 / v0) / (1 / v - 1 / v0)
    if isinstance(method, (SDS, SJC, X0, NFSD, VSD)):  # VSD: with a perfect adapter
        return (s * m / v + (1 - s) * m0 / v0) / (s / v + (1 - s) / v0)
    return -inverted(method, t, 0.0) / (inverted(method, t, 1.0) - inverted(method, t, 0.0))


def inverted(method: Distillation, t: int, x: float) -> float:
    """The gradient of ISM or SDI, up to a factor, from the path of one number without the start's noise."""
    a, s = AB[t], method.guidance_scale
    ism = isinstance(method, ISM)
    path = [20, *(p for p in range(t - 1080, t - 80, 200) if p > 20), t - 80, t]
    path = path if ism else [round(20 + (t - 20) * k / 10) for k in range(11)]
    x_t = AB[20] ** 0.5 * x
    for now, after in pairwise(path):
        noise = gauss(x_t, AB[now], WITHOUT)
        if not ism:
            noise = (1 + s) * noise - s * gauss(x_t, AB[now], WITH)
        clean = (x_t - (1 - AB[now]) ** 0.5 * noise) / AB[now] ** 0.5
        x_t = AB[after] ** 0.5 * clean + (1 - AB[after]) ** 0.5 * noise
    eps_s = s * gauss(x_t, a, WITH) + (1 - s) * gauss(x_t, a, WITHOUT)
    return eps_s - noise if ism else x - (x_t - (1 - a) ** 0.5 * eps_s) / a**0.5


@pytest.mark.parametrize(
    ("method", "t"),
    [(SDS(), 300), (SDI(), 150), (CSD(), 100), (CSD(), 300), (NFSD(), 100), (NFSD(), 300), (ISM(), 150), (ISM(), 300)],
    ids=str,
)
def test_guided_methods_rest_where_their_formula_says(method: Distillation, t: int) -> None:
    """Data 0.8 +- 0.1 with the condition, 0.3 +- 0.4 without it."""
    found = descend(method, normal, (1, 1, 4, 4), [t], steps=400)
    assert found.mean().item() == pytest.approx(resting_point(method, t), abs=0.02)


def test_csd_of_point_masses_never_rests() -> None:
    """Both predictions move alike with x, so the difference only points from one point to the other."""

    def points(z_t: torch.Tensor, t: torch.Tensor) -> Prediction:
        a = ALPHA_BAR[t].reshape(-1, 1, 1, 1)
        return Prediction(*((z_t - a.sqrt() * x) / (1 - a).sqrt() for x in (0.8, 0.3)))

    eps, t = draw("eps", 1, 1, 2, 2), torch.tensor([500])
    near, far = (CSD(1, 1, **PLAIN).gradient(points, torch.full_like(eps, x), t, eps, ALPHA_BAR) for x in (0.8, 9.0))
    torch.testing.assert_close(near, far, atol=1e-5, rtol=0)
    torch.testing.assert_close(near, torch.full_like(near, -0.5 * (AB[500] / (1 - AB[500])) ** 0.5))


@pytest.mark.parametrize("method", [*UNGUIDED, *GUIDED], ids=name)
def test_the_noise_given_is_the_only_one(method: Distillation) -> None:
    given = draw("z", 2, 1, 4, 4), torch.tensor([300, 700]), draw("eps", 2, 1, 4, 4), ALPHA_BAR
    first = method.gradient(curved, *given)
    before = torch.get_rng_state()
    assert torch.equal(method.gradient(curved, *given), first)
    assert torch.equal(torch.get_rng_state(), before)
