"""How long each training step of a stage lasts, and the memory it needs, seen from outside and without waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch


@dataclass
class Steps:
    """What was seen of a stage's steps."""

    starts: list[Any] = field(default_factory=list)
    last: Any = None
    resolutions: list[int] = field(default_factory=list)
    allocated_mb: float = 0.0
    reserved_mb: float = 0.0

    def milliseconds(self) -> list[float]:
        """From each step's beginning to the next one's; of the last step to its own end."""
        marks = [*self.starts, self.last]
        if marks and isinstance(marks[0], float):
            return [1e3 * (b - a) for a, b in pairwise(marks)]
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(marks)]


@contextmanager
def watched(kind: type, device: torch.device) -> Iterator[Steps]:
    """Notes when each training step of a stage begins, on the GPU's own clock: nothing waits for it."""
    seen, original = Steps(), kind.training_step

    def mark() -> Any:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def step(self: Any, batch: Any, index: int) -> None:
        seen.starts.append(mark())
        original(self, batch, index)
        seen.last = mark()
        if hasattr(self, "resolution"):
            seen.resolutions.append(self.resolution(self.step / self.iters))
        if device.type == "cuda":
            seen.allocated_mb = torch.cuda.max_memory_allocated() / 2**20
            seen.reserved_mb = torch.cuda.max_memory_reserved() / 2**20

    kind.training_step = step
    try:
        yield seen
    finally:
        kind.training_step = original
