"""Multiruns as people start them: tables, going on after a kill, optuna, W&B's groups, other processes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from dg.io.mesh import save_mesh
from dg.runtime import launch, sweep
from dg.runtime.manifest import Manifest
from dg.runtime.sweeping import jobs
from dg.runtime.truth import PREFIX
from tests.runs import CONF, series
from tests.shapes import ball

ROOT = Path(__file__).resolve().parents[2]
TINY = ("stages=[gaussians]", "iters=2", "init.num_points=60", "resolution.sizes=[32]", "resolution.boundaries=[]")
TINY += ("resolution.reference=32", "preview=none", "device=cpu", "threads=1")


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test in a folder of its own; Hydra changes the root logger for good."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep.Watch, "current", None)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`python train.py ARGUMENTS` within this process; returns its exit code."""
    from dg.runtime.pipeline import run

    sweep.Watch.current = None
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        launch.main(run, CONF, "train")
    return int(ended.value.code or 0)


def the_sweep() -> Path:
    (record,) = Path("outputs/multirun").glob("*/jobs.jsonl")
    return record.parent


def test_a_key_of_the_swept_options_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "-m", "prior=oracle,point", "prior.image_size=32", "truth=null") == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("error: there is no key prior.image_size") and said.endswith("is given as ++key=value)")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object of the example picture is a ball: the robot takes seconds to make."""
    import torch

    monkeypatch.setattr("dg.data.objects.make", lambda name: ball(torch.full((8, 8, 3), 0.6)))


def test_priors_ablations_and_seeds_end_in_a_paired_table(
    known: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    varied = ("prior=oracle,point", "ablation=none,no_ref", "seed=0")
    assert command(monkeypatch, "-m", *varied, *TINY, "++prior.image_size=32") == 0
    assert "4 of 4 jobs done" in capsys.readouterr().err
    made = jobs.load(the_sweep())
    assert jobs.varied(made) == ["prior", "ablation"]
    assert all({f"{PREFIX}psnr_db", f"{PREFIX}psnr_db/back"} <= set(job.figures) for job in made)
    page = (the_sweep() / "paired.md").read_text()
    assert "**prior=oracle**" in page and "**prior=point**" in page and page.count("| `no_ref` |") == 2
    assert (the_sweep() / "table.md").read_text().count("| done |") == 4
    config = yaml.safe_load((Path("outputs") / made[0].name / "config.yaml").read_text())
    assert config["prior"]["mesh"] == "object:robot" and config["recenter"] is False


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL amid the second of three jobs. The same command keeps the first, resumes the second, makes the third."""
    own = [o for o in TINY if not o.startswith("iters")]
    wanted = [*own, "prior=point", "checkpoint_every=3", "truth=null", "-m", "iters=3,80,4"]
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *wanted], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if list(Path("outputs").glob("*iters=80*/checkpoints/last.ckpt")):
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (broken,) = Path("outputs").glob("*iters=80*")
    before = len(series(broken))
    assert 0 < before < 80 and Manifest.load(broken).status == "running"
    assert [r.status for r in sweep.read(the_sweep() / sweep.FILE)] == ["done"]
    assert command(monkeypatch, *wanted) == 0
    records = sweep.read(the_sweep() / sweep.FILE)[1:]
    assert [(r.status, r.kept) for r in records] == [("done", True), ("done", False), ("done", False)]
    assert Manifest.load(broken).sessions == 2 and [row["step"] for row in series(broken)] == [*range(1, 81)]
    assert "gaussians: going on after step" in (broken / "log.txt").read_text()
    assert len(jobs.load(the_sweep())) == 3 and (the_sweep() / "table.md").read_text().count("| done |") == 3


def test_a_failed_job_is_tried_again_and_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("-m", *TINY, "prior=point", "truth=null", "optim.log_scales=1e30,0.005")
    for kept in (False, True):
        assert command(monkeypatch, *wanted) == 2
        said = capsys.readouterr().err
        assert "1 of 2 jobs done" in said and ("1 of them before" in said) == kept
        assert "not finite" in said
    assert "| failed: RunError: stage gaussians, step " in (the_sweep() / "table.md").read_text()
    bad = next(p for p in Path("outputs").glob("*1e*"))
    assert Manifest.load(bad).sessions == 2


def test_the_command_line_beats_what_a_sweep_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "sweep=seeds", "seed=4,5", *TINY, "prior=point", "truth=null") == 0
    assert [job.overrides["seed"] for job in jobs.load(the_sweep())] == ["4", "5"]
    assert the_sweep().name.startswith("seeds-seed-")


@pytest.mark.slow
def test_optuna_searches_and_the_same_command_proposes_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    save_mesh(ball(torch.full((8, 8, 3), 0.6)), tmp_path / "ball.glb")
    wanted = ("sweep=optuna", *TINY, "prior=point", "truth=ball.glb", "recenter=false")
    assert command(monkeypatch, *wanted, "hydra.sweeper.n_trials=2") == 0
    assert command(monkeypatch, *wanted, "hydra.sweeper.n_trials=3") == 0
    assert "3 of 3 jobs done (2 of them before, kept)" in capsys.readouterr().err
    made = jobs.load(the_sweep())
    best = yaml.safe_load((the_sweep() / "optimization_results.yaml").read_text())
    assert len(made) == 3 and best["best_value"] == max(job.figures["truth/psnr_db"] for job in made)
    first = (the_sweep() / "table.md").read_text().splitlines()[2]
    assert f"{best['best_value']:.2f}" in first and not (the_sweep() / "paired.md").exists()


def test_a_search_without_any_result_ends_with_the_jobs_messages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = (
        "sweep=optuna",
        *TINY,
        "prior=point",
        "objective=splats/psnr_rf",
        "truth=null",
        "hydra.sweeper.n_trials=1",
    )
    assert command(monkeypatch, *wanted) == 2
    said = capsys.readouterr().err
    assert "0 of 1 jobs done" in said and "objective=splats/psnr_rf is no number" in said


class Silent:
    """A logger that keeps what it was made with."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __new__(cls, **given: Any) -> Any:
        from lightning.pytorch.loggers.logger import DummyLogger

        cls.made.append(given)
        return DummyLogger()


def test_the_jobs_of_a_multirun_are_one_group_at_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    Silent.made.clear()
    own = (*TINY, "prior=point", "truth=null", "logger=wandb", f"logger.wandb._target_={__name__}.Silent")
    assert command(monkeypatch, "-m", "seed=0,1", *own) == 0
    assert [given["group"] for given in Silent.made] == [the_sweep().name] * 2
    assert Silent.made[0]["name"] != Silent.made[1]["name"]
    assert command(monkeypatch, *own) == 0 and Silent.made[-1]["group"] is None


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_in_other_processes(launcher: str) -> None:
    own = [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])]
    wanted = [sys.executable, str(ROOT / "train.py"), "-m", *own, *TINY, "prior=point", "truth=null", "seed=0,1"]
    for kept in (False, True):
        done = subprocess.run(wanted, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 jobs done" in done.stderr and ("2 of them before" in done.stderr) == kept
    assert (the_sweep() / "table.md").read_text().count("| done |") == 2
    shutil.rmtree("outputs")


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    old = {"job": 0, "name": "a", "folder": "b", "overrides": [], "status": "done", "exit_code": 0, "error": None}
    file.write_text(json.dumps(old | {"seconds": 1.0}) + "\n")
    (record,) = sweep.read(file)
    assert record.kept is False and record.objective is None
