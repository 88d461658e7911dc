"""Group norms in channels-last order: the kernels against float64, their launching, their benchmark."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import _checkpoints
from benchmarks import group_norm as benchmark
from dg.core.rng import generator
from dg.priors.graphs import Replayed
from dg.priors.group_norm import GroupNorm, group_norm, kernels_work
from dg.priors.norm_launch import RULE, Rule, plan
from tests.interpreted_norms import CASES

ROOT = Path(__file__).parents[2]
ACCURACY = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
CUDA = torch.device("cuda")


def noise(label: str, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, label))


def in_order(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict]:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    command = [sys.executable, "-m", "tests.interpreted_norms"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if "only 0-dimensional arrays" in done.stderr:
        pytest.skip("this Triton's interpreter does not know this NumPy")
    assert done.returncode == 0, done.stderr[-2000:]
    return {line["name"]: line for line in json.loads(done.stdout)}


@pytest.mark.parametrize("name", CASES)
def test_kernels_against_float64(interpreted, name):
    dtype, mean = CASES[name][4:]
    found = interpreted[name]
    # float32 holds a mean of 3000 to 1e-4; squares about zero instead of about the mean would be wrong by a tenth
    allowed = 1e-4 if mean else ACCURACY[dtype]
    assert found["value"] < allowed and found["gradient"] < allowed
    assert found["shift"] < 1e-5  # a sum over pixels that nearly cancels: the norm undoes a shift of a whole group
    assert found["channels_last"]
    assert found["whole"] == name.startswith("whole") and (found["whole"] or found["tiles"] > 1)


@pytest.mark.parametrize(
    "rule", [RULE, Rule(whole_up_to=0), Rule(whole_up_to=0, programs=7), Rule(rows=16, columns=32)]
)
def test_a_plan_covers_every_pixel_and_leaves_no_tile_empty(rule):
    for samples in (1, 2, 16):
        for pixels in (1, 16, 63, 1024, 1025, 65536, 262144):
            for channels in (32, 128, 320, 960, 2560):
                how = plan(samples, pixels, channels, 32, rule)
                assert how.tiles * how.tile_pixels >= pixels > (how.tiles - 1) * how.tile_pixels
                assert how.columns & (how.columns - 1) == how.rows & (how.rows - 1) == 0
                assert how.whole == (pixels * channels // 32 <= rule.whole_up_to)
                if how.whole:
                    assert channels // 32 <= how.columns < 2 * channels // 32 or how.columns == 1
                else:
                    assert how.tile_pixels % how.rows == 0


@pytest.mark.parametrize("silu", [True, False])
def test_where_the_kernels_cannot_be_used_torch_is(silu):
    weight, bias = noise("weight", 8), noise("bias", 8).requires_grad_()
    for x in (noise("x", 2, 8, 3, 5), noise("x", 2, 8, 7), noise("x", 2, 8)):
        found = group_norm(x, 4, weight, bias, 1e-5, silu=silu)
        true = F.group_norm(x, 4, weight, bias, 1e-5)
        assert torch.equal(found, F.silu(true) if silu else true) and found.requires_grad
        for shift in (noise("shift", 2, 8), noise("shift", 8)):
            found = group_norm(x, 4, weight, bias, 1e-5, silu=silu, shift=shift)
            moved = x + shift.expand(2, 8).reshape(2, 8, *(1,) * (x.ndim - 2))
            assert torch.equal(found, group_norm(moved, 4, weight, bias, 1e-5, silu=silu))


def test_pictures_beyond_32_bit_addresses_are_for_torch(monkeypatch):
    monkeypatch.setattr(GroupNorm, "apply", lambda x, *_: None)
    with FakeTensorMode():
        weight = torch.ones(32, device="cuda")
        for side, ours in ((4096, True), (8192, False)):
            x = torch.empty(2, 32, side, side // 2, device="cuda")
            assert (x.numel() < 2**31) == ours
            assert (group_norm(x, 4, weight, weight, 1e-5, silu=True) is None) == ours


def test_where_triton_fails_one_warning_says_so(monkeypatch, caplog):
    assert not kernels_work(torch.device("cpu"))
    fails = lambda *args, **kwargs: (_ for _ in ()).throw(RuntimeError("no C compiler"))  # noqa: E731
    monkeypatch.setattr("dg.priors.group_norm.find_spec", lambda name: True)
    monkeypatch.setattr("dg.priors.group_norm.torch.zeros", fails)
    kernels_work.cache_clear()
    with caplog.at_level(logging.WARNING, "dg"):
        assert not kernels_work(CUDA) and not kernels_work(CUDA)
    kernels_work.cache_clear()
    (said,) = caplog.messages
    assert "group norms stay torch's" in said and "no C compiler" in said


def test_the_benchmark_weighs_sizes_as_the_networks_have_them():
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**_checkpoints.UNET), AutoencoderKL(**_checkpoints.VAE)
        z, t, context = torch.empty(2, 8, 32, 32), torch.empty(2), torch.empty(2, 1, 768)
        picture, latent = torch.empty(1, 3, 256, 256), torch.empty(1, 4, 32, 32)
    calls = {
        "unet": (unet, lambda: unet(z, t, encoder_hidden_states=context)),
        "encoder": (vae, lambda: vae.encode(picture)),
        "decoder": (vae, lambda: vae.decode(latent)),
    }
    for part, (network, call) in calls.items():
        seen = Counter()

        def note(module, inputs, output, seen=seen):
            samples, channels, *pixels = inputs[0].shape
            seen[samples, round(math.prod(pixels) ** 0.5), channels] += 1

        hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, nn.GroupNorm)]
        with torch.no_grad():
            call()
        for hook in hooks:
            hook.remove()
        told = {(c.samples, c.side, c.channels): getattr(c, part) for c in benchmark.CASES if getattr(c, part)}
        assert seen == told, part


def test_the_benchmark_at_a_tiny_size(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    benchmark.main(["--tiny"])
    assert capsys.readouterr().out.count("encoder both ways") == 2


REAL = [  # samples, channels, height, width
    *((2, 320, 32, 32), (2, 640, 16, 16), (2, 960, 32, 32), (2, 1280, 8, 8), (2, 1920, 16, 16), (2, 2560, 4, 4)),
    *((8, 320, 64, 64), (1, 128, 256, 256), (1, 512, 64, 64), (1, 256, 40, 72), (1, 128, 512, 512), (1, 512, 32, 32)),
]
FEW = [(2, 320, 32, 32), (1, 256, 40, 72)]


def _errors(function, x, weight, bias, slope, true) -> list[float]:
    """Of value and gradient against float64: root mean square, relative to the true one."""
    x = x.detach().requires_grad_()
    value = function(x, weight, bias)
    found = value.detach(), torch.autograd.grad(value, x, slope)[0]
    return [float((f.double() - t).norm() / t.norm()) for f, t in zip(found, true, strict=True)]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(s, torch.float16) for s in REAL] + [(s, d) for s in FEW for d in (torch.bfloat16, torch.float32)],
    ids=str,
)
def test_on_a_gpu_the_kernels_are_as_exact_as_torch(shape, dtype):
    torch.manual_seed(0)
    draw = lambda *size: torch.randn(*size, device=CUDA).to(dtype)  # noqa: E731
    x, slope = (draw(*shape).to(memory_format=torch.channels_last) for _ in range(2))
    x = x * 2 + 1
    weight, bias = 1 + 0.3 * draw(shape[1]), draw(shape[1])
    theirs = lambda x, w, b: F.silu(F.group_norm(x, 32, w, b, 1e-6))  # noqa: E731
    exact = x.double().requires_grad_()
    value = theirs(exact, weight.double(), bias.double())
    true = value.detach(), torch.autograd.grad(value, exact, slope.double())[0]
    for rule in (RULE, Rule(whole_up_to=0), Rule(whole_up_to=1 << 30)):
        ours = lambda x, w, b, rule=rule: GroupNorm.apply(x, None, w, b, 32, 1e-6, True, rule)  # noqa: E731
        mine = _errors(ours, x, weight, bias, slope, true)
        torchs = _errors(theirs, x, weight, bias, slope, true)
        for a, b in zip(mine, torchs, strict=True):
            assert a <= 1.5 * b + 1e-6, (rule, mine, torchs)
        assert torch.equal(ours(x, weight, bias), ours(x, weight, bias)), "the same input, the same bits"
        assert in_order(ours(x, weight, bias))


@pytest.mark.gpu
def test_on_a_gpu_a_recording_equals_eager_calls(caplog):
    weight, bias = (noise(label, 64).to(CUDA, torch.float16) for label in ("weight", "bias"))
    chain = lambda x: group_norm(group_norm(x, 32, weight, bias, 1e-6, silu=True), 32, weight, bias, 1e-6, silu=False)  # noqa: E731
    for side in (16, 192):  # whole and split
        replayed = Replayed(chain, "norms")
        with caplog.at_level(logging.WARNING, "dg"):
            for step in range(4):
                x = noise(f"x{step}", 2, 64, side, side).to(CUDA, torch.float16).requires_grad_()
                slope = noise(f"slope{step}", *x.shape).to(x)
                ours, theirs = replayed(x), chain(x)
                assert torch.equal(ours, theirs)
                assert torch.equal(torch.autograd.grad(ours, x, slope)[0], torch.autograd.grad(theirs, x, slope)[0])
        assert not caplog.messages and all(replayed.recordings.values())
