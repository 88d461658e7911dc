"""Runs within this process, for the end-to-end tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dg.runtime import compose, launch

CONF = Path(__file__).resolve().parents[1] / "conf"
FAST = ("debug=fast", "threads=1", "device=cpu")
BARE = (*FAST, "preview.azimuths=0", "preview.turntable_frames=0")  # debug=fast would beat preview=none


def run(folder: Path, overrides: Sequence[str]) -> Path:
    """A run below `folder`; raises what it raises. Returns its own folder."""
    from dg.runtime.pipeline import run as pipeline

    config = compose.compose(CONF, "train", [f"outdir={folder}", *overrides])
    plain = launch.prepare(config, CONF)
    pipeline(launch.Job(plain, "test", list(overrides)))
    return folder / plain["name"]


def exit_code_of(folder: Path, overrides: Sequence[str]) -> int:
    """The same as the command line would run it: errors are reported on stderr and become an exit code."""
    from dg.runtime.pipeline import run as pipeline

    config = compose.compose(CONF, "train", [f"outdir={folder}", *overrides])
    return launch.run_job(pipeline, config, CONF, "test")[1]


def series(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
