"""One worker's share of an evaluation, and the board that comes of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from dg.eval.protocol import Item, Protocol
from dg.eval.records import Record, read
from dg.runtime import device, lanes
from dg.runtime.build import build, nearest
from dg.runtime.callbacks import StopSignal
from dg.runtime.errors import Interrupted, RunError, UserError
from dg.runtime.evaluation.board import publish
from dg.runtime.evaluation.cases import Case, Judge, cases
from dg.runtime.evaluation.eta import Clock, readable
from dg.runtime.evaluation.methods import resolve
from dg.runtime.evaluation.options import as_list
from dg.runtime.evaluation.queue import MAX_DEATHS, claims
from dg.runtime.launch import Job
from dg.runtime.logging import log, logging_to
from dg.runtime.manifest import now

BOARD_EVERY = 120.0  # seconds between two boards while the work goes on
STAGES = ("mesh", "coarse", "splats")
TOGETHER = 8  # objects at a time on a GPU


def run(job: Job) -> float | None:
    """Makes and measures what is not yet measured, then writes the board.

    Returns:
        The mean of the protocol's first headline figure over the first method's meshes, for sweepers.

    Raises:
        UserError: a mistake in the command; RunError: no method had a result for anything.
    """
    config = job.config
    board = Path(config["outdir"]) / str(config["name"])
    board.mkdir(parents=True, exist_ok=True)
    device.take_gpu(config["worker"])
    device.set_threads(config["threads"] or max(1, (os.cpu_count() or 1) // config["workers"]))
    with logging_to(board), StopSignal().listening() as stop:
        protocol, items = _protocol(config)
        methods = resolve(config, job.overrides, protocol, _config_dir())
        judge = _judge(config, protocol, protocol.hash(items), board)
        todo = cases(judge.protocol_hash, items, methods, _seeds(config), board)
        if not todo:
            raise UserError("there is nothing to do: no method applies to any item")
        _work(todo, judge, config, stop)
        records = [r for r in read(board / "records.jsonl") if r.key in {c.key for c in todo}]
        if _open(todo, judge, records):
            log.info("other workers are still busy; the last one writes the board")
            return None
        publish(board, config, protocol, records)
    return _objective(records, protocol, methods[0].name)


def _config_dir() -> Path:
    from dg.runtime.options import REPOSITORY

    return REPOSITORY / "conf"


def _protocol(config: dict[str, Any]) -> tuple[Protocol, Sequence[Item]]:
    protocol: Protocol = build(config["protocol"], "protocol")
    try:
        items = protocol.items()
    except (OSError, ValueError) as error:
        raise UserError(f"protocol {protocol.name}: {error}") from error
    if not items:
        raise UserError(f"protocol {protocol.name} has no objects")
    return protocol, items


def _seeds(config: dict[str, Any]) -> list[int]:
    seeds = as_list(config["seeds"], "seeds")
    if not seeds or not all(isinstance(s, int) for s in seeds):
        raise UserError(f"seeds={config['seeds']} must be whole numbers, at least one")
    return seeds


def _judge(config: dict[str, Any], protocol: Protocol, protocol_hash: str, board: Path) -> Judge:
    measure = [str(s) for s in as_list(config["measure"], "measure")]
    for stage in measure:
        if stage not in STAGES:
            raise UserError(f"measure: there is no {stage}{nearest(stage, STAGES)}")
    from dg.meshraster.cpu import CpuMeshRasterizer
    from dg.raster.numba_cpu import NumbaRasterizer
    from dg.runtime.evaluation.scorers import clip_scorers

    scorers, absent = clip_scorers(config, protocol, _config_dir())
    # on the CPU whatever made the result: figures don't depend on a card, and results are read from files anyway
    return Judge(protocol, protocol_hash, board, measure, CpuMeshRasterizer(), NumbaRasterizer(), scorers, absent)


def _open(todo: Sequence[Case], judge: Judge, records: Sequence[Record]) -> list[Case]:
    have = {(r.key, r.stage) for r in records}
    return [case for case in todo if any((case.key, stage) not in have for stage in judge.stages(case))]


def _work(todo: Sequence[Case], judge: Judge, config: dict[str, Any], stop: StopSignal) -> None:
    path, by_key = judge.board / "records.jsonl", {case.key: case for case in todo}
    since = now() if config["overwrite"] else ""  # records are only ever appended to: the old ones stay, and count less
    if since and config["workers"] > 1:
        raise UserError("overwrite=true works with workers=1: workers could not tell new records from old ones")
    booked = Booked(path, since)

    def is_done(key: str) -> bool:
        return all((key, stage) in booked.have() for stage in judge.stages(by_key[key]))

    done = [key for key in by_key if is_done(key)]
    if done:
        log.info("%d of %d cases are there already and kept", len(done), len(todo))
    clock = Clock({c.key: c.method.name for c in todo}, done)
    count = min(together(config), max(len(todo) - len(done), 1))
    shift = _Shift(by_key, judge, config, stop, is_done, clock, config["workers"] * count, since)
    if count == 1:
        shift.work()
        return
    log.info("%d objects at a time (together=%s)", count, config["together"])
    failures = [e for e in lanes.run([shift.work] * count, device.same_gpu(config["device"])) if e is not None]
    if failures:  # a mistake before an interruption, since that has a cause too
        raise next((e for e in failures if not isinstance(e, (Interrupted, KeyboardInterrupt))), failures[0])


def together(config: dict[str, Any]) -> int:
    """How many objects one worker has under way at a time.

    Raises:
        UserError: `together` is neither auto nor a positive whole number.
    """
    asked = config["together"]
    if asked == "auto":
        return TOGETHER if device.resolve(config["device"]).type == "cuda" else 1
    if not isinstance(asked, int) or asked < 1:
        raise UserError(f"together={asked} must be auto, or how many objects are under way at a time")
    return asked


@dataclass
class _Shift:
    """What a worker does until no case is left; several at a time, taking turns, where objects share a prior.

    Attributes:
        at_a_time: cases that all workers together have under way.
        since: records from before that do not count.
    """

    by_key: dict[str, Case]
    judge: Judge
    config: dict[str, Any]
    stop: StopSignal
    is_done: Callable[[str], bool]
    clock: Clock
    at_a_time: int
    since: str
    written: float = field(default_factory=time.monotonic)

    def work(self) -> None:
        keys, clock, path = list(self.by_key), self.clock, self.judge.board / "records.jsonl"
        for claim in claims(keys, self.judge.board / "work", self.is_done):
            case = self.by_key[keys[claim.index]]
            clock.begin(case.key)
            records = self.judge.settle(case, claim.deaths, MAX_DEATHS, anew=bool(self.since))
            seconds = clock.finish(case.key)
            clock.elsewhere([k for k in clock.open if self.is_done(k)] if self.config["workers"] > 1 else [])
            _say(case, records, self.judge.protocol, seconds, clock, self.at_a_time)
            if time.monotonic() - self.written > BOARD_EVERY:
                publish(self.judge.board, self.config, self.judge.protocol, read(path), final=False)
                self.written = time.monotonic()
            if self.stop.requested:
                raise Interrupted("between two cases; the same command continues")


class Booked:
    """What records.jsonl holds since a time. The file only grows, so it is read again when it has grown."""

    def __init__(self, path: Path, since: str) -> None:
        self._path, self._since, self._size = path, since, -1
        self._have: set[tuple[str, str]] = set()

    def have(self) -> set[tuple[str, str]]:
        """(key, stage) of every record."""
        size = self._path.stat().st_size if self._path.is_file() else 0
        if size != self._size:
            self._have = {(r.key, r.stage) for r in read(self._path) if r.finished >= self._since}
            self._size = size
        return self._have


def _say(
    case: Case, records: Sequence[Record], protocol: Protocol, seconds: float, clock: Clock, at_a_time: int
) -> None:
    first = records[0]
    figures = [
        f"{name} {first.scores[name]:.4g}" for name in protocol.headline[:3] if first.scores.get(name) is not None
    ]
    what = f"FAILED: {first.failure[:100]}" if first.failure else "  ".join(figures)
    left = clock.left(at_a_time)
    line = f"[{clock.done}/{clock.total}] {case.label}: {what}  ({readable(seconds)}{', ' + left if left else ''})"
    log.log(logging.WARNING if first.failure else logging.INFO, "%s", line)


def _objective(records: Sequence[Record], protocol: Protocol, method: str) -> float | None:
    name = protocol.headline[0]
    values = [r.scores.get(name) for r in records if r.method == method and r.stage in ("mesh", "renders")]
    values = [v for v in values if v is not None]
    if all(r.failure for r in records):
        raise RunError(f"every case failed; the first: {records[0].failure}")
    return fmean(values) if values else None
