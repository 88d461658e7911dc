"""`prior.backend=`: the embedded prior by other means gives the same answers."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from dg.core.camera import orbit
from dg.priors import mini_openvino
from dg.priors.zero123_mini import Zero123Mini
from dg.types import Reference


def test_a_backend_is_known_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="backend=onnx is none of torch, openvino"):
        Zero123Mini(backend="onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert mini_openvino.resolve("auto") == "torch"
    for name in ("openvino", "openvino_bf16"):
        with pytest.raises(ImportError, match=r"pip install openvino, or use backend=torch"):
            Zero123Mini(backend=name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert mini_openvino.resolve("auto") == "openvino"


def test_the_flat_network_is_the_network() -> None:
    prior = Zero123Mini()
    reference = Reference(torch.rand(1, 64, 64, 4, generator=torch.Generator().manual_seed(0)), orbit(0, 0, 2.0))
    cond = prior.condition(reference, None, orbit(0.0, [30.0, 200.0], 2.0, height=64), torch.ones(2, 3)).extra
    z = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([300.0, 700.0])
    arguments = z, t, prior.alpha_bar[t.long()], cond.rays, cond.vector, cond.reference
    with torch.no_grad():
        assert torch.equal(
            mini_openvino.Flat(prior.net)(*mini_openvino.flat_inputs(*arguments)), prior.net(*arguments)[1]
        )


def test_openvino_agrees_with_torch_for_any_batch() -> None:
    pytest.importorskip("openvino", reason=mini_openvino.INSTALL)
    torch_one, other = Zero123Mini(unconditional=True), Zero123Mini(unconditional=True, backend="openvino")
    reference = Reference(torch.rand(1, 64, 64, 4, generator=torch.Generator().manual_seed(0)), orbit(0, 0, 2.0))
    for count in (1, 4, 2):
        views = orbit(0.0, [30.0 + 70 * i for i in range(count)], 2.0, height=64)
        z = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
        t = torch.arange(count) * 200 + 100
        a, b = (p.predict(z, t, p.condition(reference, None, views, torch.ones(count, 3))) for p in (torch_one, other))
        torch.testing.assert_close(a.cond, b.cond, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(a.uncond, b.uncond, atol=2e-5, rtol=1e-4)
