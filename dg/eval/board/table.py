"""The boards of a set of records: one per protocol hash, ranked, with intervals and differences to the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dg.eval.board.cases import Cases, Entry, Failure, collect
from dg.eval.board.notation import STAGES, better, metric_of
from dg.eval.board.statistics import Estimate, mean_estimate, paired_difference
from dg.eval.records import Record

FINAL = ("mesh", "renders", "splats", "coarse")  # a method's result is the first of these stages that it has


@dataclass(frozen=True)
class Cell:
    """One figure of one entry.

    Attributes:
        blank: why there is no value, or not one of every object; None where nothing is missing.
        difference: to the baseline, paired; None for the baseline itself and without a common object.
        better: that difference is surely for the better or worse; None if its interval holds zero.
    """

    value: Estimate | None
    blank: str | None = None
    difference: Estimate | None = None
    better: bool | None = None


@dataclass(frozen=True)
class Origin:
    """Where an entry's results came from: what is needed to make them again. Several values are joined by commas."""

    command: str  # of one case; objects.csv has all
    revision: str
    machine: str
    device: str
    licence: str
    versions: tuple[tuple[str, str], ...]
    finished: str


@dataclass(frozen=True)
class Row:
    """An entry of a board: one stage of one method.

    Attributes:
        final: this stage is the method's result; others are shown below it and not ranked.
        rank: 1 is best; tied methods share a rank; None for references, other stages and blanks.
        tied: another method has the same rank.
        cases: how many (object, seed) cases the figures are over, failures included.
    """

    method: str
    stage: str
    kind: str
    final: bool
    rank: int | None
    tied: bool
    cells: Mapping[str, Cell]
    objects: int
    seeds: int
    cases: int
    failures: tuple[Failure, ...]
    origin: Origin

    @property
    def entry(self) -> Entry:
        return self.method, self.stage


@dataclass(frozen=True)
class Board:
    """Everything that was scored under one hash; scores of another hash are on another board.

    Attributes:
        newest: no later version of this protocol was scored.
        ranking: the figure that ranks; None if nothing that ranks was measured.
        rows: methods, best first, each followed by its other stages.
        references: truth, oracle and the like, in the order of their first appearance; never ranked.
    """

    protocol: str
    hash: str
    newest: bool
    finished: str
    headline: tuple[str, ...]
    figures: tuple[str, ...]
    ranking: str | None
    baseline: str | None
    rows: tuple[Row, ...]
    references: tuple[Row, ...]
    cases: Cases

    @property
    def entries(self) -> tuple[Row, ...]:
        return (*self.rows, *self.references)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(row.method for row in self.entries if row.final)


Headline = Sequence[str] | Mapping[str, Sequence[str]]
Baseline = str | Mapping[str, str] | None


def boards(records: Iterable[Record], *, headline: Headline, baseline: Baseline = None, seed: int = 0) -> list[Board]:
    """One board per hash: protocols in the order of their first appearance, the newest version of each first.

    Args:
        headline: figures shown first, the first one ranks; a mapping gives them per protocol name.
        baseline: the method that differences are paired against, or per protocol name; None: no differences.
        seed: of the bootstrap.
    """
    groups: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        groups.setdefault(record.protocol, {}).setdefault(record.protocol_hash, []).append(record)
    found = []
    for protocol, versions in groups.items():
        place = list(versions)
        order = sorted(versions, key=lambda h: (max(r.finished for r in versions[h]), place.index(h)), reverse=True)
        for i, version in enumerate(order):
            shown = headline.get(protocol, ()) if isinstance(headline, Mapping) else headline
            against = baseline.get(protocol) if isinstance(baseline, Mapping) else baseline
            board = build(versions[version], headline=shown, baseline=against, seed=seed)
            found.append(replace(board, newest=i == 0))
    return found


def build(records: Sequence[Record], *, headline: Sequence[str], baseline: str | None = None, seed: int = 0) -> Board:
    """The board of records of one hash.

    Headline figures that no record has are left out; figures of the catalog's other parts follow in recorded order.

    Raises:
        ValueError: the records mix hashes, or there are none.
    """
    if not records:
        raise ValueError("a board needs at least one record")
    cases = collect(records)
    shown = tuple(name for name in headline if name in cases.figures)
    finals = {entry for entry in cases.records if _is_final(cases, entry)}
    against = next((entry for entry in finals if entry[0] == baseline), None)
    ranking = next((name for name in shown if metric_of(name).better != "neither"), None)
    rows = [_row(cases, entry, against, entry in finals, seed) for entry in cases.records]
    return Board(
        protocol=records[0].protocol,
        hash=records[0].protocol_hash,
        newest=True,
        finished=max(record.finished for record in records),
        headline=shown,
        figures=shown + tuple(name for name in cases.figures if name not in shown),
        ranking=ranking,
        baseline=None if against is None else baseline,
        rows=_ranked([row for row in rows if row.kind != "reference"], ranking),
        references=_with_stages([row for row in rows if row.kind == "reference"]),
        cases=cases,
    )


def _is_final(cases: Cases, entry: Entry) -> bool:
    stages = [stage for method, stage in cases.records if method == entry[0]]
    return entry[1] == min(stages, key=lambda stage: (_order(stage), stages.index(stage)))


def _order(stage: str) -> int:
    return FINAL.index(stage) if stage in FINAL else len(FINAL)


def _row(cases: Cases, entry: Entry, against: Entry | None, final: bool, seed: int) -> Row:
    mine = cases.records[entry]
    cells = {}
    for figure in cases.figures:
        values = cases.values(entry, figure)
        difference = None
        if against is not None and entry != against:
            difference = paired_difference(values, cases.values(against, figure), seed=seed)
        cells[figure] = Cell(
            mean_estimate(values, seed=seed), cases.blank(entry, figure), difference, better(figure, difference)
        )
    failures = cases.failures(entry)
    missing = sum(failure.attempts == 0 for failure in failures)
    return Row(
        method=entry[0],
        stage=entry[1],
        kind=next(iter(mine.values())).kind,
        final=final,
        rank=None,
        tied=False,
        cells=cells,
        objects=len({item for item, _ in mine} | {failure.item for failure in failures}),
        seeds=len({seed for _, seed in mine}),
        cases=len(mine) + missing,
        failures=failures,
        origin=_origin(list(mine.values())),
    )


def _ranked(rows: Sequence[Row], ranking: str | None) -> tuple[Row, ...]:
    finals = [row for row in rows if row.final]
    ordered = finals
    if ranking is not None:
        sign = -1 if metric_of(ranking).better == "higher" else 1
        known = {row.method: value.mean for row in finals if (value := row.cells[ranking].value) is not None}
        finals = sorted(
            finals, key=lambda row: sign * known.get(row.method, sign * float("inf"))
        )  # stable: blanks last
        ordered = []
        for row in finals:
            if row.method not in known:
                ordered.append(row)
                continue
            value = known[row.method]
            ahead = sum(sign * other < sign * value for other in known.values())
            ordered.append(replace(row, rank=ahead + 1, tied=sum(other == value for other in known.values()) > 1))
    return _with_stages([*ordered, *(row for row in rows if not row.final)])


def _with_stages(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Every method's result in the given order, followed by its other stages."""
    found: list[Row] = []
    for row in rows:
        if row.final:
            found.append(row)
            others = [other for other in rows if other.method == row.method and not other.final]
            found.extend(
                sorted(others, key=lambda other: list(STAGES).index(other.stage) if other.stage in STAGES else 9)
            )
    return tuple(found)


def _origin(records: Sequence[Record]) -> Origin:
    versions: dict[str, dict[str, None]] = {}
    for record in records:
        for name, version in record.versions.items():
            versions.setdefault(name, {})[version] = None
    return Origin(
        command=next((record.command for record in records if record.command), ""),
        revision=_joined(record.revision for record in records),
        machine=_joined(record.machine for record in records),
        device=_joined(record.device for record in records),
        licence=_joined(record.licence for record in records),
        versions=tuple((name, ", ".join(found)) for name, found in versions.items()),
        finished=max(record.finished for record in records),
    )


def _joined(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))
