"""The parts of an evaluation that need no run: who does what, in which order, under which name."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dg.io.lock import try_lock
from dg.runtime.errors import UserError
from dg.runtime.evaluation.eta import Clock, readable
from dg.runtime.evaluation.options import as_list, spread
from dg.runtime.evaluation.queue import claims
from dg.runtime.evaluation.runs import for_runs, merged
from dg.runtime.shelf import PriorShelf


def test_a_lock_belongs_to_one(tmp_path: Path) -> None:
    with try_lock(tmp_path / "a" / "x.lock") as first, try_lock(tmp_path / "a" / "x.lock") as second:
        assert first and not second
    with try_lock(tmp_path / "a" / "x.lock") as again:
        assert again


def test_claims_leave_out_what_is_done_and_what_others_hold(tmp_path: Path) -> None:
    done = {"b"}
    with try_lock(tmp_path / "c.lock"):
        got = []
        for claim in claims(["a", "b", "c", "d"], tmp_path, done.__contains__):
            got.append((claim.index, claim.deaths))
            done.add("abcd"[claim.index])
    assert got == [(0, 0), (3, 0)]
    assert [c.index for c in _all(["a", "b", "c", "d"], tmp_path, done)] == [2]


def _all(keys: list[str], folder: Path, done: set[str]) -> list:
    found = []
    for claim in claims(keys, folder, done.__contains__):
        found.append(claim)
        done.add(keys[claim.index])
    return found


def test_what_another_process_drops_comes_round(tmp_path: Path) -> None:
    """A worker that ends at a case leaves its lock free and a mark; one that is interrupted leaves none."""
    code = (
        "import os, sys; from pathlib import Path; from dg.runtime.evaluation.queue import claims\n"
        f"for claim in claims(['a'], Path({str(tmp_path)!r}), lambda key: False): os.kill(os.getpid(), 9)"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert [c.deaths for c in _all(["a"], tmp_path, set())] == [2]
    assert [c.deaths for c in _all(["a"], tmp_path, set())] == [0]  # it got through: forgotten
    stopped = claims(["a"], tmp_path, lambda key: False)
    next(stopped)
    with pytest.raises(KeyboardInterrupt):
        stopped.throw(KeyboardInterrupt)
    assert [c.deaths for c in _all(["a"], tmp_path, set())] == [0]


def test_time_left_follows_each_method() -> None:
    clock = Clock({"a": "slow", "b": "slow", "c": "fast", "d": "fast"}, done=[])
    assert clock.left() == "" and clock.done == 0
    clock.start["a"] = time.monotonic() - 60
    clock.finish("a")
    clock.start["c"] = time.monotonic() - 2
    clock.finish("c")
    assert clock.done == 2 and clock.left() == "62 s left" and clock.left(workers=2) == "31 s left"
    clock.elsewhere(["b", "d"])
    assert clock.done == 4 and clock.left() == "0 s left"


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_readable(seconds: float, text: str) -> None:
    assert readable(seconds) == text


def test_workers_become_a_multirun() -> None:
    assert spread(["evaluate.py", "workers=3"])[2:] == ["-m", "hydra/launcher=joblib", "worker=range(3)"]
    assert spread(["evaluate.py", "-m", "workers=2", "hydra/launcher=ray"])[4:] == ["worker=range(2)"]
    for left_alone in (["evaluate.py"], ["evaluate.py", "workers=1"], ["evaluate.py", "workers=2", "worker=1"]):
        assert spread(list(left_alone)) == left_alone


def test_runs_get_what_is_theirs() -> None:
    given = ["protocol=synthetic_gt", "prior=zero123", "methods=[ours,oracle]", "+iters=5", "hydra/launcher=joblib"]
    given += ["workers=2", "protocol.views.size=64", "logger=wandb", "seeds=[0,1]", "optim.features=0.1"]
    assert for_runs(given) == ["prior=zero123", "+iters=5", "optim.features=0.1", "preview=none"]
    assert for_runs(["preview.azimuths=4"]) == ["preview.azimuths=4"]


def test_a_methods_own_overrides_win() -> None:
    general = ["prior=zero123", "prior.checkpoint=X", "iters=5"]
    assert merged(general, ["prior=oracle", "anneal=uniform"]) == ["iters=5", "prior=oracle", "anneal=uniform"]
    assert merged(general, ["iters=6"]) == ["prior=zero123", "prior.checkpoint=X", "iters=6"]


def test_lists_on_the_command_line() -> None:
    assert as_list(None, "x") == [] and as_list("a", "x") == ["a"] and as_list([1, "b"], "x") == [1, "b"]
    with pytest.raises(UserError, match="methods="):
        as_list([{"a": 1}], "methods")


def test_the_shelf_keeps_one_prior() -> None:
    shelf, built = PriorShelf(), []

    def build(name: str):
        return lambda: built.append(name) or name

    assert shelf.get({"a": 1}, "cpu", build("one")) == "one"
    assert shelf.get({"a": 1}, "cpu", build("again")) == "one"
    assert shelf.get({"a": 2}, "cpu", build("two")) == "two"
    assert shelf.get({"a": 1}, "cpu", build("three")) == "three"
    assert built == ["one", "two", "three"]
