"""The files of a leaderboard, made anew from records.jsonl each time; each is complete or as it was before."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dg.eval import human as people
from dg.eval.board.markdown import markdown
from dg.eval.board.page import page
from dg.eval.board.published import published
from dg.eval.board.sheets import case_rows, summary_rows, to_csv
from dg.eval.board.table import Baseline, Board, Headline, boards
from dg.eval.records import read
from dg.io.files import write_json, write_text

FORMATS = ("md", "csv", "html")
TITLE = "Leaderboard"


@dataclass(frozen=True)
class Settings:
    """How a folder's board was last written; kept in board.json, so that it can be written again from the folder."""

    headline: Headline
    baseline: Baseline = None
    title: str = TITLE
    human: str | None = None


def write_board(
    folder: Path,
    *,
    headline: Headline,
    baseline: Baseline = None,
    title: str = TITLE,
    human: Path | Sequence[people.Judgement] | None = None,
    formats: tuple[str, ...] = FORMATS,
) -> list[Path]:
    """Reads folder/records.jsonl and writes leaderboard.md, leaderboard.csv, objects.csv and leaderboard.html there.

    Args:
        headline: figures shown first, the first one ranks; or a mapping from protocol names to them.
        baseline: the method that differences are paired against; or a mapping from protocol names.
        human: judgements of people, or a CSV file of them (`dg.eval.human`); names that no board has warn.
        formats: which of md, csv and html; the page is the slow one (pictures and meshes are read).

    Raises:
        ValueError: there are no records, a format is unknown, or a line of the records or judgements is none.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"formats: there is no {name}; there are {', '.join(FORMATS)}")
    records = read(folder / "records.jsonl")
    if not records:
        raise ValueError(f"{folder}/records.jsonl holds no records; run evaluate.py first")
    found = boards(records, headline=headline, baseline=baseline)
    judgements = _judgements(human, found)
    texts: dict[str, str] = {}
    if "md" in formats:
        texts["leaderboard.md"] = markdown(found, title, published(), judgements)
    if "csv" in formats:
        texts["leaderboard.csv"] = to_csv(*summary_rows(found))
        texts["objects.csv"] = to_csv(*case_rows(found))
    if "html" in formats:
        texts["leaderboard.html"] = page(folder, found, title, published(), judgements)
    for name, text in texts.items():
        write_text(folder / name, text)
    file = str(human) if isinstance(human, Path) else None
    write_json(folder / "board.json", {"headline": headline, "baseline": baseline, "title": title, "human": file})
    return [folder / name for name in texts]


def _judgements(human: Path | Sequence[people.Judgement] | None, found: Sequence[Board]) -> Sequence[people.Judgement]:
    if human is None:
        return ()
    judgements = people.read(human) if isinstance(human, Path) else human
    methods = [method for board in found for method in board.methods]
    for line in people.unknown(judgements, methods, [item for board in found for item in board.cases.items]):
        warnings.warn(f"human: {line}", stacklevel=3)
    return judgements


def read_settings(folder: Path) -> Settings | None:
    """What `write_board` was last called with; None where it was not.

    Raises:
        ValueError: board.json is damaged.
    """
    path = folder / "board.json"
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Settings(**content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and give --headline") from error
