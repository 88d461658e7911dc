"""Asks an experiment: `python -m dg.experiment list | run NAME [OVERRIDES] | smoke | report NAME | command NAME`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dg.runtime.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m dg.experiment", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="what")
    commands.add_parser("list", help="all experiments and their questions")
    runs = commands.add_parser("run", help="make what is missing, then report")
    runs.add_argument("name")
    runs.add_argument("overrides", nargs="*", help="more overrides of evaluate.py: workers=4 device=cuda")
    runs.add_argument("--smoke", action="store_true", help="the smallest version, to see that it works; keeps nothing")
    runs.add_argument("--outdir", type=Path, default=Path("outputs/experiments"))
    commands.add_parser("smoke", help="the smallest version of every experiment, one after the other")
    reports = commands.add_parser("report", help="rewrite the table from the records")
    reports.add_argument("name")
    shown = commands.add_parser("command", help="evaluate.py's command line, to start several workers of it by hand")
    shown.add_argument("name")
    shown.add_argument("overrides", nargs="*")
    shown.add_argument("--outdir", type=Path, default=Path("outputs/experiments"))
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
            run.run(found, options.outdir, overrides, smoke=options.smoke)
        elif options.what == "smoke":
            _smoke(definition.names())
        elif options.what == "command":
            found = definition.load(options.name)
            print(shlex.join(["python", *run.command(found, options.outdir, overrides)]))
        else:
            run.report(definition.load(options.name))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _smoke(names: Sequence[str]) -> None:
    from dg.runtime.experiment import definition, run

    for name in names:
        found = definition.load(name)
        if found.needs_data:
            print(f"{name}: left out, its objects are in a folder of yours (data=FOLDER)")
            continue
        start = time.monotonic()
        run.run(found, Path("outputs/experiments"), ["overwrite=true"], smoke=True)
        print(f"{name}: {time.monotonic() - start:.0f} s\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
