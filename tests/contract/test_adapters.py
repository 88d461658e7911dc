"""What every adapter promises (`dg.priors.protocol.Adapter`), and what the low-rank one is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dg.core.diffusion import add_noise, per_sample
from dg.core.distill_particles import VSD, no_adapter
from dg.core.rng import generator
from dg.priors.adapter import LowRankAdapter, attention_layers
from dg.priors.offset import view_basis
from dg.stages.own_score import OwnScore
from tests.contract.test_priors import batch, prior, reference, steps, words  # noqa: F401 - fixtures


@pytest.fixture
def asked(prior, reference):  # noqa: F811
    """(prior, adapter, z, condition), or a skip for a prior that does not learn."""
    if not hasattr(prior, "trainable_adapter"):
        pytest.skip("offers no adapter")
    cameras, background, rgb = batch(prior)
    cond = prior.condition(reference, words(prior), cameras, background)
    return prior, prior.trainable_adapter(generator(0, "adapter"), 2), prior.encode(rgb).detach(), cond


def test_it_starts_as_the_prior(asked) -> None:
    prior, adapter, z, cond = asked  # noqa: F811
    if getattr(prior, "noise", 0):
        pytest.skip("the known error is the prior's, not the picture's")
    t = steps(prior, 300, 600)
    with torch.no_grad():
        own = adapter.predict(z, t, cond)
    torch.testing.assert_close(own, prior.predict(z, t, cond).cond, atol=1e-4, rtol=1e-4)


def test_it_learns_and_the_prior_stays_as_it_was(asked) -> None:
    prior, adapter, z, cond = asked  # noqa: F811
    t = steps(prior, 300, 600)
    before = prior.predict(z, t, cond).cond
    eps = torch.randn(z.shape, generator=generator(0, "noise"))
    z_t = add_noise(z, eps, per_sample(prior.alpha_bar[t], z))
    hurry = 10 if isinstance(adapter, LowRankAdapter) else 0.2  # five steps must be enough, and not too much
    optimizer, errors = torch.optim.Adam(adapter.parameters(), lr=hurry * adapter.lr), []
    for _ in range(5):
        miss = (adapter.predict(z_t, t, cond) - eps).square().mean()
        optimizer.zero_grad()
        miss.backward()
        optimizer.step()
        errors.append(miss.item())
    assert errors[-1] < errors[0]
    assert torch.equal(prior.predict(z, t, cond).cond, before)
    nets = [x for x in (getattr(prior, name, None) for name in ("net", "unet")) if x is not None]
    assert not any(m._forward_hooks for net in nets for m in net.modules())
    assert all(p.grad is None and not p.requires_grad for net in nets for p in net.parameters())


def test_its_state_is_all_there_is(asked) -> None:
    """Two steps, or one and another by an own score that was told the state in between: the same bits."""
    prior, _, z, cond = asked  # noqa: F811
    t, settings = steps(prior, 300, 600), VSD(adapter_rank=2)

    def answer(own: OwnScore, *numbers: int) -> torch.Tensor:
        for step in numbers:
            predict = own.beside("", prior, z, cond)
            own.learn(step)
        return predict(z, t).own

    whole, half, rest = (OwnScore(settings, seed=3) for _ in range(3))
    expected, first = answer(whole, 1, 2), answer(half, 1)
    rest.load(half.state())
    assert not torch.equal(first, expected)
    assert torch.equal(answer(rest, 2), expected)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.other = nn.Linear(4, 6), nn.Linear(6, 3)
        self.requires_grad_(False)

    def forward(self, x):
        return self.other(torch.tanh(self.to_q(x)))


def test_low_rank_is_another_weight() -> None:
    """W x + B A x against a layer whose weight is W + B A, also in half precision."""
    net, x = Toy(), torch.randn(5, 4)
    adapter = LowRankAdapter(net, lambda z_t, t, cond: net(z_t), generator(0, "a"), rank=2)
    assert list(attention_layers(net)) == ["to_q"] and sum(p.numel() for p in adapter.parameters()) == 2 * 4 + 2 * 6
    nn.init.normal_(adapter.up[0])
    merged = Toy()
    merged.load_state_dict(net.state_dict())
    merged.to_q.weight += adapter.up[0].detach() @ adapter.down[0].detach()
    torch.testing.assert_close(adapter.predict(x, None, None), merged(x))
    assert not torch.allclose(net(x), merged(x))
    net.to(torch.bfloat16)
    out = adapter.predict(x.bfloat16(), None, None)
    assert out.dtype == torch.bfloat16 and (out - merged(x)).abs().max() < 0.1


def test_low_rank_against_peft() -> None:
    peft = pytest.importorskip("peft", reason="pip install peft: the reference implementation of LoRA")
    net, x = Toy(), torch.randn(5, 4)
    adapter = LowRankAdapter(net, lambda z_t, t, cond: net(z_t), generator(0, "a"), rank=2)
    nn.init.normal_(adapter.up[0])
    ours = adapter.predict(x, None, None)
    ours.sum().backward()
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"])
    theirs = peft.inject_adapter_in_model(config, net)
    with torch.no_grad():
        theirs.to_q.lora_A["default"].weight.copy_(adapter.down[0])
        theirs.to_q.lora_B["default"].weight.copy_(adapter.up[0])
    value = theirs(x)
    value.sum().backward()
    torch.testing.assert_close(ours, value)
    torch.testing.assert_close(adapter.down[0].grad, theirs.to_q.lora_A["default"].weight.grad)
    torch.testing.assert_close(adapter.up[0].grad, theirs.to_q.lora_B["default"].weight.grad)


def test_the_camera_is_told_where_the_condition_does_not(asked) -> None:
    prior, adapter, z, cond = asked  # noqa: F811
    if not hasattr(adapter, "camera"):
        pytest.skip("the condition tells it")
    nn.init.normal_(adapter.camera.out.weight)
    with torch.no_grad():
        same = adapter.predict(z[:1].expand_as(z), steps(prior, 300, 300), cond)
    assert not torch.allclose(same[0], same[1], atol=1e-3)


def test_a_prior_without_one_is_told() -> None:
    own = OwnScore(VSD(), 0)
    with pytest.raises(ValueError, match=r"^distill=vsd trains an adapter of the prior, and object has none: .*sd"):
        own.beside("", object(), torch.zeros(1, 1, 2, 2), None)
    assert "\n" not in no_adapter(object())


def test_nothing_to_adapt() -> None:
    with pytest.raises(ValueError, match="Linear has no linear layers named to_q"):
        attention_layers(nn.Linear(2, 2))


def test_the_offsets_basis() -> None:
    from dg.core.camera import orbit

    front = view_basis(orbit([0.0, 0.0], [0.0, 90.0], 2.0, height=8), torch.tensor([[1.0] * 3, [0.0] * 3]))
    expected = torch.tensor([[1, 0, 0, 1, 0.5, 0, 0, 0.5], [1, 1, 0, 0, -0.5, -0.5, 0, 0]])
    torch.testing.assert_close(front, expected, atol=1e-6, rtol=0)
