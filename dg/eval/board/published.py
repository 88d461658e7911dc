"""Numbers of other people's papers: tables of their own, one per source, never ranked with ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent / "assets" / "published.yaml"
WARNING = (
    "As published: other objects, cameras and metrics than ours, and than each other's. "
    "Never compare a number with one of another table; nothing here is ranked with the boards."
)


@dataclass(frozen=True)
class Published:
    """One table of one source; all cells are text, as printed there."""

    id: str
    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@cache
def published(path: Path = FILE) -> tuple[Published, ...]:
    """Raises:
    ValueError: a table lacks a field, or a row is not as long as the columns; names it.
    """
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(_table(entry, path) for entry in found)


def _table(entry: dict[str, Any], path: Path) -> Published:
    name = entry.get("id", "?")
    try:
        columns: Sequence[str] = entry["columns"]
        rows = tuple(tuple(str(cell) for cell in row) for row in entry["rows"])
        table = Published(name, entry["title"], entry["source"], entry.get("note", ""), tuple(columns), rows)
    except KeyError as error:
        raise ValueError(f"{path}: the table {name} lacks {error}") from error
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{path}: a row of {name} has {len(row)} cells, its columns are {len(columns)}: {row[0]}")
    return table
