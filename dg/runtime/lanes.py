"""Several pieces of work that take turns, so that what they ask of one network can be answered for all at once.

Each piece runs in a thread of its own, but only one of them runs at any time: a turn lasts until the piece asks for
something (`at_once`) or ends. When all have asked or ended, questions of one kind are answered by one call. So pieces
need no locks, and the order of everything is always the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

Serve = Callable[[list[Any]], list[Any]]  # questions of one kind -> their answers, in order

_here = threading.local()


@dataclass(eq=False)
class _Lane:
    work: Callable[[], None]
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    back: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    running: bool = False
    ended: bool = False
    failure: BaseException | None = None  # what the work raised
    question: tuple[Hashable, Any, Serve] | None = None
    answer: Any = None
    refused: BaseException | None = None  # what the work gets instead of an answer
    used: float = 0.0  # seconds: own turns, and a share of each call that answered several
    since: float = 0.0  # when the turn under way began

    def live(self, begin: Callable[[], None] | None) -> None:
        self.go.acquire()
        _here.lane = self
        try:
            if begin is not None:
                begin()
            if self.refused is not None:
                raise self.refused
            self.work()
        except BaseException as error:  # nobody above: it is handed to the caller of `run`
            self.failure = error
        self.ended = True
        self.back.release()


def in_lane() -> bool:
    """Whether the caller is a piece of work in `run`."""
    return getattr(_here, "lane", None) is not None


def spent() -> float:
    """A clock for costs: of a piece of work, the seconds it has used itself; elsewhere, the time."""
    lane = getattr(_here, "lane", None)
    return time.monotonic() if lane is None else lane.used + time.monotonic() - lane.since


def at_once(key: Hashable, question: Any, serve: Serve) -> Any:
    """Answers a question together with those of the other pieces that have the same key; alone, at once.

    Args:
        serve: of all questions with this key; any of the asking pieces' is called. If it raises for several, each
            question is tried alone, so that one piece's mistake is nobody else's.
    """
    lane = getattr(_here, "lane", None)
    if lane is None:
        return serve([question])[0]
    lane.question = key, question, serve
    lane.back.release()
    lane.go.acquire()
    lane.question = None
    if lane.refused is not None:
        error, lane.refused = lane.refused, None
        raise error
    answer, lane.answer = lane.answer, None
    return answer


def run(works: Sequence[Callable[[], None]], begin: Callable[[], None] | None = None) -> list[BaseException | None]:
    """Runs the pieces to their ends; returns what each of them raised, or None.

    Args:
        begin: called first in each piece's thread (threads have settings of their own, such as the current GPU).

    Raises:
        KeyboardInterrupt: after every piece has been told, by the same exception at its next question.
    """
    lanes = [_Lane(work) for work in works]
    for number, lane in enumerate(lanes):
        threading.Thread(target=lane.live, args=(begin,), name=f"lane-{number}", daemon=True).start()
    interrupted: KeyboardInterrupt | None = None
    while open_ := [lane for lane in lanes if not lane.ended]:
        try:
            for lane in open_:
                _turn(lane)
            _answer([lane for lane in open_ if not lane.ended])
        except KeyboardInterrupt as error:
            interrupted = error
            for lane in lanes:
                if lane.running:  # the interrupt has left its turn under way
                    _wait(lane)
                lane.refused = None if lane.ended else KeyboardInterrupt()
    if interrupted is not None:
        raise interrupted
    return [lane.failure for lane in lanes]


def _turn(lane: _Lane) -> None:
    lane.since, lane.running = time.monotonic(), True
    lane.go.release()
    _wait(lane)


def _wait(lane: _Lane) -> None:
    lane.back.acquire()
    lane.running = False
    lane.used += time.monotonic() - lane.since


def _answer(lanes: Sequence[_Lane]) -> None:
    groups: dict[Hashable, list[_Lane]] = {}
    for lane in lanes:
        assert lane.question is not None
        groups.setdefault(lane.question[0], []).append(lane)
    for group in groups.values():
        start = time.monotonic()
        questions, serve = [lane.question[1] for lane in group], group[0].question[2]
        try:
            for lane, answer in zip(group, serve(questions), strict=True):
                lane.answer = answer
        except Exception as error:
            if len(group) == 1:
                group[0].refused = error
            else:
                _one_by_one(group)
        for lane in group:
            lane.used += (time.monotonic() - start) / len(group)


def _one_by_one(group: Sequence[_Lane]) -> None:
    for lane in group:
        _, question, serve = lane.question
        try:
            (lane.answer,) = serve([question])
        except Exception as error:
            lane.refused = error
