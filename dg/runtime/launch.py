"""From the command line to a job and back to an exit code. train.py and evaluate.py are thin wrappers of `main`."""

from __future__ import annotations

import os
import shlex
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from dg.runtime import ablation, checkpoints, compose, options, promptfile, sweep
from dg.runtime.errors import Interrupted, RunError, UserError, exit_code
from dg.runtime.logging import console

Task = Callable[["Job"], float | None]


@dataclass(frozen=True)
class Job:
    """One run as its task sees it."""

    config: dict[str, Any]  # resolved and validated, with the final name
    command: str
    overrides: list[str]


def main(task: Task, config_dir: Path, config_name: str, root: type = options.Root) -> None:
    """Validates the command line, then hands over to Hydra; exits the process.

    Args:
        task: what a job does; returns a number for a sweeper, or None.
        root: a dataclass of the root keys.
    """
    arguments = _arguments()
    informs = arguments.help or arguments.hydra_help or arguments.shell_completion or arguments.info or arguments.cfg
    command = shlex.join(["python", *sys.argv])
    code: list[int] = []
    config_dir = Path(arguments.config_path or config_dir)
    try:
        if not arguments.shell_completion:
            several = _validate(arguments, config_dir, arguments.config_name or config_name, root, runs=not informs)
            if several and root.folder_per_job:
                from dg.runtime.sweeping.place import settled

                sys.argv += settled(compose.parse(arguments.overrides))
    except Exception as error:
        report(error)
        sys.exit(exit_code(error))
    if informs:
        hydra.main(str(config_dir), config_name, "1.3")(lambda config: None)()
        return

    def job(config: DictConfig) -> float | None:
        value, status = run_job(task, config, config_dir, command, root)
        code.append(status)
        return value

    try:
        hydra.main(str(config_dir), config_name, "1.3")(job)()
    except KeyboardInterrupt:  # it stops the whole sweep; the job has said what it kept
        code.append(130)
    except SystemExit:  # Hydra has said why: a sweeper that got no number at all, a launcher that cannot work here
        if sweep.Watch.current is None:
            raise
        code.append(1)
    watch = sweep.Watch.current
    sys.exit(_end_of_sweep(watch, root.folder_per_job, max(code, default=0)) if watch else max(code, default=0))


def _arguments() -> Namespace:
    """Hydra's flags, wherever they stand: its own parser refuses `a=1 -m b=2,3`, so overrides are moved to the end."""
    arguments = get_args_parser().parse_intermixed_args()
    flags = [a for a in sys.argv[1:] if a not in arguments.overrides]
    try:
        arguments.overrides, several = promptfile.expand(arguments.overrides)
    except UserError as error:
        report(error)
        sys.exit(exit_code(error))
    if several and not arguments.multirun:
        arguments.multirun, flags = True, [*flags, "--multirun"]
    sys.argv[1:] = [*flags, *arguments.overrides]
    return arguments


def run_job(
    task: Task, config: DictConfig, config_dir: Path, command: str, root: type = options.Root
) -> tuple[float | None, int]:
    """One job, whatever happens in it: (its value, its exit code). Never raises but for Ctrl-C within a sweep."""
    start, name, folder = time.monotonic(), None, None
    multirun = sweep.in_multirun()
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    error: BaseException | None = None
    value, kept, plain = None, False, {}
    try:
        plain = prepare(config, config_dir, overrides if multirun else None, root)
        name, folder = str(plain["name"]), str(Path(plain["outdir"]) / str(plain["name"]))
        kept = multirun and root.folder_per_job and _finished(plain)
        value = task(Job(plain, command, overrides))
    except (Exception, KeyboardInterrupt) as caught:
        error = caught
        report(caught)
    code = 0 if error is None else exit_code(error)
    if multirun:
        status = {0: "done", 130: "interrupted"}.get(code, "failed")
        message = None if error is None else f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - start, 3)
        job = int(HydraConfig.get().job.num)
        record = sweep.JobRecord(
            job, name, folder, overrides, status, code, message, seconds, kept, plain.get("objective")
        )
        sweep.write(record)
        if isinstance(error, (KeyboardInterrupt, Interrupted)):
            raise KeyboardInterrupt from error
        value = None if error is not None else value  # a sweeper that needs a number takes that for a failure
    return value, code


def prepare(
    config: DictConfig, config_dir: Path, swept: Sequence[str] | None = None, root: type = options.Root
) -> dict[str, Any]:
    """Settles the run's name, resolves and validates.

    Args:
        config: composed, not resolved; left as it is.
        swept: the job's overrides in a multirun, which then become part of the name.

    Raises:
        UserError: the first mistake found.
    """
    choices = OmegaConf.select(config, "hydra.runtime.choices")
    if choices is None and HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
    ablation.check(config)
    groups = compose.groups(config_dir) | {str(key) for key in choices or () if "/" not in str(key)}
    config = config.copy()
    plain = compose.resolve(config)
    options.validate(plain, groups, root, compose.profile_keys(config_dir))
    name = options.check_name(plain["name"] if plain["name"] is not None else options.default_name(plain))
    apart = swept is not None and getattr(root, "folder_per_job", True)
    config.name = options.sweep_name(name, list(swept or ())) if apart else name
    return compose.resolve(config) | {"prompt": promptfile.caption(plain) or plain["prompt"]}


def _finished(config: dict[str, Any]) -> bool:
    """Whether an earlier session has done all stages of this very config."""
    from dg.runtime.folder import config_hash
    from dg.runtime.manifest import Manifest

    found = Manifest.load(Path(config["outdir"]) / str(config["name"]))
    if found is None or found.status != "done" or found.config_hash != config_hash(config):
        return False
    return all(s in found.stages and found.stages[s].status == "done" for s in options.stages(config))


def _validate(arguments: Namespace, config_dir: Path, config_name: str, root: type, runs: bool) -> bool:
    """Composes what Hydra is about to compose, in a multirun every option of every swept group; checks what `runs`.

    Returns:
        Whether it is a multirun.
    """
    search = [arguments.config_dir] if arguments.config_dir else []
    if search and not Path(search[0]).is_dir():
        raise UserError(f"--config-dir {search[0]}: there is no such folder")
    parsed = compose.parse(arguments.overrides)
    swept = [o for o in parsed if o.is_sweep_override()]
    fixed = [o.input_line for o in parsed if o not in swept]
    first = {o.key_or_group: f"{o.key_or_group}={_any_value(o)}" for o in swept}
    base = compose.compose(config_dir, config_name, [*fixed, *first.values()], search)
    multirun = arguments.multirun or str(base.hydra.mode).endswith("MULTIRUN")
    if swept and not multirun:
        raise UserError(f"{swept[0].input_line} gives several values: add -m to run each, or write a list as [a,b]")
    if not multirun:
        if runs:
            if issubclass(root, options.Root) and root.folder_per_job:
                checkpoints.look(compose.resolve(base))
            prepare(base, config_dir, None, root)
        return False
    try:
        compose.compose(config_dir, config_name, fixed, search)  # as Hydra does first, without the swept options
    except UserError as error:
        raise UserError(f"{error} (a key that the swept options alone have is given as ++key=value)") from error
    own = [o for o in compose.parse(sweep.params(base)) if o.is_sweep_override()]
    first |= {o.key_or_group: f"{o.key_or_group}={_any_value(o)}" for o in own}
    compose.compose(config_dir, config_name, [*fixed, *first.values()], search)
    names = compose.groups(config_dir)
    for override in (*swept, *own):
        if override.key_or_group in names:
            for option in override.sweep_string_iterator():
                others = [v for k, v in first.items() if k != override.key_or_group]
                compose.compose(config_dir, config_name, [*fixed, *others, f"{override.key_or_group}={option}"], search)
    return True


def _any_value(override: Override) -> str:
    value = override.value()
    return str(value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator())))


def _end_of_sweep(watch: sweep.Watch, tables: bool, code: int) -> int:
    """Says what became of the jobs and writes the sweep's tables. Returns the exit code: `code` if no job failed."""
    records = watch.records()
    failed = [r for r in records if r.exit_code]
    kept = sum(r.kept for r in records if not r.exit_code)
    before = f" ({kept} of them before, kept)" if kept else ""
    done = f"{len(records) - len(failed)} of {len(records)} jobs done{before}"
    console.print(f"{done}; records in {watch.path}", markup=False)
    for record in failed:
        console.print(f"  job {record.job} ({' '.join(record.overrides)}): {record.error}", markup=False)
    if tables and records and watch.path is not None:
        from dg.runtime.sweeping import report as pages

        written, _ = pages.write(watch.path.parent)
        console.print(f"{' '.join(str(p) for p in written if p.suffix == '.md')} tell what came out", markup=False)
    codes = {r.exit_code for r in failed}
    return code if not codes else next((c for c in (130, 1) if c in codes), 2)


def report(error: BaseException) -> None:
    """One message on stderr; the traceback only for what is nobody's known mistake, or where it is asked for."""
    known = isinstance(error, (UserError, RunError, Interrupted, KeyboardInterrupt))
    if not known or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error, file=sys.stderr)
        return
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted; the same command continues")
    label = {UserError: "error", RunError: "failed", Interrupted: "stopped"}[type(error)]
    print(f"{label}: {error}", file=sys.stderr)
