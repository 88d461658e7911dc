"""Timings as records: JSON lines under benchmarks/results/, one per measurement, with machine and revision."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of several runs, and the processor time of all threads together.

    On a busy machine the minimum says more than the median, and the processor time more than either.
    """

    median_s: float
    min_s: float
    max_s: float
    cpu_median_s: float | None  # None where it was not measured
    runs: int


def measure(function: Callable[[], Any], *, runs: int = 15, warmup: int = 3, device: str = "cpu") -> Timing:
    """Calls `function` `warmup` times unmeasured (compilation, caches), then `runs` times. Waits for CUDA devices."""
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds, cpu_seconds = [], []
    for _ in range(warmup + runs):
        wait()
        start, cpu_start = time.perf_counter(), time.process_time()
        function()
        wait()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    measured, cpu = seconds[warmup:], statistics.median(cpu_seconds[warmup:])
    return Timing(statistics.median(measured), min(measured), max(measured), cpu, runs)


def record(
    benchmark: str,
    case: dict[str, Any],
    timing: Timing,
    *,
    device: str = "cpu",
    results: Path | None = None,
    **values: Any,
) -> dict[str, Any]:
    """Appends one line to <benchmark>.jsonl of the folder `results` (default benchmarks/results/) and returns it.

    Args:
        case: what was measured (sizes, implementation).
        values: what else came out of it (errors, memory).
    """
    line = {"benchmark": benchmark, **case, **asdict(timing), **values, **surroundings(device)}
    folder = results or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{benchmark}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def surroundings(device: str = "cpu") -> dict[str, Any]:
    """Where and on what a measurement was made; nothing that identifies the machine or its user."""
    import torch

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": " ".join(
            [
                "python",
                "-m",
                f"benchmarks.{Path(sys.argv[0]).stem}".removesuffix(".__main__"),
                *map(_portable, sys.argv[1:]),
            ]
        ),
    }


def _portable(argument: str) -> str:
    """Of a path, its last part: a record names no folder of the machine that made it."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def revision() -> str:
    """`git_revision` in short: the commit, with "+" if the code differs from it; "unknown" where nothing tells."""
    from dg.runtime.manifest import git_revision

    commit, modified = git_revision()
    return "unknown" if commit is None else commit[:12] + "+" * bool(modified)


def _cpu() -> str:
    """The processor's name, its family and model where the name says nothing (virtual machines)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')} model {fields.get('model', '?')})"
