"""Experiments: the definition's mistakes, the statistics against slow ways, the table, and what is kept."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dg.eval import records as store
from dg.eval.board.statistics import holm, sign_flip_p
from dg.eval.records import Record
from dg.experiment import main
from dg.io.images import read_png, write_png
from dg.runtime.ablation import clash, read
from dg.runtime.compose import compose
from dg.runtime.errors import UserError
from dg.runtime.evaluation.methods import given_name, own_overrides
from dg.runtime.experiment import definition, run, table
from dg.runtime.experiment.definition import EXPERIMENTS, load, names
from dg.runtime.options import REPOSITORY

PLAIN = {"question": "Which?", "variants": {"full": [], "none": ["densify=none"]}, "seeds": [0, 1]}


def written(root: Path, content: dict, name: str = "mine") -> str:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / definition.FILE).write_text(yaml.safe_dump(content, sort_keys=False))
    return name


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"variant": {}}, "no key variant.*variants"),
        ({"question": ""}, "question is missing"),
        ({"baseline": "ful"}, "baseline=ful is no variant.*full"),
        ({"stages": ["meshes"]}, "no meshes.*mesh"),
        ({"variants": {"a": ["densify none"]}}, "variants.a.*no override"),
        ({"variants": {"a b": []}}, "without blanks"),
        ({"factors": {"anneal": ["linear"]}}, "either variants"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: dict, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load(written(tmp_path, PLAIN | change), tmp_path)


def test_an_unknown_name_ends_with_2_and_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert main(["report", "paper_ablation"]) == 2
    assert "paper_ablations" in capsys.readouterr().err


def test_factors_are_all_combinations(tmp_path: Path) -> None:
    factors = {"densify": ["dreamgaussian", "none"], "anneal": ["linear", "uniform"]}
    found = load(written(tmp_path, {"question": "?", "factors": factors}), tmp_path)
    assert found.variants["none+uniform"] == ("densify=none", "anneal=uniform")
    assert list(found.variants) == [f"{d}+{a}" for d, a in itertools.product(*factors.values())]
    assert found.baseline == "dreamgaussian+linear"


def test_methods_carry_their_names_and_own_overrides_win(tmp_path: Path) -> None:
    content = PLAIN | {"blocks": {"oracle": ["prior=oracle", "iters=9"]}, "variants": {"a": [], "b": ["iters=5"]}}
    found = load(written(tmp_path, content), tmp_path)
    assert found.methods() == ["as:oracle/a prior:oracle iters:9", "as:oracle/b prior:oracle iters:5"]
    assert given_name(own_overrides(found.methods()[1])) == ("oracle/b", ["prior=oracle", "iters=5"])


@pytest.mark.parametrize("name", names())
def test_every_experiment_of_the_repository_composes(name: str) -> None:
    """Each run's overrides exist, and evaluate.py's command line parses."""
    found = load(name, EXPERIMENTS)
    command = run.command(found, Path("out"), ["data=x"] if "protocol=gt_folder" in found.evaluate else [])
    composed = compose(REPOSITORY / "conf", "evaluate", [*command[1:], *found.smoke])
    assert [str(m) for m in composed.methods] == found.methods()
    for entry in found.methods():
        _, own = given_name(own_overrides(entry))
        exact = ["prior.mesh=truth"] if "prior=oracle" in own else []
        compose(REPOSITORY / "conf", "train", [*own, *exact])
        asked = [o.partition("=")[2].strip("[]").split(",") for o in own if o.startswith("ablation=")]
        overlays = [read(REPOSITORY / "conf" / "ablation" / f"{name}.yaml") for name in itertools.chain(*asked)]
        assert clash(overlays) is None, f"{entry}: a run would refuse it"


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=7))
def test_sign_flips_against_all_patterns(values: list[float]) -> None:
    patterns = itertools.product((1, -1), repeat=len(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in patterns]
    expected = np.mean([s >= abs(sum(values)) - 1e-9 for s in sums])
    assert sign_flip_p(values) == pytest.approx(expected, abs=1e-9) or min(map(abs, values)) < 1e-6


def test_sign_flips_of_many_are_drawn() -> None:
    draw = np.random.default_rng(0)
    assert sign_flip_p(list(draw.normal(1, 0.5, 30))) < 1e-3
    assert sign_flip_p(list(draw.normal(0, 1, 30) * np.tile([1, -1], 15))) > 0.01
    assert sign_flip_p([1.0]) is None


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def records(hash_: str = "h", shift: float = 1.0) -> list[Record]:
    """Four objects, two seeds; `none` is worse by `shift` dB on every object, a little more or less."""
    found = []
    for item, seed, (method, lost) in itertools.product("abcd", (0, 1), (("full", 0.0), ("none", shift))):
        score = 20 + "abcd".index(item) - lost * (1 + 0.1 * "abcd".index(item)) + 0.01 * seed
        scores = {"psnr_db": score, "silhouette_iou": 0.9}
        key = f"{method}{item}{seed}{hash_}"
        found.append(Record(key, "p", hash_, item, method, "mesh", seed, "ours", scores, finished=f"2{hash_}"))
    return found


def test_the_table_pairs_and_corrects(tmp_path: Path) -> None:
    found = load(written(tmp_path, PLAIN), tmp_path)
    full, none = (line for line in table.lines(found, records()) if line.figure == "psnr_db")
    assert (full.variant, full.difference, full.p) == ("full", None, None)
    assert none.difference.mean == pytest.approx(-1.15) and none.difference.high < 0
    assert none.p == pytest.approx(2 / 16) and none.effect == pytest.approx(-1.15 / np.std([1, 1.1, 1.2, 1.3], ddof=1))
    text = table.markdown(table.lines(found, records()), found)
    assert "−1.15" in text and "4 objects, 2 seeds" in text and "0/8" in text
    assert table.to_csv(table.lines(found, records())).count("\n") == 5


def test_a_failed_case_counts_and_old_versions_do_not(tmp_path: Path) -> None:
    found = load(written(tmp_path, PLAIN), tmp_path)
    spoiled = records("i")
    spoiled[-1] = Record(**{**vars(spoiled[-1]), "scores": {}, "failure": "burst"})
    lines = table.lines(found, [*records("h", shift=5.0), *spoiled])
    none = next(line for line in lines if line.variant == "none" and line.figure == "psnr_db")
    assert none.failures == 1 and none.difference.mean < -3
    assert math.isclose(lines[0].mean.mean, 21.505, abs_tol=1e-9)


def test_what_is_kept_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    """A run by another --outdir is kept as the usual one would be; the rest of a command stays."""
    found = load(written(tmp_path, PLAIN), tmp_path)
    command = f"python train.py input={tmp_path}/out/cache/a.png x=1"
    made = [Record(**{**vars(r), "command": command}) for r in records()]
    run._keep(found, made, tmp_path / "out")
    kept = {r.command for r in store.read(found.records)}
    assert kept == {"python train.py input=outputs/experiments/cache/a.png x=1"}


def test_what_is_kept_is_handed_over_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = load(written(tmp_path, PLAIN), tmp_path)
    run._keep(found, records())
    board = tmp_path / "out" / "mine"
    run._hand_over(found, board)
    run._hand_over(found, board)
    assert len((board / "records.jsonl").read_text().split()) > 0
    assert {r.key for r in store.read(board / "records.jsonl")} == {r.key for r in records()}
    assert sum(line.startswith("{") for line in (board / "records.jsonl").read_text().splitlines()) == 16
    run.report(found)
    page = (found.folder / "README.md").read_text()
    assert page.startswith("# Which?") and "−1.15" in page and "−1.15" in capsys.readouterr().out
    run.report(found)
    assert (found.folder / "README.md").read_text() == page


def test_without_records_or_markers_the_mend_is_named(tmp_path: Path) -> None:
    found = load(written(tmp_path, PLAIN), tmp_path)
    with pytest.raises(UserError, match="run mine"):
        run.report(found)
    run._keep(found, records())
    (found.folder / "README.md").write_text("no markers")
    with pytest.raises(UserError, match="table: begin"):
        run.report(found)


def test_effects_stand_side_by_side(tmp_path: Path) -> None:
    """A column for every variant at every stage; what has not all of them is left out; report makes it again."""
    found = load(written(tmp_path, PLAIN | {"stages": ["mesh", "coarse"], "shown": ["a", "b"]}), tmp_path)
    board = tmp_path / "out" / "mine"
    colours = {("full", "mesh"): 0.0, ("full", "coarse"): 0.3, ("none", "mesh"): 0.6, ("none", "coarse"): 0.9}
    made = []
    for (method, stage), grey in colours.items():
        for item in "ab":
            if (method, stage, item) == ("none", "coarse", "b"):
                continue
            files = [f"{method}-{stage}-{item}-{view}.png" for view in range(2)]
            for view, file in enumerate(files):
                write_png(board / file, torch.full((8, 8, 3), grey if view == run.SHOWN_VIEW else 1.0))
            key = f"{method}{item}"
            scores = {"psnr_db": 20 + grey, "silhouette_iou": 0.9}
            made.append(Record(key, "p", "h", item, method, stage, 0, "ours", scores, pictures=tuple(files)))
    run._keep(found, made)
    for record in made:
        store.append(board / "records.jsonl", record)
    run.report(found, tmp_path / "out")
    sheet = read_png(found.folder / "effects.png")[..., :3]
    strip = sheet[sheet.shape[0] - 90]  # amid the only row of tiles
    levels = [round(float(level), 1) for level in strip[:, 0]]
    seen = [level for level, group in itertools.groupby(levels) if len(list(group)) > 100]
    assert seen == [0.0, 0.3, 0.6, 0.9]
    (found.folder / "effects.png").unlink()
    assert run.effects(found, [r for r in made if r.item == "b"], board) == []


def test_textures_from_near_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """close.png shows each variant's own mesh; without the runs one line says how to make them."""
    from dg.io.mesh import save_mesh
    from dg.types import Mesh
    from experiments.texture import __main__ as close

    monkeypatch.setattr(close, "HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["texture", "--runs", str(tmp_path / "runs")])
    assert close.main() == 2 and "dg.experiment run texture" in capsys.readouterr().err
    corners = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]])
    face, uv = torch.tensor([[0, 1, 2]]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    shades = dict(zip(close.VARIANTS, (0.1, 0.4, 0.6, 0.9), strict=True))
    for (variant, shade), item in itertools.product(shades.items(), close.OBJECTS):
        folder = tmp_path / "runs" / f"zero123_mini_{variant}" / f"{item}-0-abcdef"
        folder.mkdir(parents=True)
        save_mesh(Mesh(corners, face, uv, face, torch.full((8, 8, 3), shade)), folder / "mesh.glb")
    assert close.main() == 0
    picture = read_png(tmp_path / "close.png")[..., 0]
    counts = [int(((picture - shade).abs() < 0.005).sum()) for shade in shades.values()]
    assert min(counts) > 1000, "each variant's triangle covers that many pixels, letters do not"
