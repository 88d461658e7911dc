"""What a prior leaves out on request: token merging against loops, guidance now and then, answers used again."""

from __future__ import annotations

import pytest
import torch

from dg.core.camera import orbit
from dg.core.diffusion import add_noise, per_sample
from dg.core.distill_particles import VSD
from dg.core.rng import generator
from dg.core.schedule import ConstantAnneal
from dg.priors.savings import Savings
from dg.priors.token_merging import MergedAttention, merge_tokens, merging
from dg.priors.zero123 import Zero123
from dg.stages.saved_answers import SavedAnswers
from dg.types import Prediction
from tests import tiny_checkpoints
from tests.stages.test_no_waiting import fit, stage

BLACK = torch.zeros(1, 3)


def noise(*shape: int, step: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, "test.savings", step))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75])
def test_merging_is_that_of_loops(share):
    side, width = 6, 5
    x, y = noise(2, side * side, width), noise(2, side * side, 3, step=1)
    merge, unmerge = merging(x, share)
    merged, gone = merge(y), int(share * side * side)
    assert merged.shape == (2, side * side - gone, 3)
    back = unmerge(merged)
    targets = [r * side + c for r in range(0, side, 2) for c in range(0, side, 2)]
    sources = [i for i in range(side * side) if i not in targets]
    for b in range(2):
        unit = x[b] / x[b].norm(dim=1, keepdim=True)
        best = {s: max(targets, key=lambda t: float(unit[s] @ unit[t])) for s in sources}
        alike = sorted(sources, key=lambda s: -float(unit[s] @ unit[best[s]]))[:gone]
        for t in targets:
            group = [t, *(s for s in alike if best[s] == t)]
            for i in group:
                torch.testing.assert_close(back[b, i], y[b, group].mean(0))
        for s in set(sources) - set(alike):
            assert torch.equal(back[b, s], y[b, s])


def test_attention_over_equal_tokens_does_not_notice():
    """Where the four tokens of each cell are one and the same, every key is there four times, or once."""
    cells = noise(1, 4, 4, 8)
    x = cells.repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(1, 64, 8)

    def attention(attn, hidden, *rest):
        return torch.nn.functional.scaled_dot_product_attention(hidden, hidden, hidden)

    expected = attention(None, x)
    torch.testing.assert_close(MergedAttention(attention, 0.75)(None, x), expected)
    odd = noise(1, 25, 8)
    assert torch.equal(MergedAttention(attention, 0.5)(None, odd), attention(None, odd))  # no square of an even side


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_checkpoints.zero123(tmp_path_factory.mktemp("checkpoint")))


def prior(folder, **changes) -> Zero123:
    return Zero123(checkpoint=folder, image_size=64, **changes)


def test_only_the_largest_self_attentions_are_merged(folder):
    unet = prior(folder, token_merging=0.5).unet
    merged = [n for n, p in unet.attn_processors.items() if isinstance(p, MergedAttention)]
    assert merged and all(".attn1." in n and n.startswith(("down_blocks.0.", "up_blocks.")) for n in merged)
    z, told = noise(1, 8, 8, 8), noise(1, 1, 24)
    answers = [p.unet(z, 500, told).sample for p in (prior(folder), prior(folder, token_merging=0.5))]
    assert answers[0].shape == answers[1].shape and not torch.equal(*answers)
    with pytest.raises(ValueError, match=r"token_merging=0\.8"):
        merge_tokens(unet, 0.8)


def test_which_steps_are_guided():
    assert [Savings(guidance_every=3).guided(step, 500, 1000) for step in range(1, 8)] == [True, False, False] * 2 + [
        True
    ]
    above = Savings(guidance_above=0.4)
    assert above.guided(5, 400, 1000) and not above.guided(5, 399, 1000)
    for bad in ({"guidance_every": 0}, {"reuse": -1}, {"guidance_above": 1.1}, {"reuse_deg": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Savings(**bad)


def told(given, view):
    return given.condition(stage_reference(), None, view, torch.ones(1, 3))


def stage_reference():
    from tests.stages.test_no_waiting import reference

    return reference()


def test_the_half_answer_is_the_whole_ones_conditional_half(folder):
    given = prior(folder)
    condition, z, t = told(given, orbit(-10, 40, height=32)), noise(1, 4, 8, 8), torch.tensor([300])
    half, whole = given.predict_conditional(z, t, condition), given.predict(z, t, condition)
    assert half.uncond is None and whole.uncond is not None
    torch.testing.assert_close(half.cond, whole.cond, atol=1e-5, rtol=1e-4)


class Counting:
    """A prior that sees a picture of its own in every question."""

    alpha_bar = torch.linspace(0.999, 0.01, 1000)

    def __init__(self, **savings):
        self.savings, self.asked = Savings(**savings), 0

    def predict(self, z_t, t, condition):
        self.asked += 1
        return Prediction(noise(*z_t.shape, step=self.asked), noise(*z_t.shape, step=-self.asked))

    def predict_conditional(self, z_t, t, condition):
        return Prediction(self.predict(z_t, t, condition).cond)


def test_an_answer_serves_near_views_so_many_times():
    given, saved, t = Counting(reuse=2, reuse_deg=20), SavedAnswers(), torch.tensor([510])
    x, eps = noise(1, 4, 8, 8, step=7), noise(1, 4, 8, 8, step=8)
    a = per_sample(given.alpha_bar[t], x)
    z_t = add_noise(x, eps, a)

    def ask(azimuth, number=510, elevation=-5.0, white=0.0):
        saved.look(orbit(elevation, azimuth, height=8), BLACK + white)
        return saved.predict("", given, None, 1, number)(z_t, t)

    first = ask(41)
    again, other_noise = ask(59), None
    torch.testing.assert_close(again.cond, first.cond, atol=1e-4, rtol=1e-4)  # same noise: the same prediction
    torch.testing.assert_close(again.uncond, first.uncond, atol=1e-4, rtol=1e-4)
    assert given.asked == 1
    saved.look(orbit(-5.0, 45, height=8), BLACK)
    later, steps = torch.tensor([540]), noise(1, 4, 8, 8, step=9)
    b = per_sample(given.alpha_bar[later], x)
    other_noise = saved.predict("", given, None, 2, 540)(add_noise(x, steps, b), later)
    picture = (z_t - (1 - a).sqrt() * first.cond) / a.sqrt()
    torch.testing.assert_close(other_noise.cond, (add_noise(x, steps, b) - b.sqrt() * picture) / (1 - b).sqrt())
    assert given.asked == 1
    ask(45)
    assert given.asked == 2  # used up
    for far in ({"azimuth": 61}, {"azimuth": 45, "number": 610}, {"azimuth": 45, "elevation": 5.0}):
        before = given.asked
        ask(**far)
        assert given.asked == before + 1, far
    ask(45, white=1.0)
    assert given.asked == 6
    kept = SavedAnswers()
    kept.load(saved.state(), "cpu")
    kept.look(orbit(-5.0, 45, height=8), BLACK)
    kept.predict("", given, None, 1, 510)(z_t, t)
    assert given.asked == 6


def test_predictions_within_a_step_have_answers_of_their_own():
    given, saved, z, t = Counting(reuse=1), SavedAnswers(), noise(1, 4, 8, 8), torch.tensor([500])
    for _ in range(2):
        saved.look(orbit(0, 0, height=8), BLACK)
        predict = saved.predict("", given, None, 1, 500)
        first, second = predict(z, t), predict(z, t)
        assert not torch.equal(first.cond, second.cond)
    assert given.asked == 2


def batches(folder, iters=6, **savings) -> list[int]:
    """Sizes of the UNet's batches in a run; with answers used again, at one timestep."""
    changes = {"anneal": ConstantAnneal()} if "reuse" in savings else {}
    given, seen = prior(folder, **savings), []
    original = given.unet.forward

    def forward(sample, *args, **kwargs):
        seen.append(len(sample))
        return original(sample, *args, **kwargs)

    given.unet.forward = forward
    fit(stage(folder, prior=given, iters=iters, **changes), iters)
    return seen


def test_a_run_asks_for_less(folder):
    assert batches(folder) == [2] * 6
    assert batches(folder, guidance_every=3) == [2, 1, 1] * 2
    assert batches(folder, guidance_above=0.5) == [2, 2, 2, 1, 1, 1]
    assert len(batches(folder, reuse=4, reuse_deg=180.0)) < 6


def test_vsd_needs_all_answers(folder):
    with pytest.raises(ValueError, match=r"distill=vsd .*prior\.reuse"):
        stage(folder, prior=prior(folder, reuse=1), distill=VSD())


def test_a_run_that_goes_on_finds_its_answers(folder):
    module = stage(folder, prior=prior(folder, reuse=4, reuse_deg=180.0), iters=3)
    fit(module, 3)
    checkpoint = {"state_dict": {f"params.{k}": v for k, v in module.raw().as_dict().items()}}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["saved_answers"]["kept"]
    again = stage(folder, prior=prior(folder, reuse=4, reuse_deg=180.0), iters=3)
    again.on_load_checkpoint(checkpoint)
    assert again.score.saved.state()["kept"].keys() == checkpoint["saved_answers"]["kept"].keys()
