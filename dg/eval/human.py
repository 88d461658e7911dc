"""Scores that people gave: a CSV with one line per judgement; columns of their own, never mixed with what is measured.

object,method,question,score,rater
robot,zero123_mini,overall quality,4,anna
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dg.io.suggest import nearest

REQUIRED = ("object", "method", "question", "score")
COLUMNS = (*REQUIRED, "rater")


@dataclass(frozen=True)
class Judgement:
    object: str
    method: str
    question: str
    score: float
    rater: str = ""


@dataclass(frozen=True)
class Opinion:
    """What people said to one question about one method.

    Attributes:
        mean: over objects of the means over raters, so that an object asked more often counts no more.
        count: judgements; `objects` and `raters` how many different ones ("" where raters have no name).
    """

    mean: float
    count: int
    objects: int
    raters: int


def read(path: str | Path) -> list[Judgement]:
    """All lines of a CSV.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names file, line, the bad value and the mend.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"human={path}: there is no such file")
    found: list[Judgement] = []
    seen: dict[tuple[str, ...], int] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _check_header(reader.fieldnames or [], path)
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                judgement = _judgement(row, where)
                key = (judgement.object, judgement.method, judgement.question, judgement.rater)
                if judgement.rater and key in seen:
                    raise ValueError(f"{where}: {judgement.rater} has judged this before, in line {seen[key]}")
                seen[key] = reader.line_num
                found.append(judgement)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: cannot be read as CSV in UTF-8: {error}") from None
    if not found:
        raise ValueError(f"{path} holds no judgements")
    return found


def opinions(judgements: Iterable[Judgement]) -> dict[str, dict[str, Opinion]]:
    """method -> question -> what people said."""
    groups: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        groups[judgement.method, judgement.question].append(judgement)
    out: dict[str, dict[str, Opinion]] = defaultdict(dict)
    for (method, question), group in groups.items():
        by_object: dict[str, list[float]] = defaultdict(list)
        for judgement in group:
            by_object[judgement.object].append(judgement.score)
        mean = math.fsum(math.fsum(s) / len(s) for s in by_object.values()) / len(by_object)
        out[method][question] = Opinion(mean, len(group), len(by_object), len({j.rater for j in group}))
    return dict(out)


def unknown(judgements: Iterable[Judgement], methods: Iterable[str], objects: Iterable[str]) -> list[str]:
    """Warnings about names that the board does not have, one line each."""
    methods, objects = list(methods), list(objects)
    lines = []
    for kind, given, valid in (
        ("method", {j.method for j in judgements}, methods),
        ("object", {j.object for j in judgements}, objects),
    ):
        lines += [f"no {kind} {name} on the board{nearest(name, valid)}" for name in sorted(given - set(valid))]
    return lines


def _check_header(names: Iterable[str], path: Path) -> None:
    names = list(names)
    for name in names:
        if name not in COLUMNS:
            raise ValueError(f"{path}, line 1: there is no column {name!r}{nearest(name, COLUMNS)}")
    lacking = [name for name in REQUIRED if name not in names]
    if lacking:
        raise ValueError(f"{path}, line 1: lacks {', '.join(lacking)}; columns are {', '.join(COLUMNS)}")


def _judgement(row: dict[str, str | None], where: str) -> Judgement:
    if None in row or any(value is None for value in row.values()):
        raise ValueError(f"{where}: has more or fewer cells than the header; quote cells that hold a comma")
    cells = {key: (value or "").strip() for key, value in row.items()}
    empty = [key for key in REQUIRED if not cells[key]]
    if empty:
        raise ValueError(f"{where}: {', '.join(empty)} is empty")
    try:
        score = float(cells["score"])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{where}: score={cells['score']} must be a number")
    return Judgement(cells["object"], cells["method"], cells["question"], score, cells.get("rater", ""))
