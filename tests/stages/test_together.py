"""Objects that share a prior come out as they would alone, and one that fails takes no other with it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from dg.core.camera import orbit
from dg.core.distill import SDS
from dg.core.gaussians import RawGaussians, ball
from dg.core.rng import generator
from dg.core.schedule import ResolutionRamp
from dg.losses.refine import SDEditMSE
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.cut import encoded
from dg.priors.mini_net import MiniConfig, MiniNet
from dg.priors.shared import SharedPrior, can_be_shared
from dg.priors.zero123 import Zero123
from dg.priors.zero123_mini import Zero123Mini, save
from dg.runtime import lanes
from dg.runtime.evaluation.runs import RunMethod
from dg.runtime.shelf import PriorShelf, SharedShelf
from dg.stages.gaussians import steps
from dg.stages.texture import RefineOptions, TextureStage
from dg.stages.views import OrbitSampler
from dg.types import Reference
from tests import shapes, tiny_checkpoints
from tests.stages.test_gaussians import make, trainer

ITERS = 10


@pytest.fixture(scope="module", params=["zero123_mini", "zero123"])
def prior(request, tmp_path_factory):
    """With random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "zero123":
        return Zero123(checkpoint=str(tiny_checkpoints.zero123(folder)), image_size=64)
    net = MiniNet(MiniConfig(image_size=32, width=32, depth=2, heads=1, modulation=16))
    for n, parameter in enumerate(net.parameters()):  # many begin as zeros
        torch.nn.init.normal_(parameter, std=0.2, generator=generator(n, "weights"))
    save(net, folder / "weights.safetensors")
    return Zero123Mini(folder / "weights.safetensors", unconditional=True)


@cache
def picture(number: int, views: int = 1) -> Reference:
    """A disc of its own size and colour, seen from the front and perhaps from behind."""
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    inside = ((x - 32) ** 2 + (y - 28 - 2 * number) ** 2 < (12 + 3 * number) ** 2).float()
    rgba = torch.stack([inside * number / 3, inside * (x < 32), inside * 0.4, inside], -1)
    cameras = orbit([-10.0 * number] * views, [180.0 * i for i in range(views)], 2.0, height=64)
    return Reference(rgba[None].expand(views, -1, -1, -1), cameras)


def initial(number: int) -> RawGaussians:
    """No round Gaussians: where a rotation changes nothing, its gradient is mere rounding, and Adam enlarges that."""
    raw = ball(generator(number, "init"), num_points=200 + 10 * number, radius=0.4)
    stretch = torch.rand(len(raw), 3, generator=generator(number, "stretch"))
    return replace(raw, log_scales=raw.log_scales - stretch)


def optimised(prior, number: int, views: int = 1):
    stage = make(
        picture(number, views),
        iters=ITERS,
        prior=prior,
        raw=initial(number),
        distill=SDS(guidance_scale=3.0),
        resolution=ResolutionRamp(sizes=(32, 64), boundaries=(0.5,), reference=32),
        seed=number,
    )
    trainer().fit(stage, steps(ITERS))
    return stage.raw().as_dict()


def together(prior, works, pad=False):
    """The works' results; each is called with what it sees of the prior."""
    found = {}

    def piece(number, work):
        def run():
            found[number] = work(SharedPrior(prior, lanes.at_once, pad))

        return run

    failures = lanes.run([piece(n, work) for n, work in enumerate(works)])
    return [found.get(n) if failure is None else failure for n, failure in enumerate(failures)]


@pytest.mark.parametrize("pad", [False, True])
def test_gaussians_come_out_as_they_would_alone(prior, pad, monkeypatch):
    assert can_be_shared(prior)
    views = (1, 1, 2)
    alone = [optimised(prior, n, v) for n, v in enumerate(views)]
    sizes, plain = [], prior.predict
    monkeypatch.setattr(prior, "predict", lambda z, t, cond: sizes.append(len(z)) or plain(z, t, cond))
    shared = together(prior, [lambda p, n=n, v=v: optimised(p, n, v) for n, v in enumerate(views)], pad)
    assert sizes == [4 if pad else 3] * ITERS
    for expected, got in zip(alone, shared, strict=True):
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=0, atol=3e-4)
    assert len(alone[0]["means"]) != len(initial(0))  # it was densified


def test_one_that_fails_takes_no_other_with_it(prior):
    def fails(p):
        asked = []

        def condition(*args):
            asked.append(args)
            if len(asked) == 3:  # after it has been encoded with the others
                raise ValueError("broken picture")
            return p.__getattr__("condition")(*args)

        p.condition = condition
        return optimised(p, 1)

    alone = optimised(prior, 0)
    first, second = together(prior, [lambda p: optimised(p, 0), fails])
    assert "broken picture" in str(second)
    for name in alone:
        torch.testing.assert_close(first[name], alone[name], rtol=0, atol=3e-4)


def textured(prior, number: int):
    mesh = shapes.ball(torch.rand(32, 32, 3, generator=generator(number, "texture")), 0.4 + 0.1 * number, 10)
    stage = TextureStage(
        mesh=mesh,
        reference=picture(number),
        prompt=None,
        prior=prior,
        mesh_raster=CpuMeshRasterizer(),
        camera=OrbitSampler(),
        options=RefineOptions(loss=SDEditMSE(num_steps=8, t_start_ratio=0.7), size=64, reference_size=32),
        iters=3,
        seed=number,
    )
    trainer().fit(stage, steps(3))
    return stage.mesh().texture


def test_textures_come_out_as_they_would_alone(prior):
    alone = [textured(prior, n) for n in range(2)]
    shared = together(prior, [lambda p, n=n: textured(p, n) for n in range(2)])
    for expected, got in zip(alone, shared, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=3e-4)
    assert (alone[0] - alone[1]).abs().max() > 0.1


class _Forgetful(torch.autograd.Function):
    """Of a network that knows its last forward pass alone, as a CUDA graph does."""

    @staticmethod
    def forward(ctx, x, runs):
        runs.append(len(x))
        ctx.run, ctx.runs, ctx.size = len(runs), runs, x.shape[-1]
        return torch.nn.functional.adaptive_avg_pool2d(x, 4)

    @staticmethod
    def backward(ctx, gradient):
        if ctx.run != len(ctx.runs):
            raise RuntimeError("run again before the backward pass")
        scale = ctx.size // 4
        return gradient.repeat_interleave(scale, 2).repeat_interleave(scale, 3) / scale**2, None


@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 16, 8)])
def test_a_network_that_forgets_gives_the_same_gradients(sizes):
    runs = []
    prior = SimpleNamespace(encode=lambda rgb: _Forgetful.apply(rgb, runs))
    pictures = [torch.rand(1, 3, size, size, generator=generator(n, "rgb")) for n, size in enumerate(sizes)]

    def work(p, n):
        rgb = pictures[n].clone().requires_grad_()
        z, on_rgb = encoded(p, rgb)
        on_rgb((z.square() * (n + 1)).sum()).backward()
        return rgb.grad

    expected = [work(prior, n) for n in range(3)]
    runs.clear()
    got = together(prior, [lambda p, n=n: work(p, n) for n in range(3)])
    torch.testing.assert_close(got, expected)
    assert runs[0] == (3 if sizes[1] == 8 else 2)


def test_what_trains_a_part_of_its_own_is_not_shared():
    shelf, shelves = PriorShelf(), []
    method = SimpleNamespace(shelf=shelf)

    def ask(target):
        return lambda: shelves.append(RunMethod._shelf_of(method, {"distill": {"_target_": target}}))

    ask("dg.core.distill.SDS")()  # no lane: nothing to share
    lanes.run([ask("dg.core.distill.SDS"), ask("dg.core.distill_particles.VSD")])
    assert shelves[0] is shelf and isinstance(shelves[1], SharedShelf) and shelves[2] is shelf
    assert not can_be_shared(SimpleNamespace())
