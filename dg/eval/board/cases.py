"""The cases of one board: what every (method, stage) got on every object and seed, failures and gaps filled in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dg.eval.board.notation import metric_of
from dg.eval.board.statistics import Estimate, paired_difference
from dg.eval.records import Record

Entry = tuple[str, str]  # method, stage


@dataclass(frozen=True)
class Failure:
    item: str
    seed: int
    reason: str
    attempts: int  # 0 where nothing was ever recorded


@dataclass(frozen=True)
class Cases:
    """All that was recorded under one hash, one record for each entry, object and seed.

    Attributes:
        items: the objects, in the order of their first appearance.
        figures: the names of all figures that some record has, likewise.
        measurable: (object, figure) that some case without failure has a value of.
    """

    records: dict[Entry, dict[tuple[str, int], Record]]
    items: tuple[str, ...]
    figures: tuple[str, ...]
    measurable: frozenset[tuple[str, str]]

    def failures(self, entry: Entry) -> tuple[Failure, ...]:
        """Recorded failures, and objects of the board that this entry has no record of: a missing item is a failure.

        Not for references: an object without a known truth has no truth row.
        """
        mine = self.records[entry]
        reference = any(record.kind == "reference" for record in mine.values())
        found = []
        for item in self.items:
            for seed in sorted({seed for _, seed in mine}):
                record = mine.get((item, seed))
                if record is None:
                    if reference:
                        continue
                    found.append(Failure(item, seed, *self._why_missing(entry, item, seed)))
                elif record.failure is not None:
                    found.append(Failure(item, seed, record.failure, record.attempts))
        return tuple(found)

    def values(self, entry: Entry, figure: str) -> dict[str, dict[int, float]]:
        """object -> seed -> value. A failed case counts with the figure's worst value if anybody could be measured in
        this figure on this object; a blank is left out."""
        found: dict[str, dict[int, float]] = {}
        mine = self.records[entry]
        known = [r.scores.get(figure) for r in mine.values() if r.failure is None]
        if known and all(value is None for value in known):
            return {}  # this stage cannot be measured so: a failure says nothing either
        for (item, seed), record in mine.items():
            if record.failure is None and (value := record.scores.get(figure)) is not None:
                found.setdefault(item, {})[seed] = float(value)
        metric = metric_of(figure)
        if metric.better != "neither":
            for failure in self.failures(entry):
                if self._counts(failure.item, figure):
                    found.setdefault(failure.item, {})[failure.seed] = metric.worst
        return {item: found[item] for item in self.items if item in found}

    def blank(self, entry: Entry, figure: str) -> str | None:
        """Why the figure is missing on some or all objects; None where it is not."""
        mine = self.records[entry]
        alive = [record for record in mine.values() if record.failure is None]
        reasons = [r.blanks.get(figure, "not measured") for r in alive if r.scores.get(figure) is None]
        if not alive:
            neither = metric_of(figure).better == "neither"
            return "every case failed" if neither or not self.values(entry, figure) else None
        if not reasons:
            return None
        unique = "; ".join(dict.fromkeys(reasons))
        return unique if len(reasons) == len(alive) else f"missing in {len(reasons)} of {len(alive)} cases: {unique}"

    def _counts(self, item: str, figure: str) -> bool:
        if (item, figure) in self.measurable:
            return True
        nobody = not any(where == item for where, _ in self.measurable)  # no case of this object came through
        return nobody and any(name == figure for _, name in self.measurable)

    def _why_missing(self, entry: Entry, item: str, seed: int) -> tuple[str, int]:
        for (method, _), records in self.records.items():
            record = records.get((item, seed))
            if method == entry[0] and record is not None and record.failure is not None:
                return record.failure, record.attempts
        return "no result", 0


def collect(records: Iterable[Record]) -> Cases:
    """The cases of records of one hash. Of several records of one case the one that was finished last counts.

    A method whose config changed is another one under the same name: only the records of its newest config count, so
    that no mean is over two methods.

    Raises:
        ValueError: the records come from different protocols or versions of one.
    """
    records = list(records)
    one_hash(records)
    newest: dict[str, Record] = {}
    for record in records:
        if record.method not in newest or record.finished >= newest[record.method].finished:
            newest[record.method] = record
    records = [record for record in records if record.config == newest[record.method].config]
    found: dict[Entry, dict[tuple[str, int], Record]] = {}
    for record in records:
        cases = found.setdefault((record.method, record.stage), {})
        before = cases.get((record.item, record.seed))
        if before is None or record.finished >= before.finished:
            cases[record.item, record.seed] = record
    kept = [record for cases in found.values() for record in cases.values()]
    return Cases(
        found,
        tuple(dict.fromkeys(record.item for record in records)),
        tuple(dict.fromkeys(figure for record in kept for figure in (*record.scores, *record.blanks))),
        frozenset(
            (r.item, name) for r in kept if r.failure is None for name, value in r.scores.items() if value is not None
        ),
    )


def one_hash(records: Sequence[Record]) -> None:
    """Raises:
    ValueError: figures of different protocols, or of different versions of one, cannot be compared.
    """
    hashes = sorted({f"{record.protocol} {record.protocol_hash}" for record in records})
    if len(hashes) > 1:
        raise ValueError(f"scores of {' and '.join(hashes)} cannot be compared; score both under one protocol version")


def compare(scores: Sequence[Record], baseline: Sequence[Record], figure: str) -> Estimate | None:
    """The paired difference `scores - baseline` of two entries' records in one figure; None without a common object.

    Raises:
        ValueError: they were scored under different hashes, or a side mixes methods or stages.
    """
    both = [*scores, *baseline]
    one_hash(both)
    cases = collect(both)
    entries = []
    for side in (scores, baseline):
        names = {(record.method, record.stage) for record in side}
        if len(names) != 1:
            raise ValueError(f"a comparison needs one method and stage per side, not {sorted(names)}")
        entries.append(names.pop())
    return paired_difference(cases.values(entries[0], figure), cases.values(entries[1], figure))
