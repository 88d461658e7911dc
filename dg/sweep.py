"""`python -m dg.sweep list | report [FOLDER] [--over KEY]`: what multiruns have varied and what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dg.runtime.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m dg.sweep", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="what")
    listed = commands.add_parser("list", help="all multiruns below OUTDIR, the newest last")
    shown = commands.add_parser("report", help="rewrite a multirun's tables from its records, and print them")
    shown.add_argument("folder", type=Path, nargs="?", help="of the multirun; the newest by default")
    shown.add_argument("--over", help="the key whose options are compared in pairs; ablation, if it was varied")
    shown.add_argument("--objective", help="the entry of metrics.json that the best comes first by")
    for command in (listed, shown):
        command.add_argument("--outdir", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    from dg.runtime.sweeping import jobs, report

    try:
        if options.what == "report":
            folder = options.folder or jobs.latest(options.outdir)
            print(report.write(folder, options.over, options.objective)[1])
            return 0
        newest = jobs.latest(options.outdir)
        for path in sorted(newest.parent.iterdir(), key=lambda p: p.stat().st_mtime):
            if (path / jobs.FILE).is_file():
                made = jobs.load(path)
                done = sum(job.status == "done" for job in made)
                print(f"{path}: {done} of {len(made)} jobs done; varied: {', '.join(jobs.varied(made)) or 'nothing'}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
