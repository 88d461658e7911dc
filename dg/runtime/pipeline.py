"""A run from its config to its folder: the stages in order, then the pictures that show what came out."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

from dg.io.files import write_json
from dg.runtime import device, folder, manifest, options, truth
from dg.runtime.agreement import agreement, without_agreement
from dg.runtime.build import nearest
from dg.runtime.callbacks import StopSignal
from dg.runtime.errors import Interrupted, RunError, UserError
from dg.runtime.lanes import spent
from dg.runtime.launch import Job
from dg.runtime.logging import log, logging_to, to_file
from dg.runtime.media import close_loggers
from dg.runtime.run import Run
from dg.runtime.seed import seed_everything
from dg.runtime.shelf import PriorShelf
from dg.runtime.similarity import similarity, unmeasured, without_similarity
from dg.runtime.stage_runners import RUNNERS


def run(job: Job, shelf: PriorShelf | None = None, quiet: bool = False) -> float | None:
    """Runs `job`'s stages in its folder.

    Args:
        shelf: keeps the prior for the next run.
        quiet: only warnings reach the console.

    Returns:
        The entry of metrics.json that `objective` names, or None.

    Raises:
        UserError, RunError, Interrupted: see `dg.runtime.errors`; the manifest has recorded them.
    """
    config = job.config
    target = device.resolve(config["device"])
    threads = device.set_threads(config["threads"])
    with folder.claim(config) as (path, record), logging_to(path, quiet) as collector, StopSignal().listening() as stop:
        record.command, record.overrides, record.status = job.command, job.overrides, "running"
        record.seed, record.device, record.threads = config["seed"], manifest.device_name(target), threads
        record.revision, record.modified = manifest.git_revision()
        record.versions, record.sessions = manifest.versions(), record.sessions + 1
        record.started, record.finished = record.started or manifest.now(), None
        record.save(path)
        start = spent()
        before = record.seconds
        current = Run(config, path, record, stop, read_metrics(path), shelf or PriorShelf())
        log.info("%s", path)
        seed_everything(config["seed"])
        try:
            _stages(current)
            record.status = "done"
        except BaseException as error:
            known = _recorded(current, error)
            if known is error:
                raise
            raise known from error
        finally:
            close_loggers(current, final_mesh(current))
            record.seconds = round(before + spent() - start, 3)
            record.finished = manifest.now()
            record.warnings = [*record.warnings, *(w for w in collector.messages if w not in record.warnings)]
            _save(current)
        _farewell(current)
        return _objective(current)


def _save(run: Run) -> None:
    """The last writing of the manifest. Where the disk is full, that is said once."""
    try:
        run.manifest.save(run.folder)
    except OSError as error:
        if run.manifest.status == "done":
            raise (folder.no_space(run.folder) if folder.disk_full(error) else error) from error


def _stages(run: Run) -> None:
    ran = False
    for stage, group in (("gaussians", "loss"), ("texture", "refine")):
        if stage in options.stages(run.config):
            run.part(group)  # says what is missing (a network's weights) before anything is computed
    try:
        for stage in options.stages(run.config):
            ran |= RUNNERS[stage](run)
            if run.stop.requested:
                raise Interrupted(f"after stage {stage}; the same command continues")
    except RunError:
        _preview(run)  # what there is shows why it failed
        raise
    if ran or not (run.folder / "metrics.json").exists() or unmeasured(run) or truth.unmeasured(run):
        _preview(run, changed=ran)


def _preview(run: Run, changed: bool = True) -> None:
    """Pictures and figures; `changed`: a stage has run, so what was said of the result before no longer holds."""
    from dg.core.gaussians import activate
    from dg.io.mesh import load_mesh
    from dg.io.ply import read_ply
    from dg.runtime.preview import Subject, write_all

    splats = Path(run.config["gaussians"] or run.folder / "gaussians.ply")
    mesh = final_mesh(run)
    subject = Subject.of(
        run,
        gaussians=activate(read_ply(splats)).to(run.device) if splats.is_file() else None,
        mesh=load_mesh(mesh).to(run.device) if mesh is not None else None,
    )
    run.results |= write_all(run.folder, subject, run.part("preview"), _title(run))
    run.results = without_similarity(run.results) | similarity(run, subject)
    run.results = truth.without_truth(run.results) | truth.measured(run, mesh)
    if changed:
        run.results = without_agreement(run.results) | agreement(run, subject)
    if subject.gaussians is not None:
        run.results["splats/count"] = len(subject.gaussians)
    if subject.mesh is not None:
        run.results |= {"mesh/vertices": len(subject.mesh.vertices), "mesh/faces": len(subject.mesh.faces)}
    run.results |= {f"seconds/{name}": stage.seconds for name, stage in run.manifest.stages.items()}
    write_json(run.folder / "metrics.json", run.results)


def final_mesh(run: Run) -> Path | None:
    """The best mesh that the run's folder holds."""
    meshes = (run.folder / f"mesh.{run.config['mesh_format']}", run.folder / "coarse.glb")
    return next((path for path in meshes if path.is_file()), None)


def _title(run: Run) -> str:
    prior = str(run.config["prior"]["_target_"]).rpartition(".")[2]
    parts = [
        run.config["name"],
        run.config["prompt"],
        prior,
        f"{run.config['iters']} steps",
        f"seed {run.config['seed']}",
    ]
    return " · ".join(str(p) for p in parts if p)


def _recorded(run: Run, error: BaseException) -> BaseException:
    """Writes the failure into manifest and log; returns what to raise."""
    interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("at once; the same command continues from the last checkpoint")
    if folder.disk_full(error):
        error = folder.no_space(run.folder)
    run.manifest.status = "interrupted" if interrupted else "failed"
    for stage in run.manifest.stages.values():
        if stage.status == "failed" and interrupted:
            stage.status = "interrupted"
    if not interrupted:
        run.manifest.failures.append(f"{type(error).__name__}: {error}")
    known = isinstance(error, Interrupted)
    story = f"{type(error).__name__}: {error}" if known else "".join(traceback.format_exception(error))
    to_file(logging.ERROR, story)
    return error


def _farewell(run: Run) -> None:
    from dg.eval.agreement import in_words

    others = (run.folder / name for name in ("gaussians.ply", "zero123_mini.safetensors"))
    best = final_mesh(run) or next((path for path in others if path.exists()), None)
    times = " · ".join(f"{name} {stage.seconds:.1f} s" for name, stage in run.manifest.stages.items())
    log.info("%s  (%s)", best, times)
    for line in in_words(run.results):
        log.info("%s", line)
    if (run.folder / "overview.png").exists():
        log.info("%s shows it from all sides", run.folder / "overview.png")


def read_metrics(path: Path) -> dict[str, Any]:
    """A run folder's metrics.json; empty where there is none."""
    file = path / "metrics.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _objective(run: Run) -> float | None:
    name = run.config["objective"]
    if name is None:
        return None
    results = read_metrics(run.folder)
    if not isinstance(results.get(name), (int, float)):
        raise UserError(f"objective={name} is no number in {run.folder / 'metrics.json'}{nearest(name, results)}")
    return float(results[name])
