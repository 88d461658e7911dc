"""Multiruns: their folder's name, what their records and run folders say, and the pairs against a plain computation."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dg.eval.board.statistics import sign_flip_p
from dg.io.files import write_json
from dg.runtime.compose import parse
from dg.runtime.errors import UserError
from dg.runtime.manifest import Manifest
from dg.runtime.sweep import FILE, JobRecord, read
from dg.runtime.sweeping import jobs, paired, report, table
from dg.runtime.sweeping.place import folder_name, settled
from dg.sweep import main

SWEPT = ["prior=oracle,point", "ablation=none,no_ref", "seed=0,1,2"]


def test_the_same_sweep_has_the_same_folder() -> None:
    name = folder_name(parse(SWEPT))
    assert name.startswith("prior-ablation-seed-") and name == folder_name(parse(SWEPT))
    for where in ("device=cuda", "logger=wandb", "hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "outdir=x"):
        assert folder_name(parse([*SWEPT, where])) == name, where
    for what in ("iters=7", "input=cat.png", "name=mine", "stages=[mesh]", "prior.image_size=64"):
        assert folder_name(parse([*SWEPT, what])) != name, what
    assert folder_name(parse(["sweep=seeds"])).startswith("seeds-")
    assert folder_name(parse(["prior.profile.lr_scale=interval(0.5,4)"])).startswith("lr_scale-")
    assert settled(parse([*SWEPT, "hydra.sweep.dir=mine"])) == []
    assert settled(parse(SWEPT)) == [f"hydra.sweep.dir=${{outdir}}/multirun/{name}"]


def score(prior: str, ablation: str, seed: int, picture: str) -> float:
    base = {"oracle": 25.0, "point": 15.0}[prior] + 0.1 * seed + len(picture)
    return base - (ablation == "no_ref") * (1.0 + 0.2 * seed)


def written(root: Path, pictures: tuple[str, ...] = ("a.png",), failed: tuple[str, ...] = ()) -> Path:
    """A sweep over prior, ablation, picture and seed; its folder."""
    sweep = root / "multirun" / "mine"
    sweep.mkdir(parents=True)
    lines = []
    combined = product(("oracle", "point"), ("none", "no_ref"), pictures, (0, 1, 2))
    for number, (prior, ablation, picture, seed) in enumerate(combined):
        name = f"{prior}-{ablation}-{picture}-{seed}"
        given = [f"prior={prior}", f"ablation={ablation}", f"input={picture}", f"seed={seed}", "iters=5"]
        status = "failed" if name in failed else "done"
        error = "RunError: it, burst" if status == "failed" else None
        lines.append(JobRecord(number, name, f"elsewhere/{name}", given, status, 2 if error else 0, error, 1.0))
        folder = root / name
        folder.mkdir()
        figures = {"truth/psnr_db": score(prior, ablation, seed, picture), "truth/of": "object:robot", "mesh/faces": 8}
        write_json(folder / "metrics.json", figures)
        Manifest(config_hash=name, seconds=2.5, finished="then").save(folder)
    (sweep / FILE).write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
    return sweep


def test_what_came_out(tmp_path: Path) -> None:
    sweep = written(tmp_path, failed=("point-none-a.png-2",))
    with (sweep / FILE).open("a") as file:
        file.write('{"job": 99, "na')  # cut off
    found = jobs.load(sweep)
    assert len(found) == 12 and jobs.varied(found) == ["prior", "ablation", "seed"]
    assert found[0].figures == {"truth/psnr_db": 30.0, "mesh/faces": 8.0} and found[0].seconds == 2.5
    (bad,) = [job for job in found if job.status == "failed"]
    assert bad.figures == {} and bad.error == "RunError: it, burst"
    rows = list(csv.DictReader(io.StringIO(table.to_csv(found))))
    assert [row["name"] for row in rows] == [job.name for job in found] and rows[3]["iters"] == "5"
    assert rows[3]["truth/psnr_db"] == str(found[3].figures["truth/psnr_db"])
    lines = table.markdown(found).splitlines()
    assert lines[0] == "| `prior` | `ablation` | `seed` | PSNR (dB) ↑ | mesh/faces | seconds | status |"
    assert lines[2] == "| oracle | none | 0 | 30.00 | 8 | 2.5 | done |" and len(lines) == 14
    assert "failed: RunError: it, burst" in next(x for x in lines if x.startswith("| point | none | 2"))


def test_the_best_comes_first_with_an_objective(tmp_path: Path) -> None:
    found = jobs.load(written(tmp_path, failed=("oracle-none-a.png-2",)))
    order = [job.name for job in table.ranked(found, "truth/psnr_db")]
    assert order[:2] == ["oracle-none-a.png-1", "oracle-none-a.png-0"] and order[-1] == "oracle-none-a.png-2"


def test_a_job_that_ran_again_counts_once_as_it_ended_last(tmp_path: Path) -> None:
    sweep = written(tmp_path)
    again = asdict(read(sweep / FILE)[4]) | {"status": "failed", "error": "RunError: late"}
    with (sweep / FILE).open("a") as file:
        file.write(json.dumps(again) + "\n")
    found = jobs.load(sweep)
    assert len(found) == 12 and found[4].status == "failed" and found[4].error == "RunError: late"


@pytest.mark.parametrize("pictures", [("a.png",), ("a.png", "bb.png", "ccc.png")])
def test_pairs_against_a_plain_computation(tmp_path: Path, pictures: tuple[str, ...]) -> None:
    """Over seeds for one picture; over pictures, of means over seeds, for three."""
    found = jobs.load(written(tmp_path, pictures))
    experiment, lines = paired.compared(found, "ablation")
    assert set(experiment.blocks) == {"prior=oracle", "prior=point"} and experiment.baseline == "none"
    for line in lines:
        prior = line.block.removeprefix("prior=")
        own = np.array([[score(prior, line.variant, s, p) for s in (0, 1, 2)] for p in pictures])
        base = np.array([[score(prior, "none", s, p) for s in (0, 1, 2)] for p in pictures])
        assert line.mean.mean == pytest.approx(own.mean()) and line.failures == 0
        if line.variant == "none":
            assert line.difference is None
            continue
        units = (own - base).mean(1) if len(pictures) > 1 else (own - base)[0]
        assert line.difference.mean == pytest.approx(units.mean()) and line.difference.objects == 3
        assert line.difference.low <= units.mean() <= line.difference.high < 0
        assert line.p == pytest.approx(sign_flip_p(list(units)))
    text = paired.markdown(experiment, lines, found)
    assert ("every pair of picture and seed" in text) == (len(pictures) == 1)
    assert "**prior=oracle**" in text and "−1.20" in text


def test_failed_jobs_count_with_the_worst_score(tmp_path: Path) -> None:
    found = jobs.load(written(tmp_path, failed=("oracle-no_ref-a.png-1",)))
    _, lines = paired.compared(found, "ablation")
    (line,) = [x for x in lines if (x.block, x.variant) == ("prior=oracle", "no_ref")]
    assert line.failures == 1 and line.difference.mean < -8


def test_which_key_is_compared(tmp_path: Path) -> None:
    found = jobs.load(written(tmp_path))
    assert paired.key_of(found) == "ablation" and paired.key_of(found, "prior") == "prior"
    with pytest.raises(UserError, match="--over iters was not varied"):
        paired.key_of(found, "iters")
    assert paired.key_of([job for job in found if job.overrides["ablation"] == "none"]) == "prior"
    assert paired.key_of([job for job in found if job.name.startswith("point-none")]) is None
    search = [jobs.Job(str(x), {"lr": str(x), "seed": "0"}, "done", None, {}, 1.0) for x in range(3)]
    assert paired.key_of(search) == "lr"
    search = [jobs.Job(str(x), {"lr": str(x), "k": str(-x)}, "done", None, {}, 1.0) for x in range(3)]
    assert paired.key_of(search) is None


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = written(tmp_path)
    assert main(["report", "--outdir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| oracle | none | 0 | 30.00 |" in said and "**prior=point**" in said
    assert {p.name for p in sweep.iterdir()} == {FILE, "table.md", "table.csv", "paired.md", "paired.csv"}
    assert (sweep / "paired.md").read_text() in said + "\n"
    assert main(["list", "--outdir", str(tmp_path)]) == 0
    assert "12 of 12 jobs done; varied: prior, ablation, seed" in capsys.readouterr().out
    assert main(["report", str(sweep), "--over", "abltion"]) == 2
    assert "did you mean ablation?" in capsys.readouterr().err
    assert main(["report", "--outdir", str(tmp_path / "nothing")]) == 2
    assert "there is no multirun below" in capsys.readouterr().err


def test_a_sweep_without_figures_has_its_table_all_the_same(tmp_path: Path) -> None:
    sweep = written(tmp_path)
    for file in tmp_path.glob("*/metrics.json"):
        file.write_text('{"mesh/faces": 8}')
    written_pages, page = report.write(sweep)
    assert [p.name for p in written_pages] == ["table.md", "table.csv"] and "give truth=FILE" in page
    with pytest.raises(UserError, match="no job has figures"):
        report.write(sweep, over="ablation")
