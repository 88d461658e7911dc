"""evaluate.py from its command line: a board comes out, nothing is done twice, and a crash is a line on the board."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dg.data import objects
from dg.io.images import write_png
from dg.io.mesh import save_mesh
from tests import shapes

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["debug=fast", "protocol.views.size=32", "protocol.views.ssaa=1", "++protocol.points=500", "device=cpu"]
SMALL += ["++protocol.volume_resolution=12", "protocol.alignments=[unaligned]", "measure=[mesh,coarse]"]
METHODS = ["methods=[silhouette]", "references=[truth,billboard]"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balls with truth, one picture that is none."""
    folder = tmp_path_factory.mktemp("set")
    for i, radius in enumerate((0.5, 0.4)):
        mesh = shapes.ball(torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(i)), radius, 12)
        save_mesh(mesh, folder / f"ball{i}.glb")
        write_png(folder / f"ball{i}.png", objects.picture(mesh, 64))
    (folder / "broken.png").write_bytes(b"no picture")
    rows = ["image,truth,recenter", "ball0.png,ball0.glb,false", "ball1.png,ball1.glb,false"]
    (folder / "list.csv").write_text("\n".join([*rows, ""]))
    (folder / "broken.csv").write_text("\n".join([*rows[:2], "broken.png,,false", ""]))
    return folder


def evaluate(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "evaluate.py"), *SMALL, *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def records(board: Path) -> list[dict]:
    path = board / "records.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_board_and_nothing_twice(images: Path, tmp_path: Path) -> None:
    command = [f"images={images / 'list.csv'}", f"outdir={tmp_path}", *METHODS, "protocol.headline=[psnr_db]"]
    done = evaluate(*command)
    assert done.returncode == 0, done.stderr
    board = tmp_path / "leaderboard"
    found = records(board)
    assert {(r["method"], r["item"], r["stage"]) for r in found} == {
        (method, item, stage)
        for item in ("ball0", "ball1")
        for method, stages in {"silhouette": ("mesh", "coarse"), "truth": ("mesh",), "billboard": ("mesh",)}.items()
        for stage in stages
    }
    best = {r["method"]: r["scores"] for r in found if r["item"] == "ball0" and r["stage"] == "mesh"}
    assert best["truth"]["psnr_db"] == 100 and best["truth"]["volume_iou/unaligned"] == 1
    assert best["silhouette"]["seconds"] > 0 and best["billboard"]["volume_iou/unaligned"] < 0.3
    assert all(r["failure"] is None and r["config"] and r["machine"] and r["finished"] for r in found)
    assert "[6/6]" in done.stderr and "left)" in done.stderr
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.html", "objects.csv"):
        assert (board / name).stat().st_size > 100
    again = evaluate(*command)
    assert again.returncode == 0 and "6 of 6 cases are there already" in again.stderr and records(board) == found
    other = evaluate(*command, "iters=7")  # another config is another method's result, beside the first
    assert other.returncode == 0 and len(records(board)) == len(found) + 4


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(images: Path, tmp_path: Path) -> None:
    overrides = [f"images={images / 'list.csv'}", f"outdir={tmp_path}", *METHODS, "protocol.headline=[psnr_db]"]
    command = [sys.executable, str(ROOT / "evaluate.py"), *SMALL, *overrides]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    board = tmp_path / "leaderboard"
    limit = time.monotonic() + 120
    while not records(board) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = records(board)
    assert before
    done = evaluate(*overrides)
    assert done.returncode == 0, done.stderr
    after = records(board)
    assert after[: len(before)] == before and len(after) == 8
    assert len({(r["key"], r["stage"]) for r in after}) == 8


def test_what_cannot_be_read_is_a_failure_on_the_board(images: Path, tmp_path: Path) -> None:
    done = evaluate(f"images={images / 'broken.csv'}", f"outdir={tmp_path}", "methods=[silhouette]", "references=[]")
    assert done.returncode == 0, done.stderr
    failed = [r for r in records(tmp_path / "leaderboard") if r["failure"]]
    assert {r["item"] for r in failed} == {"broken"} and "broken.png" in failed[0]["failure"]
    assert failed[0]["scores"]["watertight"] == 0
    assert "FAILED" in done.stderr and "broken" in (tmp_path / "leaderboard" / "leaderboard.md").read_text()


def test_two_workers_share_the_work(images: Path, tmp_path: Path) -> None:
    done = evaluate(f"images={images / 'list.csv'}", f"outdir={tmp_path}", *METHODS, "workers=2")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "leaderboard")
    assert len(found) == len({(r["key"], r["stage"]) for r in found}) == 8
    assert (tmp_path / "leaderboard" / "leaderboard.html").exists()


MISTAKES = [
    (["methods=[silouette]"], "methods: silouette is neither.*did you mean silhouette"),
    (["references=[thruth]"], "references: there is no thruth; did you mean truth"),
    (["measure=[msh]"], "measure: there is no msh; did you mean mesh"),
    (["protocol=synthetic"], "protocol=synthetic: there is no such option; did you mean synthetic_gt"),
    (["images=/nowhere"], "nowhere"),
    (["method_dir=/nowhere"], "method_dir=/nowhere: there is no folder"),
    (["methods=[ours,ablation:no_denisfy]"], "ablation=no_denisfy: there is no such option; did you mean no_densify"),
    (["seeds=[a]"], "seeds="),
    (["protocol=gso30_nvs"], "data"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=[m[0][0] for m in MISTAKES])
def test_a_mistake_is_one_line(
    images: Path, tmp_path: Path, overrides: list[str], message: str, capsys, monkeypatch
) -> None:
    """In this process: nine starts of Python would take a minute."""
    import re

    from dg.runtime import launch
    from dg.runtime.evaluation.evaluate import run
    from dg.runtime.evaluation.options import EvaluateRoot

    given = [f"images={images / 'list.csv'}"] if not any("images=" in o for o in overrides) else []
    arguments = ["evaluate.py", *given, f"outdir={tmp_path}", "references=[truth]", *overrides]
    kept = {a.partition("=")[0]: a for a in arguments[1:]}
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *kept.values()])
    with pytest.raises(SystemExit) as end:
        launch.main(run, ROOT / "conf", "evaluate", EvaluateRoot)
    error = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and len(error) == 1 and re.search(message, error[0]), error
