"""Twenty kills at random moments, and a run that is none the worse for them. Minutes, not seconds: `make test-slow`."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = "iters=120 checkpoint_every=5 init.num_points=1500 densify.start=10 densify.interval=20 resolution.sizes=[64] "
SMALL += "resolution.boundaries=[] preview=none stages=[gaussians] device=cpu name=run"
COMMAND = [sys.executable, str(ROOT / "train.py"), *SMALL.split()]


WHOLE = "debug=fast prior=point iters=150 checkpoint_every=5 densify.start=10 densify.interval=20 iters_refine=40 "
WHOLE += "refine.size=128 preview=none device=cpu name=run"
EVERY_STAGE = [sys.executable, str(ROOT / "train.py"), *WHOLE.split()]
RESULTS = ("gaussians.ply", "coarse.glb", "mesh.glb")


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """SIGKILL anywhere between the first checkpoint's time and the end, through all three stages."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start = time.monotonic()
    subprocess.run([*EVERY_STAGE, f"outdir={whole}"], check=True, capture_output=True)
    seconds = time.monotonic() - start
    draw, kills, hit = random.Random(0), 0, set()
    while kills < 20:
        process = subprocess.Popen([*EVERY_STAGE, f"outdir={broken}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            process.wait(timeout=draw.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            hit |= {line.split()[0] for line in process.stdout.read().decode().splitlines()[-1:]}
            continue
        assert process.returncode == 0, process.stdout.read().decode()
        assert unlike(whole, broken) == []
        subprocess.run(["rm", "-rf", str(broken)], check=True)  # it got through before the kill: from the start again
    last = subprocess.run([*EVERY_STAGE, f"outdir={broken}"], capture_output=True, text=True)
    assert last.returncode == 0, last.stdout + last.stderr
    assert unlike(whole, broken) == []
    assert {"gaussians", "texture"} <= hit  # kills fell into both stages that keep a state


def unlike(whole: Path, broken: Path) -> list[str]:
    return [n for n in RESULTS if (whole / "run" / n).read_bytes() != (broken / "run" / n).read_bytes()]


def test_the_same_command_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    short = [*COMMAND, "iters=25", "densify.interval=10"]
    for folder in ("a", "b"):
        subprocess.run([*short, f"outdir={tmp_path / folder}"], check=True, capture_output=True)
    first, second = ((tmp_path / f / "run" / "gaussians.ply").read_bytes() for f in ("a", "b"))
    assert first == second


def test_zero123_runs_to_the_end_on_a_checkpoint_in_the_public_layout(tmp_path: Path) -> None:
    from tests import tiny_checkpoints

    folder = tiny_checkpoints.zero123(tmp_path / "checkpoint")
    command = [sys.executable, str(ROOT / "train.py"), "prior=zero123", "ablation=no_densify", "device=cpu", "iters=3"]
    command += [f"prior.checkpoint={folder}", "prior.image_size=64", "resolution.sizes=[64,64,64]", "preview=none"]
    command += ["init.num_points=300", "stages=[gaussians]", f"outdir={tmp_path}", "name=tiny"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "tiny" / "gaussians.ply").stat().st_size > 10_000
