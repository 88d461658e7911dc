"""One experiment from its file to its table, through evaluate.py as `python -m dg.experiment run` starts it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
import yaml

from dg import experiment as command
from dg.eval import records as store
from dg.io.mesh import save_mesh
from dg.runtime.experiment import definition, run
from dg.runtime.options import REPOSITORY
from tests.shapes import ball

CONTENT = {
    "question": "Does densification help on a ball?",
    "variants": {"full": [], "no_densify": ["ablation=no_densify"], "no_ref": ["ablation=no_ref"]},
    "seeds": [0, 1],
    "stages": ["splats"],
    "smoke": ["protocol.views.size=32"],
}
TINY = ["debug=fast", "prior=silhouette", "prior.image_size=32", "iters=4", "init.num_points=200", "refine=none"]
TINY += ["mesh.render_size=64", "mesh.texture_size=64", "threads=1", "device=cpu", "protocol=gt_folder"]
TINY += ["protocol.metrics=[psnr_db,silhouette_iou]", "protocol.headline=[psnr_db]", "protocol.alignments=[unaligned]"]


def test_the_smallest_of_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The baseline and one variant with one seed: records, a table on the screen, and nothing beside the question."""
    (tmp_path / "data").mkdir()
    save_mesh(ball(torch.full((8, 8, 3), 0.6)), tmp_path / "data" / "ball.glb")
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    content = CONTENT | {"evaluate": [*TINY, f"data={tmp_path / 'data'}"]}
    (folder / definition.FILE).write_text(yaml.safe_dump(content, sort_keys=False))
    found = definition.load("mine", tmp_path / "experiments")
    assert not found.needs_data and list(found.smallest().variants) == ["full", "no_densify"]
    lines = run.run(found, tmp_path / "out", smoke=True)
    assert [(line.variant, line.cases, line.failures) for line in lines if line.figure == "psnr_db"] == [
        ("full", 1, 0),
        ("no_densify", 1, 0),
    ]
    records = store.read(tmp_path / "out" / "smoke" / "mine" / "records.jsonl")
    scores = {r.method: r.scores["psnr_db"] for r in records}
    assert lines[0].mean.mean == pytest.approx(scores["full"])
    assert lines[1].difference.mean == pytest.approx(scores["no_densify"] - scores["full"])
    assert "| `no_densify` |" in capsys.readouterr().out
    assert [p.name for p in folder.iterdir()] == [definition.FILE]


def test_smoke_runs_all_that_need_no_folder_of_yours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(run, "run", lambda found, outdir, extra, smoke: asked.append((found.name, smoke)))
    assert command.main(["smoke"]) == 0
    names = definition.names()
    left = {name for name in names if definition.load(name).needs_data}
    assert asked == [(name, True) for name in names if name not in left] and len(asked) >= 4
    said = capsys.readouterr().out
    assert all(f"{name}: left out" in said for name in left)
    assert re.search(r"^experiments-smoke: .*\n\t\$\(RUN\) -m dg\.experiment smoke$", _makefile(), re.MULTILINE)


def _makefile() -> str:
    return (REPOSITORY / "Makefile").read_text()


def test_records_that_are_kept_have_a_table() -> None:
    """What the repository shows of an experiment is what its records say."""
    for name in definition.names():
        found = definition.load(name)
        if found.records.is_file() and (found.folder / "table.csv").is_file():
            rows = list(csv.DictReader((found.folder / "table.csv").open()))
            assert rows and {row["variant"] for row in rows} <= set(found.variants), name
