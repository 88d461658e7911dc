"""The sortable table of one board, with intervals drawn, and its failures."""

from __future__ import annotations

from html import escape

from dg.eval.board.asked import Asked, counted
from dg.eval.board.notation import BLANK, heading, interval, label, metric_of, number, stage_name
from dg.eval.board.table import Board, Cell, Row

_PLOT = 110  # pixels


def board_table(board: Board, people: Asked) -> str:
    scale = _Scale.of(board)
    columns = [_column("#", "rank", "num"), _column("method", "name, and what was measured", "name")]
    columns.append(_column("failures", "cases without a result; they count with the worst score", "num", "lower"))
    for figure in board.figures:
        kind = "num" if figure in board.headline else "num rest"
        metric, part = metric_of(figure), figure.partition("/")[2]
        words = heading(figure.partition("/")[0])
        columns.append(_column(words, f"{figure}: {metric.says}", kind, metric.better, part))
        if figure == board.ranking:
            columns.append(scale.header())
    columns += [_column(f"human: {q}", "mean of a user study; ranks nothing", "num human") for q in people.questions]
    span = len(columns)
    groups = [("methods", board.rows), ("references", board.references)]
    bodies = []
    for name, rows in groups:
        if not rows:
            continue
        lead = f'<tbody class="lead"><tr><th colspan="{span}">references, not ranked</th></tr></tbody>'
        lines = "".join(_row(board, row, people, scale, span) for row in rows)
        bodies.append((lead if name == "references" else "") + f'<tbody class="{name}">{lines}</tbody>')
    head = f"<thead><tr>{''.join(columns)}</tr></thead>"
    return f'<div class="scroll"><table class="sortable">{head}{"".join(bodies)}</table></div>{_legend(board)}'


def _legend(board: Board) -> str:
    against = f" Δ: paired difference to <b>{escape(board.baseline)}</b>," if board.baseline else ""
    marks = '<span class="up">▲</span>\u00a0<span class="down">▼</span>\u00a0where its interval excludes zero.'
    return (
        '<p class="note">Mean over objects and seeds; brackets: 95 % bootstrap interval over objects and seeds within '
        f"them;{against + ' ' + marks if against else ''} {BLANK}: not measured, the reason is its tooltip and in the "
        "row's details. Failed cases count with the worst score.</p>"
    )


def failures_list(board: Board) -> str:
    failed = [(row, failure) for row in board.entries for failure in row.failures]
    total = sum(row.cases for row in board.entries)
    if not failed:
        return f'<p class="failures none">No failures in {total} cases.</p>'
    lines = []
    for row, failure in failed:
        texts = "".join(f"<td>{escape(t)}</td>" for t in (row.method, stage_name(row.stage), failure.item))
        counts = f"<td class=num>{failure.seed}</td><td class=num>{failure.attempts or BLANK}</td>"
        lines.append(f"<tr>{texts}{counts}<td>{escape(failure.reason)}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in ("method", "stage", "object", "seed", "attempts", "reason"))
    table = f"<table class=plain><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    opened = " open" if len(failed) <= 12 else ""
    words = f"<b>{len(failed)}</b> failure{'s' * (len(failed) != 1)} in {total} cases"
    return f'<details class="failures"{opened}><summary>{words}</summary><div class=scroll>{table}</div></details>'


def _column(text: str, tip: str, kind: str, better: str = "", part: str = "") -> str:
    below = f"<small>{escape(part)}</small>" if part else ""
    return (
        f'<th class="{kind}" title="{escape(tip)}" data-better="{better}" aria-sort="none">'
        f'<button type="button">{escape(text)}</button>{below}</th>'
    )


def _row(board: Board, row: Row, people: Asked, scale: _Scale, span: int) -> str:
    rank = BLANK if row.rank is None else f"{row.rank}{'=' if row.tied else ''}"
    stage = escape(stage_name(row.stage))
    chip = "" if row.kind == "reference" else f' <span class="kind {escape(row.kind)}">{escape(row.kind)}</span>'
    base = ' <span class="kind base">baseline</span>' if row.method == board.baseline and row.final else ""
    arrow = "" if row.final else '<span class="sub">↳</span> '
    bad = " bad" if row.failures else ""
    cells = [
        f'<td class="num rank" data-v="{row.rank or ""}">{rank if row.final else ""}</td>',
        f'<td class="name" data-v="{escape(row.method)}"><button type="button" class="open" aria-expanded="false">'
        f"{arrow}{escape(row.method)}</button><div class=stage>{stage}{chip}{base}</div></td>",
        f'<td class="num{bad}" data-v="{len(row.failures)}">{len(row.failures)}<small>of {row.cases}</small></td>',
    ]
    for figure in board.figures:
        cells.append(_cell(board, figure, row.cells[figure]))
        if figure == board.ranking:
            cells.append(f'<td class="plot">{scale.draw(row.cells[figure])}</td>')
    for question in people.questions:
        said = people.said(row, question)
        value, shown = "", BLANK
        if said is not None:
            value, shown = repr(said.mean), f"{said.mean:.2f}<small>{counted(said)}</small>"
        cells.append(f'<td class="num human" data-v="{value}">{shown}</td>')
    kind = "final" if row.final else "other"
    names = f'data-method="{escape(row.method)}" data-stage="{escape(row.stage)}"'
    return (
        f'<tr class="entry {kind}" {names}>{"".join(cells)}</tr>'
        f'<tr class="more" hidden><td colspan="{span}">{_details(row)}</td></tr>'
    )


def _cell(board: Board, figure: str, cell: Cell) -> str:
    headline = figure in board.headline
    kind = "num" if headline else "num rest"
    tip = f' title="{escape(cell.blank)}"' if cell.blank else ""
    if cell.value is None:
        return f'<td class="{kind} blank" data-v=""{tip}>{BLANK}</td>'
    star = "<sup>*</sup>" if cell.blank else ""
    parts = [f"{number(figure, cell.value.mean)}{star}"]
    if within := interval(figure, cell.value):
        parts.append(f"<small>{within}</small>")
    if headline and cell.difference is not None:
        mark = {None: ("", ""), True: ("up", "▲ "), False: ("down", "▼ ")}[cell.better]
        within = interval(figure, cell.difference, True)
        text = number(figure, cell.difference.mean, True)
        shown = f"{text} {within}".strip() if figure == board.ranking else text  # the others' in the tooltip: width
        says = escape(f"difference to {board.baseline}: {text} {within}, over {cell.difference.objects} objects")
        parts.append(f'<small class="delta {mark[0]}" title="{says}">{mark[1]}Δ {shown}</small>')
    return f'<td class="{kind}" data-v="{cell.value.mean!r}"{tip}>{"".join(parts)}</td>'


def _details(row: Row) -> str:
    o = row.origin
    facts = [("revision", o.revision), ("machine", o.machine), ("device", o.device), ("licence", o.licence)]
    facts += [("versions", ", ".join(f"{name} {version}" for name, version in o.versions)), ("finished", o.finished)]
    known = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    command = f"<pre><code>{escape(o.command)}</code></pre>" if o.command else "<p>no command was recorded</p>"
    reasons: dict[str, list[str]] = {}
    for name, cell in row.cells.items():
        if cell.blank:
            reasons.setdefault(cell.blank, []).append(label(name))
    blanks = "".join(f"<li><b>{escape(', '.join(names))}</b>: {escape(why)}</li>" for why, names in reasons.items())
    why = f"<h4>Blanks</h4><ul>{blanks}</ul>" if blanks else ""
    return f"<div class=how><h4>How to make it again</h4>{command}<dl>{known}</dl>{why}</div>"


class _Scale:
    """The axis of a board's interval plots, over its methods; references beyond it stop at the edge."""

    def __init__(self, figure: str | None, low: float, high: float, baseline: float | None) -> None:
        self.figure, self.low, self.high, self.baseline = figure, low, high, baseline

    @classmethod
    def of(cls, board: Board) -> _Scale:
        cells = [row.cells[board.ranking].value for row in board.rows or board.references if board.ranking is not None]
        ends = [end for v in cells if v is not None for end in (v.mean, v.low, v.high) if end is not None]
        low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
        margin = 0.06 * (high - low) or 0.5
        base = next((row for row in board.entries if row.method == board.baseline and row.final), None)
        value = base.cells[board.ranking].value if base is not None and board.ranking is not None else None
        return cls(board.ranking, low - margin, high + margin, None if value is None else value.mean)

    def header(self) -> str:
        figure = self.figure or ""
        ends = f"<span>{number(figure, self.low)}</span><span>{number(figure, self.high)}</span>"
        return (
            f'<th class="plot" title="95 % intervals of the means, {escape(label(figure))}">95 %<div>{ends}</div></th>'
        )

    def draw(self, cell: Cell) -> str:
        if cell.value is None:
            return ""
        mean, low, high = cell.value.mean, cell.value.low, cell.value.high
        marks = ""
        if self.baseline is not None:
            x = self._x(self.baseline)
            marks += f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="20"/>'
        if low is not None and high is not None:
            marks += f'<line class="range" x1="{self._x(low):.1f}" x2="{self._x(high):.1f}" y1="10" y2="10"/>'
        if mean > self.high:
            marks += f'<path class="beyond" d="M{_PLOT - 7} 5l6 5l-6 5z"/>'
        elif mean < self.low:
            marks += '<path class="beyond" d="M7 5l-6 5l6 5z"/>'
        else:
            marks += f'<circle cx="{self._x(mean):.1f}" cy="10" r="4"/>'
        return f'<svg viewBox="0 0 {_PLOT} 20" width="{_PLOT}" height="20" aria-hidden="true">{marks}</svg>'

    def _x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return 4 + min(max(share, 0.0), 1.0) * (_PLOT - 8)
