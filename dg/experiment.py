"""Asks an experiment: `python -m dg.experiment list | run NAME [OVERRIDES] | smoke | report NAME | command NAME`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from dg.runtime.errors import UserError
from dg.runtime.experiment.definition import OUTDIR


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m dg.experiment", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="what")
    commands.add_parser("list", help="all experiments and their questions")
    runs = commands.add_parser("run", help="make what is missing, then report")
    runs.add_argument("name")
    runs.add_argument("overrides", nargs="*", help="more overrides of evaluate.py: workers=4 device=cuda")
    runs.add_argument("--smoke", action="store_true", help="the smallest version, to see that it works; keeps nothing")
    runs.add_argument("--outdir", type=Path, default=OUTDIR)
    smokes = commands.add_parser("smoke", help="the smallest version of every experiment")
    smokes.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="so many at once")
    reports = commands.add_parser("report", help="rewrite the table from the records, the picture where the runs lie")
    reports.add_argument("name")
    reports.add_argument("--outdir", type=Path, default=OUTDIR)
    shown = commands.add_parser("command", help="evaluate.py's command line, to start several workers of it by hand")
    shown.add_argument("name")
    shown.add_argument("overrides", nargs="*")
    shown.add_argument("--outdir", type=Path, default=OUTDIR)
    options, late = parser.parse_known_args(arguments)  # argparse takes no more positionals after an option
    if any(a.startswith("-") for a in late) or (late and options.what not in ("run", "command")):
        parser.error(f"unrecognised: {' '.join(late)}")
    overrides = [*getattr(options, "overrides", ()), *late]
    from dg.runtime.experiment import definition, run

    try:
        if options.what == "list":
            for name in definition.names():
                print(f"{name}: {definition.load(name).question}")
        elif options.what == "run":
            found = definition.load(options.name)
            if options.smoke:
                print(run.smoke(found, options.outdir, overrides))
            else:
                run.run(found, options.outdir, overrides)
        elif options.what == "smoke":
            _smoke(definition.names(), options.workers)
        elif options.what == "command":
            found = definition.load(options.name)
            print(shlex.join(["python", *run.command(found, options.outdir, overrides)]))
        else:
            run.report(definition.load(options.name), options.outdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _smoke(names: Sequence[str], workers: int) -> None:
    """The smallest version of each, `workers` at once on one thread each; tables as they come.

    Raises:
        UserError: names those that failed, after the others have run.
    """
    from dg.runtime.experiment import definition, run

    def made(name: str) -> tuple[str, float]:
        start = time.monotonic()
        small = definition.load(name)
        text = run.smoke(small, OUTDIR, ["overwrite=true", "threads=1"], quiet=True)
        return text, time.monotonic() - start

    left = [name for name in names if definition.load(name).needs_data]
    for name in left:
        print(f"{name}: left out, its objects are in a folder of yours (data=FOLDER)", flush=True)
    failed = []
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(made, name): name for name in names if name not in left}
        for done in as_completed(running):
            try:
                text, seconds = done.result()
                print(f"{text}\n{running[done]}: {seconds:.0f} s\n", flush=True)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                failed.append(running[done])
    if failed:
        raise UserError(f"of {len(running)} experiments {len(failed)} failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    sys.exit(main())
