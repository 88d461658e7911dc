"""How far an evaluation is, and how long it still takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean


class Clock:
    """Estimates what is left from the mean seconds of each method so far; an unseen one counts as the mean of the seen.

    Args:
        methods: of every case, in order; `done`: the keys of cases that need no work.
    """

    def __init__(self, methods: dict[str, str], done: Sequence[str]) -> None:
        self.open = {key: method for key, method in methods.items() if key not in set(done)}
        self.total = len(methods)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.start: dict[str, float] = {}

    def begin(self, key: str) -> None:
        self.start[key] = time.monotonic()

    def finish(self, key: str) -> float:
        """Books a case that was begun; returns its seconds."""
        seconds = time.monotonic() - self.start.pop(key)
        self.seconds[self.open.pop(key)].append(seconds)
        return seconds

    def elsewhere(self, keys: Sequence[str]) -> None:
        """Other workers finished these."""
        for key in keys:
            self.open.pop(key, None)

    @property
    def done(self) -> int:
        return self.total - len(self.open)

    def left(self, workers: int = 1) -> str:
        """'12 min left', or '' before anything is known; `workers`: how many cases are under way at a time."""
        if not self.seconds:
            return ""
        means = {m: fmean(s) for m, s in self.seconds.items()}
        other = fmean(means.values())
        seconds = sum(means.get(m, other) for m in self.open.values()) / max(workers, 1)
        return f"{readable(seconds)} left"


def readable(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
