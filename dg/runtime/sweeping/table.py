"""One line a job: what was varied and what came out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from dg.eval.board.notation import heading, number
from dg.runtime.sweeping.jobs import Job, varied
from dg.runtime.truth import PREFIX

# Of metrics.json, in this order, as far as they are there; table.csv has all.
SHOWN = (
    *(f"{PREFIX}psnr_db", f"{PREFIX}psnr_db/back", f"{PREFIX}silhouette_iou", f"{PREFIX}volume_iou/unaligned"),
    *("clip/image_image", "clip/text_image", "mesh/psnr_ref", "splats/psnr_ref", "splats/count", "mesh/faces"),
)
MOST = 7  # columns of figures


def shown(jobs: Sequence[Job], objective: str | None = None) -> list[str]:
    """The figures that a page shows, the objective first."""
    known = {name for job in jobs for name in job.figures}
    wanted = [*([objective] if objective else []), *(name for name in SHOWN if name != objective)]
    return [name for name in wanted if name in known][:MOST]


def markdown(jobs: Sequence[Job], objective: str | None = None) -> str:
    """A line for every job. With an objective, the best first; the direction is the catalog's (higher, if unknown)."""
    keys, figures = varied(jobs), shown(jobs, objective)
    rows = [[*(f"`{key}`" for key in keys), *map(_heading, figures), "seconds", "status"]]
    rows.append(["---"] * len(rows[0]))
    for job in ranked(jobs, objective) if objective else jobs:
        cells = [
            *(_short(job.overrides.get(key, "")) for key in keys),
            *(_number(f, job.figures.get(f)) for f in figures),
        ]
        status = job.status if job.error is None else f"{job.status}: {_cell(job.error)}"
        rows.append([*cells, f"{job.seconds:.1f}", status])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ranked(jobs: Sequence[Job], objective: str) -> list[Job]:
    """The best first, those without the figure last."""
    from dg.eval.board.notation import metric_of

    sign = -1.0 if metric_of(objective.removeprefix(PREFIX)).better != "lower" else 1.0
    return sorted(jobs, key=lambda job: (objective not in job.figures, sign * job.figures.get(objective, 0.0)))


def to_csv(jobs: Sequence[Job]) -> str:
    """All jobs with all their overrides and all numbers, unrounded."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    figures = sorted({name for job in jobs for name in job.figures})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *keys, "status", "seconds", "device", "config", "finished", *figures, "error"])
    for job in jobs:
        given = [job.overrides.get(key, "") for key in keys]
        facts = (job.status, job.seconds, job.device, job.config, job.finished)
        writer.writerow([job.name, *given, *facts, *(job.figures.get(f) for f in figures), job.error])
    return text.getvalue()


def _heading(figure: str) -> str:
    return heading(figure.removeprefix(PREFIX)) if figure.startswith(PREFIX) else f"{figure}"


def _number(figure: str, value: float | None) -> str:
    if figure.startswith(PREFIX):
        return number(figure.removeprefix(PREFIX), value)
    return "–" if value is None else f"{value:.0f}" if value == int(value) else f"{value:.3f}"


def _short(value: str) -> str:
    """A sampled number has more digits than anybody reads."""
    try:
        return f"{float(value):.6g}" if len(value) > 8 else value
    except ValueError:
        return value


def _cell(text: str, limit: int = 120) -> str:
    one = " ".join(text.split()).replace("|", "\\|")
    return one if len(one) <= limit else f"{one[: limit - 1]}…"
