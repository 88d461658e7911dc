"""One picture or a prompt becomes a textured 3D mesh: `python train.py input=photo.png`; `--help` tells the rest."""

from __future__ import annotations

from pathlib import Path

from dg.runtime.launch import Job, main


def train(job: Job) -> float | None:
    """One run; its folder is OUTDIR/NAME/."""
    from dg.runtime.pipeline import run  # torch and the rasterisers; --help does not wait for them

    return run(job)


if __name__ == "__main__":
    main(train, Path(__file__).resolve().parent / "conf", "train")
