"""The table of the public priors' measurements, from their records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PRIORS = ("zero123", "stable_zero123", "sd", "mvdream", "imagedream")
BEGIN = "<!-- measured: begin, by python -m benchmarks.public_priors --write docs/priors.md -->"
END = "<!-- measured: end -->"
COLUMNS = (
    *("prior", "dtype", "load s", "stage 1 ms/step at 128, 256, 512", "stage 2 ms/step"),
    *("peak MB stage 1", "peak MB stage 2", "device", "revision"),
)
STAGES = ("load", "gaussians", "texture")
NOT_YET = "not yet measured"


def newest(lines: Iterable[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The last record of each prior and stage."""
    return {(r["prior"], r["stage"]): r for line in lines if line.strip() for r in [json.loads(line)]}


def rows(found: Mapping[tuple[str, str], dict[str, Any]]) -> list[list[str]]:
    """One for each prior, measured or not."""
    return [_row(prior, [found.get((prior, stage)) for stage in STAGES]) for prior in PRIORS]


def _row(prior: str, records: list[dict[str, Any] | None]) -> list[str]:
    load, first, second = records
    sizes = (first or {}).get("ms_by_resolution") or {}
    several = " / ".join(f"{ms:.0f}" for ms in sizes.values())
    device = next((f"{r['device']}{', tiny' * (r['size'] == 'tiny')}" for r in records if r), "")
    return [
        f"`{prior}`",
        str((load or {}).get("dtype", "")),
        _shown(load, lambda r: f"{r['load_s']:.1f}"),
        _shown(first, lambda r: several or f"{1e3 * r['median_s']:.0f}"),
        _shown(second, lambda r: f"{1e3 * r['median_s']:.0f}"),
        *(_shown(r, lambda r: _memory(r)) for r in (first, second)),
        device,
        next((r["revision"] for r in reversed(records) if r and r.get("revision")), ""),
    ]


def _memory(record: dict[str, Any]) -> str:
    if "peak_allocated_mb" not in record:
        return ""
    return f"{record['peak_allocated_mb']:.0f} ({record['peak_reserved_mb']:.0f} reserved)"


def _shown(record: dict[str, Any] | None, text: Any) -> str:
    if record is None:
        return NOT_YET
    return f"failed: {record['error'].split(':')[0]}" if "error" in record else text(record)


def table(lines: Iterable[str]) -> str:
    """Markdown, in the order of `PRIORS`."""
    body = [COLUMNS, ["---"] * len(COLUMNS), *rows(newest(lines))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body)


def write_page(page: Path, results: Path) -> None:
    """Puts the table between the page's marks; makes a page of the table alone where there is none.

    Raises:
        ValueError: the page has no marks.
    """
    from dg.io.files import write_text

    file = results / "public_priors.jsonl"
    made = table(file.read_text().splitlines() if file.is_file() else [])
    text = page.read_text() if page.is_file() else f"# The public priors, measured\n\n{BEGIN}\n{END}\n"
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{page}: expected the lines {BEGIN} and {END}, between which the table goes")
    write_text(page, f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")
