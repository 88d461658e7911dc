"""records.jsonl: one line per object, method, stage and seed. Only appended to; the newest line of a key counts."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dg.io.files import append_line

_START = '{"key": "'  # how every line begins: the first field of a record


@dataclass(frozen=True)
class Record:
    """One result and where it came from.

    Attributes:
        key: hash over protocol, item (contents of its files), method (its config or its files' contents) and seed.
        stage: what was measured: mesh | coarse | splats | renders.
        kind: ours | foreign | reference; references (truth, input copied, ...) are shown apart and never ranked.
        scores: figure -> value (`dg.eval.catalog`); None where it could not be had, with the reason in `blanks`.
        failure: why the case failed; its scores are then the worst ones.
        pictures: renders of the views [V], relative to the board's folder; `truth_pictures` beside them; `mesh` a GLB.
    """

    key: str
    protocol: str
    protocol_hash: str
    item: str
    method: str
    stage: str
    seed: int
    kind: str
    scores: dict[str, float | None]
    blanks: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    attempts: int = 1
    command: str = ""
    config: str = ""  # hash of the run's config
    revision: str | None = None
    machine: str = ""
    device: str = ""
    licence: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    finished: str = ""
    input_picture: str | None = None
    pictures: tuple[str, ...] = ()
    truth_pictures: tuple[str, ...] = ()
    mesh: str | None = None


def append(path: Path, record: Record) -> None:
    """One line, in one write. After a crash that left half a line the record still begins a line of its own."""
    append_line(path, ("" if _ends_with_a_line(path) else "\n") + json.dumps(asdict(record), allow_nan=False))


def read(path: Path) -> list[Record]:
    """The newest record of every key and stage, in the order of their first appearance; [] where there is no file.

    Lines that a crash cut off are left out with a warning: they begin as records do and end in the middle, or hold
    nothing but the zeros that a file system leaves after a power cut.

    Raises:
        ValueError: another line is no record; names it.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found: dict[tuple[str, str], Record] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip("\0 \t\r")
        if not line:
            continue
        try:
            record = from_json(line)
        except (ValueError, TypeError) as error:
            if _cut_off(line, error):
                warnings.warn(f"{path}, line {number} was cut off by a crash and is left out", stacklevel=2)
                continue
            raise ValueError(f"{path}, line {number} is no record: {error}") from error
        found[record.key, record.stage] = record
    return list(found.values())


def from_json(line: str) -> Record:
    """The record of one line.

    Raises:
        ValueError: no JSON, or not of an object.
        TypeError: a field is unknown or missing.
    """
    content: dict[str, Any] = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("it is not an object of fields")
    for name in ("pictures", "truth_pictures"):
        content[name] = tuple(content.get(name, ()))
    return Record(**content)


def _cut_off(line: str, error: Exception) -> bool:
    return isinstance(error, json.JSONDecodeError) and _START.startswith(line[: len(_START)])


def _ends_with_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
