"""Workers of one machine share out its GPUs; what a scheduler has assigned is left alone."""

from __future__ import annotations

import os

import pytest
import torch

from dg.runtime.device import take_gpu


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    def with_gpus(count: int, visible: str | None = None, begun: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: begun)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return with_gpus


@pytest.mark.parametrize(("worker", "got"), [(0, "0"), (2, "2"), (3, "0"), (7, "1")])
def test_in_turn(machine, worker: int, got: str) -> None:
    machine(3)
    take_gpu(worker)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == got


def test_among_those_that_are_visible(machine) -> None:
    machine(2, "5,GPU-abc")
    take_gpu(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-abc"


@pytest.mark.parametrize(("count", "visible", "begun"), [(1, "3", False), (0, None, False), (4, "0,1,2,3", True)])
def test_an_assigned_or_used_gpu_stays(machine, count: int, visible: str | None, begun: bool) -> None:
    machine(count, visible, begun)
    take_gpu(1)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible
