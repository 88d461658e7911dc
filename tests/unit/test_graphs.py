"""`dg.priors.graphs`: what a recording hands out, with a tape that works on a CPU and with real CUDA graphs (gpu)."""

from __future__ import annotations

import logging

import pytest
import torch

from dg.core.camera import orbit
from dg.core.rng import generator
from dg.core.transfer import constant, upload, upload_cameras
from dg.priors.graphs import KEPT, Replayed, accelerated, checked_mode
from dg.priors.one_token import OneTokenAttention
from dg.priors.zero123 import Zero123
from dg.types import Reference
from tests import tiny_checkpoints

CPU = torch.device("cpu")


class MemoryTape:
    """As a CUDA graph: a replay writes to the memory that the recording wrote to, and to no other."""

    def __init__(self, pool=None):
        self.pool = "a pool"

    def record(self, work):
        self.work, self.owner = work, work.__self__
        work()
        name = "output" if work.__name__ == "_run" else "gradient_in"
        self.name, self.memory = name, getattr(self.owner, name).data

    def replay(self):
        with torch.enable_grad():
            self.work()
        self.memory.copy_(getattr(self.owner, self.name).data)
        getattr(self.owner, self.name).data = self.memory


def noise(*shape: int, step: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, "test", step))


def curve(x, scale):
    return (x * scale).tanh().cumsum(-1)


def test_replays_equal_the_function_and_its_gradient():
    calls = []

    def counted(x, scale):
        calls.append(x)
        return curve(x, scale)

    replayed, scale = Replayed(counted, "curve", MemoryTape), noise(4)
    for step in range(5):
        x, pull = noise(3, 4, step=step).requires_grad_(), noise(3, 4, step=50 + step)
        (replayed(x, scale) * pull).sum().backward()
        mine, x.grad = x.grad, None
        (curve(x, scale) * pull).sum().backward()
        assert torch.equal(mine, x.grad), step
    assert len(replayed.recordings) == 1
    assert not any(c is x for c in calls[1:]), "after the first call it runs on its own memory"


def test_what_it_hands_out_is_never_overwritten():
    replayed = Replayed(curve, "curve", MemoryTape)
    inputs = [(noise(2, 3, step=s), noise(3, step=90 + s)) for s in range(6)]
    outputs = [replayed(*each) for each in inputs]
    for out, each in zip(outputs, inputs, strict=True):
        assert torch.equal(out, curve(*each))


def test_shapes_and_gradients_have_recordings_of_their_own_and_only_a_few_are_kept():
    replayed = Replayed(curve, "curve", MemoryTape)
    for n in range(1, KEPT + 4):
        for step in range(3):
            x = noise(n, 3, step=step)
            assert torch.equal(replayed(x, torch.ones(3)), curve(x, torch.ones(3)))
    assert len(replayed.recordings) == KEPT and all(replayed.recordings.values())
    small = Replayed(curve, "curve", MemoryTape)
    for wants in (True, False) * 3:
        small(noise(2, 3).requires_grad_(wants), torch.ones(3))
    assert len(small.recordings) == 2
    with torch.no_grad():
        assert not small(noise(2, 3).requires_grad_(), torch.ones(3)).requires_grad


def test_a_backward_pass_after_another_forward_pass_is_refused():
    replayed = Replayed(curve, "curve", MemoryTape)
    x = noise(2, 3).requires_grad_()
    replayed(x, torch.ones(3))
    late = replayed(x, torch.ones(3))
    replayed(x, torch.ones(3))
    with pytest.raises(RuntimeError, match="run again before"):
        late.sum().backward()
    twice = replayed(x, torch.ones(3))
    twice.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="has done, the backward pass"):
        twice.sum().backward()


def test_where_recording_fails_it_runs_eagerly_with_one_warning(caplog):
    class Broken:
        def record(self, work):
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    replayed = Replayed(curve, "somebody's UNet", Broken)
    with caplog.at_level(logging.WARNING, "dg"):
        for step in range(4):
            x = noise(2, 3, step=step)
            assert torch.equal(replayed(x, torch.ones(3)), curve(x, torch.ones(3)))
    (said,) = caplog.messages
    assert "somebody's UNet" in said and "runs eagerly" in said and "\n" not in said


def test_modes(caplog):
    assert checked_mode("auto", CPU) == "none" and checked_mode("auto", torch.device("cuda")) == "graph"
    assert checked_mode("none", torch.device("cuda")) == "none" and checked_mode("full", CPU) == "full"
    with caplog.at_level(logging.WARNING, "dg"):
        assert checked_mode("graph", CPU) == "none"
    assert "needs a CUDA device" in caplog.text
    with pytest.raises(ValueError, match=r"prior\.compile=fast is not one of auto, graph, full, none"):
        checked_mode("fast", CPU)
    assert accelerated(curve, "none", CPU, "curve") is curve


def test_attention_to_one_token_equals_diffusers_own():
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    torch.manual_seed(0)
    pixels = noise(2, 9, 16)
    for width, context in ((12, noise(2, 1, 12)), (12, noise(2, 5, 12)), (16, None)):
        attention = Attention(16, cross_attention_dim=width, heads=4, dim_head=4).eval()
        attention.set_processor(AttnProcessor2_0())
        expected = attention(pixels, encoder_hidden_states=context)
        attention.set_processor(OneTokenAttention(AttnProcessor2_0()))
        torch.testing.assert_close(attention(pixels, encoder_hidden_states=context), expected, atol=1e-6, rtol=1e-5)


def test_uploads_are_the_values_themselves():
    x = noise(3)
    assert upload(x, "cpu") is x
    cameras = upload_cameras(orbit(0, 0, 2.0, height=8), "cpu")
    assert cameras.height == 8
    first = constant((3, 4), x)
    assert first.tolist() == [3, 4] and first.dtype == x.dtype and constant((3, 4), x) is first


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoints.zero123(tmp_path_factory.mktemp("checkpoint"))


def _steps(prior: Zero123, count: int, device: str):
    """Gradients on the picture and predictions of some steps."""
    rgba = torch.rand(1, 64, 64, 4, generator=generator(0, "rgba"))
    reference = Reference(rgba, orbit(-10, 0, 2.0, height=64))
    for step in range(count):
        rgb = torch.rand(1, 3, 64, 64, generator=generator(0, "rgb", step)).to(device).requires_grad_()
        z = prior.encode(rgb)
        cameras = upload_cameras(orbit([-20 + step], [30 * step], 2.0, height=64), device)
        condition = prior.condition(reference, None, cameras, torch.ones(1, 3, device=device))
        said = prior.predict(z.detach(), torch.full((1,), 500 - step, device=device), condition)
        z.backward(said.cond - said.uncond)
        yield rgb.grad, said.cond, said.uncond, prior.decode(z.detach())


def test_a_replayed_prior_is_the_eager_one(folder, monkeypatch):
    eager, replayed = Zero123(checkpoint=str(folder), image_size=64), Zero123(checkpoint=str(folder), image_size=64)
    monkeypatch.setattr(replayed, "accelerated", lambda function, name: Replayed(function, name, MemoryTape))
    for ours, theirs in zip(_steps(replayed, 4, "cpu"), _steps(eager, 4, "cpu"), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
    assert len(replayed._denoiser.recordings) == len(replayed._encoder.recordings) == 1


@pytest.mark.gpu
def test_cuda_graphs_equal_eager_networks(folder, caplog):
    make = lambda mode: Zero123(checkpoint=str(folder), image_size=64, device="cuda", dtype="float32", compile=mode)  # noqa: E731
    eager, graphed = make("none"), make("graph")
    with caplog.at_level(logging.WARNING, "dg"):
        pairs = list(zip(_steps(graphed, 6, "cuda"), _steps(eager, 6, "cuda"), strict=True))
    assert not caplog.messages, "recording failed"
    assert all(graphed._denoiser.recordings.values()) and all(graphed._encoder.recordings.values())
    for ours, theirs in pairs:
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("kind", ["zero123", "sd", "mvdream", "imagedream"])
def test_no_prior_reads_a_tensor_once_it_has_been_told(kind, tmp_path):
    """What a step asks of a prior, after the first one: prompts, references and constants are kept."""
    from dg.priors.imagedream import ImageDream
    from dg.priors.mvdream import MVDream
    from dg.priors.stable_diffusion import StableDiffusion
    from tests.sync_count import Reads

    make = {"zero123": Zero123, "sd": StableDiffusion, "mvdream": MVDream, "imagedream": ImageDream}[kind]
    prior = make(checkpoint=str(tiny_checkpoints.WRITERS[kind](tmp_path)), image_size=64)
    reference = Reference(torch.rand(1, 64, 64, 4, generator=generator(0, "rgba")), orbit(0, 0, 2.0, height=64))
    prompt = None if kind == "zero123" else "a cat"
    count = prior.views_per_sample
    cameras = orbit([-20.0] * count, [360 / count * i for i in range(count)], 2.0, height=64)

    def step():
        z = prior.encode(torch.rand(count, 3, 64, 64, generator=generator(0, "rgb")).requires_grad_())
        told = prior.condition(reference, prompt, cameras, torch.ones(count, 3))
        prior.predict(z.detach(), torch.full((count,), 500), told)
        z.sum().backward()

    step()
    with Reads(["prompts:tokens", "imagedream:condition"]) as reads:  # the reference's angle is read on the CPU
        step()
    assert not reads.found
