"""Variational score distillation: its formula, its optimum, what a resumed run remembers."""

from __future__ import annotations

from dataclasses import replace

import lightning as L
import pytest
import torch

from dg.core.distill import SDS
from dg.core.distill_particles import VSD
from dg.core.rng import generator
from dg.stages.gaussians import steps
from dg.stages.own_score import OwnScore
from tests.stages.test_gaussians import make, reference, trainer  # noqa: F401 - a fixture
from tests.unit.test_distill_variants import ALPHA_BAR, curved, draw

PLAIN = {"weighting": "uniform", "scale_to_elements": None}
GIVEN = draw("z", 2, 1, 4, 4), torch.tensor([60, 600]), draw("eps", 2, 1, 4, 4), ALPHA_BAR


def test_its_formula() -> None:
    z, t, eps, _ = GIVEN
    a = ALPHA_BAR[t].reshape(-1, 1, 1, 1)
    x_t = a.sqrt() * z + (1 - a).sqrt() * eps
    told = curved(x_t, t)
    found = VSD(2.0, 3.0, **PLAIN).gradient(lambda x, t: replace(curved(x, t), own=x.sin()), *GIVEN)
    torch.testing.assert_close(found, 2 * (told.uncond + 3 * (told.cond - told.uncond) - x_t.sin()))


def test_with_a_perfect_adapter_it_is_sds() -> None:
    eps = GIVEN[2]
    found = VSD().gradient(lambda x, t: replace(curved(x, t), own=eps), *GIVEN)
    assert torch.equal(found, SDS().gradient(curved, *GIVEN))


def test_without_an_own_score_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"distill=vsd needs .*Prediction\.own"):
        VSD().gradient(curved, *GIVEN)


@pytest.mark.parametrize(
    "wrong", [{"adapter_rank": 0}, {"adapter_lr": 0.0}, {"adapter_t_min": 0.6, "adapter_t_max": 0.5}], ids=str
)
def test_impossible_adapters(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        VSD(**wrong)


def test_the_adapter_s_timesteps() -> None:
    method = VSD(adapter_t_min=0.2, adapter_t_max=0.4)
    ts = [method.trained_at(generator(0, "t", i), 1000) for i in range(500)]
    assert 200 <= min(ts) < 210 and 390 < max(ts) < 400


def test_what_is_not_finite_is_said_and_changes_nothing(reference) -> None:  # noqa: F811
    stage = make(reference)
    own, z = OwnScore(VSD(), 0), torch.full((1, 3, 32, 32), float("inf"))
    cond = stage.prior.condition(reference, None, reference.cameras, torch.ones(1, 3))
    own.beside("", stage.prior, z, cond)
    with pytest.raises(FloatingPointError, match=r"step 7: the error of the adapter .*distill\.adapter_lr"):
        own.learn(7)
    assert not own.adapters[""].pictures.any()


def test_a_resumed_run_is_the_unbroken_one(reference, tmp_path) -> None:  # noqa: F811
    def begin():
        return make(reference, iters=12, distill=VSD())

    whole = begin()
    trainer().fit(whole, steps(12))

    class SaveAndStop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if pl_module.step == 6:
                trainer.save_checkpoint(tmp_path / "state.ckpt")
                trainer.should_stop = True

    trainer(callbacks=[SaveAndStop()]).fit(begin(), steps(12))
    rest = begin()
    trainer().fit(rest, steps(12, start=6), ckpt_path=tmp_path / "state.ckpt", weights_only=False)
    for name, value in whole.raw().as_dict().items():
        assert torch.equal(value, rest.raw().as_dict()[name]), name
    mine, theirs = (s.score.own.adapters[""].pictures for s in (whole, rest))
    assert torch.equal(mine, theirs) and mine.any()
    forgetful = begin()
    state = torch.load(tmp_path / "state.ckpt", weights_only=False)
    del state["own_score"]
    torch.save(state, tmp_path / "less.ckpt")
    trainer().fit(forgetful, steps(12, start=6), ckpt_path=tmp_path / "less.ckpt", weights_only=False)
    assert not torch.equal(forgetful.raw().means, whole.raw().means), "the adapter's state must matter"
