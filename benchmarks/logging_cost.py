"""What the loggers cost a whole run: the same short run with each of them, taking turns.

python -m benchmarks.logging_cost [--rounds 5] [--iters 150] [--refine 15]

A short run overstates the cost: starting and ending W&B takes the same few seconds in a run of any length.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._record import ROOT, Timing, record

LOGGERS = ("none", "csv", "tensorboard", "wandb")
RENDERS = 5  # per run, as the default of one in 100 steps gives in a run of 500


def run(logger: str, iters: int, refine: int) -> tuple[float, float]:
    """Seconds on the clock and of the processors, the children's included, of one run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), f"outdir={folder}", "name=run", f"logger={logger}"]
        command += ["device=cpu", f"iters={iters}", f"iters_refine={refine}", f"preview.log_every={iters // RENDERS}"]
        environment = os.environ | {"WANDB_MODE": "offline"}
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or not (Path(folder) / "run" / "mesh.glb").is_file():
            raise RuntimeError(f"logger={logger} failed: {said.decode()[-500:]}")
        return seconds, usage.ru_utime + usage.ru_stime


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iters", type=int, default=150)
    parser.add_argument("--refine", type=int, default=15)
    parser.add_argument("--loggers", nargs="+", default=LOGGERS, choices=LOGGERS)
    options = parser.parse_args(argv)
    loggers = ["none", *(name for name in options.loggers if name != "none")]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in loggers}
    for i in range(options.rounds):
        for name in loggers if i % 2 == 0 else reversed(loggers):
            times[name].append(run(name, options.iters, options.refine))
            print(
                f"round {i + 1}: {name:12} {times[name][-1][0]:6.1f} s, processor {times[name][-1][1]:6.1f} s",
                flush=True,
            )
    for name, pairs in times.items():
        wall, cpu = ([pair[k] for pair in pairs] for k in (0, 1))
        timing = Timing(statistics.median(wall), min(wall), max(wall), statistics.median(cpu), len(pairs))
        ratios = [
            statistics.median(mine[k] / plain[k] for mine, plain in zip(pairs, times["none"], strict=True))
            for k in (0, 1)
        ]
        case = {"logger": name, "iters": options.iters, "iters_refine": options.refine, "renders": RENDERS}
        record("logging_cost", case, timing, ratio=round(ratios[0], 4), cpu_ratio=round(ratios[1], 4))
        print(
            f"{name:12} median {timing.median_s:6.1f} s  {ratios[0] - 1:+.1%} of none, processor {ratios[1] - 1:+.1%}"
        )


if __name__ == "__main__":
    main()
