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
from dg.eval.records import Record
from dg.io.mesh import save_mesh
from dg.runtime.errors import UserError
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
    text = run.smoke(found, tmp_path / "out", quiet=True)
    records = store.read(tmp_path / "out" / "smoke" / "mine" / "records.jsonl")
    scores = {r.method: r.scores["psnr_db"] for r in records}
    assert set(scores) == {"full", "no_densify"} and "1 object, 1 seed." in text
    assert f"| `full` | {scores['full']:.2f} |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| `no_densify` |")]
    assert f"| {scores['no_densify']:.2f} |" in line and line.endswith("| 0/1 |")
    assert capsys.readouterr().out == "" and [p.name for p in folder.iterdir()] == [definition.FILE]


def test_a_failed_case_fails_the_smallest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / definition.FILE).write_text(yaml.safe_dump(CONTENT))
    found = definition.load("mine", tmp_path)
    bad = [Record(m, "p", "h", "ball", m, "splats", 0, "ours", {}, failure="burst") for m in ("full", "no_densify")]
    monkeypatch.setattr(run, "_made", lambda *given, **named: bad)
    with pytest.raises(UserError, match=r"mine: failed: full, no_densify; see .*smoke"):
        run.smoke(found, tmp_path)


def test_smoke_runs_all_that_need_no_folder_of_yours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def smoke(found: definition.Experiment, outdir: Path, extra: list[str], quiet: bool) -> str:
        asked.append(found.name)
        if found.name == "stages":
            raise UserError("stages broke")
        return f"table of {found.name}"

    monkeypatch.setattr(run, "smoke", smoke)
    assert command.main(["smoke", "--workers", "2"]) == 2
    names = definition.names()
    left = {name for name in names if definition.load(name).needs_data}
    assert sorted(asked) == [name for name in names if name not in left] and len(asked) >= 4
    said = capsys.readouterr()
    assert all(f"{name}: left out" in said.out for name in left)
    assert all(f"table of {name}\n{name}: 0 s" in said.out for name in asked if name != "stages")
    assert "error: stages broke" in said.err and f"of {len(asked)} experiments 1 failed: stages" in said.err
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
