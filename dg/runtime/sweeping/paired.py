"""The options of one swept key against the first of them, paired over pictures and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dg.eval.board.statistics import FEWEST
from dg.eval.records import Record
from dg.runtime.build import nearest
from dg.runtime.errors import UserError
from dg.runtime.experiment import table
from dg.runtime.experiment.definition import Experiment
from dg.runtime.sweeping.jobs import Job, varied
from dg.runtime.truth import PREFIX

UNITS = ("input", "prompt", "seed")  # what pairs are made over
FIGURES = ("psnr_db", "psnr_db/back", "silhouette_iou", "volume_iou/unaligned", "input_psnr_db", "input_iou")
# Figures of a run's own metrics.json that are the catalog's under another name.
FRONT = {"mesh/psnr_ref": "input_psnr_db", "mesh/iou_ref": "input_iou"}
_NOTE = (
    "\n\nFewer than {few} pictures: here every pair of picture and seed stands for an object, and what differs between "
    "objects is not in the intervals."
)


def key_of(jobs: Sequence[Job], asked: str | None = None) -> str | None:
    """Which key's options are compared: the asked one, else `ablation`, else the first that is no picture, seed or
    prior, else the prior; None where no two jobs differ in one of them alone.

    Raises:
        UserError: the asked one was not varied.
    """
    keys = [key for key in varied(jobs) if key not in UNITS]
    if asked is not None:
        if asked not in keys:
            raise UserError(f"--over {asked} was not varied{nearest(asked, keys)}")
        return asked
    order = [*(k for k in keys if k == "ablation"), *(k for k in keys if k != "prior"), *keys]
    return next((key for key in order if _in_pairs(jobs, key)), None)


def _in_pairs(jobs: Sequence[Job], over: str) -> bool:
    """Whether some two jobs differ in this key alone; those of a search differ in everything."""
    others = [frozenset(item for item in job.overrides.items() if item[0] != over) for job in jobs]
    return len(set(others)) < len(others)


def compared(jobs: Sequence[Job], over: str) -> tuple[Experiment, list[table.Line]]:
    """The jobs as an experiment: a block for every combination of the other varied keys, a variant for every option of
    `over`; failed jobs count with the worst score, unfinished ones not at all.

    Raises:
        UserError: no job has a figure that could be compared.
    """
    ended = [job for job in jobs if job.status in ("done", "failed")]
    blocks = [key for key in varied(jobs) if key not in (*UNITS, over)]
    apart = _apart(ended)
    records = [_record(job, over, blocks, apart) for job in ended]
    figures = tuple(f for f in FIGURES if any(r.scores.get(f) is not None for r in records))
    if not figures:
        raise UserError(
            "no job has figures to compare: give truth=FILE (a mesh), or sweep the examples, whose truth is known"
        )
    options = list(dict.fromkeys(job.overrides.get(over, "") for job in ended))
    baseline = "none" if "none" in options else options[0]
    experiment = Experiment(
        name=over,
        folder=Path(),
        question="",
        evaluate=(),
        blocks=dict.fromkeys((_block(job, blocks) for job in ended), ()),
        variants=dict.fromkeys(options, ()),
        baseline=baseline,
        seeds=tuple({r.seed for r in records}),
        figures=figures,
    )
    return experiment, table.lines(experiment, records)


def markdown(experiment: Experiment, lines: Sequence[table.Line], jobs: Sequence[Job]) -> str:
    note = "" if _apart(jobs) else _NOTE.format(few=FEWEST)
    return f"`{experiment.name}`\n\n{table.markdown(lines, experiment)}{note}"


def _apart(jobs: Sequence[Job]) -> bool:
    """Whether there are pictures enough for intervals over them, with the seeds within each."""
    return len({_picture(job) for job in jobs}) >= FEWEST


def _record(job: Job, over: str, blocks: Sequence[str], apart: bool) -> Record:
    seed = int(job.overrides.get("seed", 0))
    scores: dict[str, float | None] = {
        name.removeprefix(PREFIX): value for name, value in job.figures.items() if name.startswith(PREFIX)
    }
    scores |= {FRONT[name]: value for name, value in job.figures.items() if name in FRONT}
    block, variant = _block(job, blocks), job.overrides.get(over, "")
    return Record(
        key=job.name,
        protocol="run",
        protocol_hash="",
        item=_picture(job) if apart else f"{_picture(job)}, seed {seed}",
        method=f"{block}/{variant}" if block else variant,
        stage="mesh",
        seed=seed if apart else 0,
        kind="ours",
        scores=scores,
        failure=job.error if job.status == "failed" else None,
        finished=job.finished,
    )


def _picture(job: Job) -> str:
    return job.overrides.get("input", "") or job.overrides.get("prompt", "") or "the example"


def _block(job: Job, keys: Sequence[str]) -> str:
    return " ".join(f"{key}={job.overrides.get(key, '')}" for key in keys)
