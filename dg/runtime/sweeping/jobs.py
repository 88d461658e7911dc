"""What came out of a multirun's jobs: their records joined with their run folders' figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dg.runtime.errors import UserError
from dg.runtime.manifest import Manifest
from dg.runtime.pipeline import read_metrics
from dg.runtime.sweep import FILE, JobRecord, read

MULTIRUN = "multirun"


@dataclass(frozen=True)
class Job:
    """Attributes:
    overrides: key -> option or value, as the command line had it.
    figures: the numbers of its metrics.json; empty where there is none.
    seconds: all that it took, over all sessions.
    """

    name: str
    overrides: dict[str, str]
    status: str
    error: str | None
    figures: dict[str, float]
    seconds: float
    config: str = ""  # its hash
    finished: str = ""
    device: str = ""
    objective: str | None = None


def load(sweep: Path) -> list[Job]:
    """The jobs of a sweep's folder, each as it ended last, in the order in which they first ended.

    Raises:
        UserError: no sweep has left its records there.
    """
    path = sweep / FILE
    if not path.is_file():
        raise UserError(f"{sweep} is no folder of a multirun: there is no {FILE} in it{_others(sweep)}")
    newest: dict[tuple[str, ...], JobRecord] = {}
    for record in read(path):
        newest[tuple(sorted(record.overrides))] = record
    return [_job(record, sweep) for record in newest.values()]


def latest(outdir: Path) -> Path:
    """The sweep below `outdir` that was worked on last.

    Raises:
        UserError: there is none.
    """
    found = sorted((outdir / MULTIRUN).glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"there is no multirun below {outdir}: start one with python train.py -m seed=0,1,2")
    return found[-1].parent


def varied(jobs: Sequence[Job]) -> list[str]:
    """The keys that do not have the same value in all jobs, in the order of the command line."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def _job(record: JobRecord, sweep: Path) -> Job:
    folder = _folder(record, sweep)
    manifest = Manifest.load(folder) if folder is not None else None
    results = read_metrics(folder) if folder is not None else {}
    numbers = {k: float(v) for k, v in results.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return Job(
        name=record.name or "",
        overrides=dict(o.lstrip("+").split("=", 1) for o in record.overrides if "=" in o),
        status=record.status,
        error=record.error,
        figures=numbers if record.status == "done" else {},
        seconds=manifest.seconds if manifest is not None else record.seconds,
        config=manifest.config_hash if manifest is not None else "",
        finished=(manifest.finished or "") if manifest is not None else "",
        device=manifest.device if manifest is not None else "",
        objective=record.objective,
    )


def _folder(record: JobRecord, sweep: Path) -> Path | None:
    """The job's run folder: beside the sweep's, where that has its usual place, so that both may move together."""
    if record.name is None or record.folder is None:
        return None
    beside = sweep.parent.parent / record.name
    return beside if sweep.parent.name == MULTIRUN and beside.is_dir() else Path(record.folder)


def _others(sweep: Path) -> str:
    there = sorted(path.parent.name for path in sweep.parent.glob(f"*/{FILE}"))
    return f"; beside it there are {', '.join(there[:5])}" if there else ""
