"""leaderboard.md, and the table that goes into a README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dg.eval.board.asked import Asked, asked, counted
from dg.eval.board.notation import BLANK, heading, interval, label, number, stage_name
from dg.eval.board.published import WARNING, Published
from dg.eval.board.table import Baseline, Board, Cell, Headline, Row, boards
from dg.eval.human import Judgement
from dg.eval.records import Record

BEGIN, END = "<!-- leaderboard: begin -->", "<!-- leaderboard: end -->"


class _Notes:
    """Footnotes: the same text gets the same number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"<sup>{self.texts.index(text) + 1}</sup>"

    def lines(self) -> list[str]:
        return [f"<sup>{i}</sup> {escape(text)}  " for i, text in enumerate(self.texts, 1)]


def markdown(
    found: Sequence[Board], title: str, published: Sequence[Published] = (), judgements: Sequence[Judgement] = ()
) -> str:
    """The whole file: current boards, failures, older versions, then what others published."""
    lines = [f"# {escape(title)}", ""]
    for board in (board for board in found if board.newest):
        lines += _section(board, asked(board, judgements))
    older = [board for board in found if not board.newest]
    if older:
        lines += [
            "# Older versions",
            "",
            "Scored under other versions of the protocols; not comparable with the above.",
            "",
        ]
        for board in older:
            lines += _section(board, asked(board, judgements))
    if published:
        lines += ["# As published", "", WARNING, ""]
        for table in published:
            lines += [f"## {escape(table.title)}", "", escape(f"{table.source}. {table.note}"), ""]
            lines += [*_grid([*table.columns], [[escape(cell) for cell in row] for row in table.rows]), ""]
    return "\n".join(lines).rstrip() + "\n"


def readme_table(
    records: Iterable[Record],
    *,
    headline: Headline,
    baseline: Baseline = None,
    protocol: str | None = None,
    figures: Sequence[str] | None = None,
) -> str:
    """The newest board of one protocol as a short table, between the markers that `replace_between` looks for.

    Args:
        protocol: its name; None: the first one in the records.
        figures: columns; None: the headline.

    Raises:
        ValueError: there is no board of that protocol.
    """
    current = [board for board in boards(records, headline=headline, baseline=baseline) if board.newest]
    board = next((board for board in current if protocol in (None, board.protocol)), None)
    if board is None:
        raise ValueError(
            f"no records of protocol {protocol}; there are {', '.join(b.protocol for b in current) or 'none'}"
        )
    notes = _Notes()
    lines = [BEGIN, *_table(board, figures or board.headline, Asked(), notes), "", *notes.lines(), _caption(board), END]
    return "\n".join(lines)


def replace_between(text: str, table: str) -> str:
    """`text` with what lies between the markers, and they themselves, replaced by `table`.

    Raises:
        ValueError: the markers are not there, each once and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the file must hold {BEGIN} and, after it, {END}, each once")
    return text[: text.index(BEGIN)] + table + text[text.index(END) + len(END) :]


def escape(text: str) -> str:
    """Text as it is, in Markdown: no markup, no cell or line breaks."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]#~])", r"\\\1", text).replace("\n", " ").replace("\r", " ")


def _code(text: str) -> str:
    """A code span, fenced by more backticks than the text has in a row (CommonMark, section 6.1)."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _section(board: Board, people: Asked) -> list[str]:
    notes = _Notes()
    lines = [f"## {escape(board.protocol)} `{board.hash}`", "", *_table(board, board.headline, people, notes)]
    lines += ["", *notes.lines(), _caption(board), ""]
    rest = [name for name in board.figures if name not in board.headline]
    if rest:
        lines += ["<details><summary>All other figures (means)</summary>", ""]
        lines += [*_others(board, rest), "", "</details>", ""]
    failed = [(row, failure) for row in board.entries for failure in row.failures]
    lines += [f"### Failures: {len(failed)} of {sum(row.cases for row in board.entries)} cases", ""]
    if failed:
        lines += [
            *_grid(
                ["method", "stage", "object", "seed", "reason"],
                [[*_names(row), escape(f.item), str(f.seed), escape(f.reason)] for row, f in failed],
            ),
            "",
        ]
    lines += ["### How to make these again", ""]
    for row in (row for row in board.entries if row.final):
        o = row.origin
        facts = [f"revision {o.revision}" if o.revision else "", o.machine, o.device, o.licence]
        command = f" {_code(o.command)}" if o.command else ""
        lines.append(f"- **{escape(row.method)}**{command} {escape('; '.join(filter(None, facts)))}".rstrip())
    return [*lines, ""]


def _table(board: Board, figures: Sequence[str], people: Asked, notes: _Notes) -> list[str]:
    against = board.baseline is not None and board.ranking in figures
    columns = ["#", "method", "stage", *(heading(name) for name in figures)]
    if against:
        columns.append(f"Δ {label(board.ranking or '')} to {escape(board.baseline or '')}")
    columns += [*(f"human: {escape(q)}" for q in people.questions), "failures"]
    body = []
    for row in board.entries:
        cells = [_cell(name, row.cells[name], notes) for name in figures]
        if against:
            cells.append(_difference(board.ranking or "", row.cells[board.ranking or ""]))
        for question in people.questions:
            said = people.said(row, question)
            cells.append(BLANK if said is None else f"{said.mean:.2f} ({counted(said)})")
        body.append([_rank(row), *_names(row), *cells, f"{len(row.failures)}/{row.cases}"])
    return _grid(columns, body)


def _others(board: Board, figures: Sequence[str]) -> list[str]:
    """One row per figure, one column per entry: there are more figures than a page is wide."""
    columns = ["figure", *(" · ".join(_names(row)) for row in board.entries)]
    body = []
    for name in figures:
        values = [row.cells[name].value for row in board.entries]
        body.append([escape(heading(name)), *(BLANK if v is None else number(name, v.mean) for v in values)])
    return _grid(columns, body)


def _caption(board: Board) -> str:
    seeds = max(row.seeds for row in board.entries)
    text = (
        f"{escape(board.protocol)} `{board.hash}`: {len(board.cases.items)} objects, {seeds} seed{'s' * (seeds > 1)}; "
    )
    text += "mean over objects and seeds with the 95 % bootstrap interval, failures counted with the worst score"
    return text + ("; Δ paired per object, bold where its interval excludes zero." if board.baseline else ".")


def _cell(figure: str, cell: Cell, notes: _Notes) -> str:
    mark = notes.mark(cell.blank) if cell.blank else ""
    if cell.value is None:
        return BLANK + mark
    return f"{number(figure, cell.value.mean)} {interval(figure, cell.value)}".strip() + mark


def _difference(figure: str, cell: Cell) -> str:
    if cell.difference is None:
        return BLANK
    text = f"{number(figure, cell.difference.mean, signed=True)} {interval(figure, cell.difference, True)}".strip()
    return text if cell.better is None else f"**{text}**"


def _rank(row: Row) -> str:
    if row.kind == "reference":
        return "ref"
    return "" if row.rank is None else f"{row.rank}{'=' if row.tied else ''}"


def _names(row: Row) -> list[str]:
    return [escape(row.method), escape(stage_name(row.stage))]


def _grid(columns: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(row)} |" for row in body]
