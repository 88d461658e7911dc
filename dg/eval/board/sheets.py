"""leaderboard.csv (a line per entry and figure), objects.csv (a line per record), and rows for a logger's table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from dg.eval.board.notation import metric_of
from dg.eval.board.table import Board

SUMMARY = (
    *("protocol", "protocol_hash", "newest", "method", "stage", "kind", "rank", "figure", "unit", "better"),
    *("mean", "low", "high", "objects", "values", "baseline", "difference", "difference_low", "difference_high"),
    *("cases", "failures", "blank"),
)
CASE = (
    *("protocol", "protocol_hash", "item", "method", "stage", "seed", "kind", "failure", "attempts", "command"),
    *("config", "revision", "machine", "device", "licence", "finished", "mesh"),
)


def summary_rows(found: Iterable[Board]) -> tuple[list[str], list[list[Any]]]:
    """Column names and one row per entry and figure; None where there is no value; a logger's table as it is."""
    rows: list[list[Any]] = []
    for board in found:
        for row in board.entries:
            for figure in board.figures:
                cell, metric = row.cells[figure], metric_of(figure)
                v, d = cell.value, cell.difference
                rows.append(
                    [board.protocol, board.hash, board.newest, row.method, row.stage, row.kind, row.rank]
                    + [figure, metric.unit, metric.better]
                    + ([None] * 3 + [0, 0] if v is None else [v.mean, v.low, v.high, v.objects, v.values])
                    + [board.baseline, *([None] * 3 if d is None else [d.mean, d.low, d.high])]
                    + [row.cases, len(row.failures), cell.blank]
                )
    return list(SUMMARY), rows


def case_rows(found: Sequence[Board]) -> tuple[list[str], list[list[Any]]]:
    """Column names and one row per record: where it came from, then every figure, then the reasons of the blanks."""
    figures = list(dict.fromkeys(name for board in found for name in board.figures))
    rows: list[list[Any]] = []
    for board in found:
        for cases in board.cases.records.values():
            for record in cases.values():
                facts = [getattr(record, name) for name in CASE]
                scores = [record.scores.get(name) for name in figures]
                rows.append([*facts, *scores, json.dumps(record.blanks) if record.blanks else None])
    return [*CASE, *figures, "blanks"], rows


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """RFC 4180 but for line ends; numbers unrounded, nothing where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
