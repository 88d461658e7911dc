"""`python -m experiments.prior_design run --library DIR --out DIR [--variants ...] | report [--records FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.prior_design import records


def run(options: argparse.Namespace) -> int:
    from experiments.prior_design.running import run_all

    return run_all(options)


def report(options: argparse.Namespace) -> int:
    made = records.table(records.read(options.records))
    records.write_table(made)
    print(made)
    return 0


def shard(text: str) -> tuple[int, int]:
    """ "1/2" and "2/2": the first and the second half."""
    try:
        i, n = (int(x) for x in text.split("/"))
    except ValueError:
        i, n = 0, 0
    if not 1 <= i <= n:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a whole; the halves are 1/2 and 2/2")
    return i, n


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m experiments.prior_design", description=__doc__)
    commands = top.add_subparsers(required=True)
    runs = commands.add_parser("run", help="trains each variant for a fixed time; appends to OUT/records.jsonl")
    runs.add_argument("--library", type=Path, default=None, help="object library; without, invented objects alone")
    runs.add_argument("--out", type=Path, required=True, help="folder of records.jsonl and sheets")
    runs.add_argument("--variants", nargs="+", default=None, help="all by default")
    runs.add_argument("--seconds", type=float, default=120.0, help="of training per variant")
    runs.add_argument("--device", default="cuda")
    runs.add_argument("--seed", type=int, default=0)
    runs.add_argument("--references", type=int, default=128, help="per step")
    runs.add_argument("--targets", type=int, default=6, help="per reference")
    runs.add_argument("--procedural", type=int, default=8000, help="invented training objects")
    runs.add_argument("--instances", type=int, default=None, help="of the bank: 24576 on CUDA devices, else 16")
    runs.add_argument("--held-out", type=int, default=None, help="references: 256 on CUDA devices, else 1")
    runs.add_argument("--no-compile", action="store_true")
    runs.add_argument("--no-cpu-time", action="store_true", help="where the processor is busy with other work")
    runs.add_argument("--sample", action="store_true", help="also 8 samples of held-out views, and a sheet of them")
    runs.add_argument("--deadline", type=float, default=None, help="unix time after which no variant is started")
    runs.add_argument("--shard", type=shard, default=(1, 1), help="I/N: every N-th variant from the I-th on")
    runs.add_argument("--revision", default=None, help="for the records, where there is no git checkout")
    runs.set_defaults(call=run)
    reports = commands.add_parser("report", help="rewrites the README's table")
    reports.add_argument("--records", type=Path, default=records.RECORDS)
    reports.set_defaults(call=report)
    return top


def main() -> int:
    options = parser().parse_args()
    return options.call(options)


if __name__ == "__main__":  # invented objects are made in processes that import this file again
    sys.exit(main())
