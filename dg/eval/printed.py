"""Figures as text for a terminal: one row per figure, one column per part, then what is blank and why.

`python -m dg.eval.printed` prints the catalog as docs/metrics.md has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from dg.eval.catalog import CATALOG, metric

_ARROWS = {"higher": "^", "lower": "v", "neither": " "}


def printed(values: Mapping[str, float | None], blanks: Mapping[str, str]) -> str:
    """`^` marks figures that are better when higher, `v` those that are better when lower."""
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in values.items():
        base, _, part = name.partition("/")
        if value is not None:
            rows[base][part] = value
    blocks: list[tuple[tuple[str, ...], list[str]]] = []  # rows that follow each other with the same columns
    for base, parts in rows.items():
        columns = tuple(parts)
        if not blocks or blocks[-1][0] != columns:
            blocks.append((columns, []))
        blocks[-1][1].append(base)
    lines = []
    for columns, bases in blocks:
        if lines and (len(columns) > 1 or len(blocks) > 1):
            lines.append("")
        if columns != ("",):
            lines.append(" " * 24 + "".join(f"{part or 'all':>12}" for part in columns))
        for base in bases:
            unit = metric(base).unit
            label = f"{base.removesuffix('_' + unit.lower()) if unit else base}{f' ({unit})' if unit else ''}"
            cells = "".join(f"{_shown(base, rows[base][part]):>12}" for part in columns)
            lines.append(f"{_ARROWS[metric(base).better]} {label:<22}{cells}")
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in blanks.items():
        reasons[reason].append(name)
    lines += [""] * bool(reasons) + [f"blank: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return "\n".join(lines)


def _shown(base: str, value: float) -> str:
    return f"{value:.{metric(base).digits}f}"


def catalog_table() -> str:
    """The catalog in Markdown."""
    lines = ["| figure | unit | better | a failure gets | what it is |", "|---|---|---|---|---|"]
    for name, row in CATALOG.items():
        failure = "blank" if row.better == "neither" else f"{row.worst:g}"
        lines.append(f"| `{name}` | {row.unit} | {row.better} | {failure} | {row.says} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(catalog_table())
