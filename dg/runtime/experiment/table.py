"""From records to the answer: paired differences with intervals, significance and effect size."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dg.eval.board.cases import Cases, collect
from dg.eval.board.notation import heading, interval, label, number, stage_name
from dg.eval.board.statistics import Estimate, Scores, holm, mean_estimate, paired_difference, sign_flip_p
from dg.eval.records import Record
from dg.runtime.experiment.definition import Experiment

ALPHA = 0.05


@dataclass(frozen=True)
class Line:
    """One variant at one stage in one figure.

    Attributes:
        p: two-sided, of the sign-flip test over objects, corrected (Holm) for all variants of the block and figure.
        effect: Cohen's d_z, the mean of the objects' differences over their standard deviation.
    """

    block: str
    variant: str
    stage: str
    figure: str
    mean: Estimate | None
    difference: Estimate | None = None
    p: float | None = None
    effect: float | None = None
    failures: int = 0
    cases: int = 0


def newest(records: Iterable[Record]) -> list[Record]:
    """Those of the protocol version that was scored last."""
    records = list(records)
    if not records:
        return []
    last = max(records, key=lambda r: r.finished)
    return [r for r in records if r.protocol_hash == last.protocol_hash]


def lines(experiment: Experiment, records: Sequence[Record]) -> list[Line]:
    """Every variant, stage and figure that has records; the baseline first within its block."""
    cases = collect(newest(records))
    found = []
    for block in experiment.blocks:
        for figure in experiment.figures:
            found += _compared(_plain(experiment, cases, block, figure), cases, experiment)
    return found


def _plain(experiment: Experiment, cases: Cases, block: str, figure: str) -> list[Line]:
    order = [experiment.baseline, *(v for v in experiment.variants if v != experiment.baseline)]
    found = []
    for variant in order:
        for stage in experiment.stages:
            entry = experiment.method(block, variant), stage
            if entry not in cases.records:
                continue
            failures, done = len(cases.failures(entry)), len(cases.records[entry])
            mean = mean_estimate(cases.values(entry, figure))
            found.append(Line(block, variant, stage, figure, mean, failures=failures, cases=done))
    return found


def _compared(plain: list[Line], cases: Cases, experiment: Experiment) -> list[Line]:
    """The lines with their differences to the first of them, the baseline."""
    if not plain or plain[0].variant != experiment.baseline:
        return plain

    def values(line: Line) -> Scores:
        return cases.values((experiment.method(line.block, line.variant), line.stage), line.figure)

    base, others = values(plain[0]), plain[1:]
    each = [differences(values(line), base) for line in others]
    corrected = holm([sign_flip_p(d) for d in each])
    compared = [
        Line(
            **{**vars(line), "difference": paired_difference(values(line), base), "p": p, "effect": effect_size(d)},
        )
        for line, d, p in zip(others, each, corrected, strict=True)
    ]
    return [plain[0], *compared]


def differences(scores: Scores, baseline: Scores) -> list[float]:
    """Per object that both have: the difference of the means over seeds."""
    both = [name for name in sorted(set(scores) & set(baseline)) if scores[name] and baseline[name]]
    return [float(np.mean(list(scores[n].values())) - np.mean(list(baseline[n].values()))) for n in both]


def effect_size(each: Sequence[float]) -> float | None:
    """Cohen's d_z; None for fewer than two objects or without any spread."""
    spread = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
    return float(np.mean(each)) / spread if spread > 0 else None


def markdown(found: Sequence[Line], experiment: Experiment) -> str:
    """A table per block: every figure's mean and paired difference, and the first figure's p and effect size."""
    parts = []
    for block in experiment.blocks:
        mine = [line for line in found if line.block == block]
        if mine:
            parts.append((f"**{block}**\n\n" if block else "") + _grid(mine, experiment.figures))
    parts.append(_caption(found, experiment))
    return "\n\n".join(parts)


def _caption(found: Sequence[Line], experiment: Experiment) -> str:
    means = [line.mean for line in found if line.mean is not None]
    objects = max((m.objects for m in means), default=0)
    seeds = max((round(m.values / m.objects) for m in means), default=0)
    return (
        f"{objects} object{'s' * (objects > 1)}, {seeds} seed{'s' * (seeds > 1)}. Δ: paired difference to "
        f"`{experiment.baseline}` with its 95 % bootstrap interval over objects and seeds; bold where p < {ALPHA} "
        f"after Holm's correction. p: two-sided sign-flip test over objects, d: effect size (mean over standard "
        f"deviation of the objects' differences), both of {label(experiment.figures[0])}. Failures count with the "
        f"worst score."
    )


def _grid(mine: Sequence[Line], figures: Sequence[str]) -> str:
    by: dict[tuple[str, str], dict[str, Line]] = {}
    for line in mine:
        by.setdefault((line.variant, line.stage), {})[line.figure] = line
    several = len({stage for _, stage in by}) > 1
    columns = ["variant", *(["stage"] if several else [])]
    for figure in figures:
        columns += [heading(figure), "Δ"]
    columns += ["p", "d", "failures"]
    rows = [columns, ["---"] * len(columns)]
    for (variant, stage), of in by.items():
        cells = [f"`{variant}`", *([stage_name(stage)] if several else [])]
        for figure in figures:
            line = of[figure]
            cells += ["–" if line.mean is None else number(figure, line.mean.mean), _delta(line)]
        first = of[figures[0]]
        cells += ["" if first.p is None else f"{first.p:.3f}", "" if first.effect is None else f"{first.effect:+.1f}"]
        rows.append([*cells, f"{first.failures}/{first.cases}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _delta(line: Line) -> str:
    if line.difference is None:
        return ""
    text = f"{number(line.figure, line.difference.mean, signed=True)} {interval(line.figure, line.difference, True)}"
    return f"**{text.strip()}**" if line.p is not None and line.p < ALPHA else text.strip()


def to_csv(found: Iterable[Line]) -> str:
    """All numbers, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["block", "variant", "stage", "figure", "mean", "low", "high", "difference", "difference_low"]
    writer.writerow([*names, "difference_high", "p_holm", "effect_dz", "objects", "values", "failures", "cases"])
    for line in found:
        m, d = line.mean, line.difference
        mean: Mapping | tuple = (None,) * 3 if m is None else (m.mean, m.low, m.high)
        delta = (None,) * 3 if d is None else (d.mean, d.low, d.high)
        sizes = (0, 0) if m is None else (m.objects, m.values)
        head = (line.block, line.variant, line.stage, line.figure)
        writer.writerow([*head, *mean, *delta, line.p, line.effect, *sizes, line.failures, line.cases])
    return text.getvalue()
