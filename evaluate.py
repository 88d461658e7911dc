"""Methods on a set of objects, measured against the truth and compared: `python evaluate.py images=DIR`."""

from __future__ import annotations

from pathlib import Path

from dg.runtime.evaluation.options import EvaluateRoot, spread
from dg.runtime.launch import Job, main


def evaluate(job: Job) -> float | None:
    """One worker's share of a board; the board's folder is OUTDIR/NAME/."""
    from dg.runtime.evaluation.evaluate import run  # torch and the rasterisers; --help does not wait for them

    return run(job)


if __name__ == "__main__":
    spread()
    main(evaluate, Path(__file__).resolve().parent / "conf", "evaluate", EvaluateRoot)
