"""The run folder: one config, one folder, one process; and files that are complete or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dg.io.files import append_line, atomic, sha256, write_json, write_text
from dg.runtime import folder
from dg.runtime.callbacks import StopSignal
from dg.runtime.errors import UserError
from dg.runtime.manifest import Manifest, StageRecord
from dg.runtime.run import Run


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"a cat")
    return {
        "input": str(picture), "gaussians": None, "mesh_file": None, "name": "cat", "outdir": str(tmp_path / "out"),
        "stages": ["gaussians"], "iters": 10, "seed": 0, "device": "cpu", "threads": None, "resume": "auto",
        "overwrite": False, "strict": False, "checkpoint_every": 5, "objective": None,
        "task": {"kind": "image", "default_input": "x"}, "raster": {"_target_": "a.b", "device": "cpu"},
    }  # fmt: skip


def finish(config: dict[str, Any], text: str = "result") -> Path:
    """A run that left a result."""
    with folder.claim(config) as (path, manifest):
        write_text(path / "gaussians.ply", text)
        output = {"gaussians.ply": sha256(path / "gaussians.ply")}
        manifest.stages["gaussians"] = StageRecord(status="done", outputs=output)
        manifest.save(path)
    return path


def test_same_config_goes_on_with_its_manifest(config: dict[str, Any]) -> None:
    path = finish(config)
    with folder.claim(config) as (again, manifest):
        assert again == path and manifest.stages["gaussians"].status == "done"
        assert (path / "gaussians.ply").exists()


def test_another_config_is_refused_and_told_what_differs(config: dict[str, Any]) -> None:
    finish(config)
    with (
        pytest.raises(
            UserError, match=r"another config \(it differs in iters, seed\); give another name=, or overwrite"
        ),
        folder.claim(config | {"seed": 1, "iters": 20}),
    ):
        pass


def test_overwrite_replaces_another_configs_results_and_nothing_else(config: dict[str, Any]) -> None:
    path = finish(config)
    (path / "notes.txt").write_text("mine")
    with folder.claim(config | {"seed": 1, "overwrite": True}) as (_, manifest):
        assert not manifest.stages
        assert not (path / "gaussians.ply").exists()
        assert (path / "notes.txt").read_text() == "mine"


def test_a_folder_without_results_is_free_for_another_config(config: dict[str, Any]) -> None:
    with folder.claim(config) as (_, manifest):
        manifest.failures.append("no weights")
    with folder.claim(config | {"seed": 1}) as (_, manifest):
        assert manifest.failures == []


@pytest.mark.parametrize(
    "change",
    [{"outdir": None}, {"stages": ["mesh"]}, {"device": "cuda"}, {"raster": {"_target_": "a.b", "device": "cuda"}}],
    ids=str,
)
def test_where_and_how_far_do_not_change_the_hash(config: dict[str, Any], change: dict[str, Any]) -> None:
    assert folder.config_hash(config | change) == folder.config_hash(config)


def test_content_of_the_input_counts_and_not_its_place(config: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(b"a cat")
    assert folder.config_hash(config | {"input": str(copy)}) == folder.config_hash(config)
    copy.write_bytes(b"another cat")
    assert folder.config_hash(config | {"input": str(copy)}) != folder.config_hash(config)


def test_resume_true_insists_and_false_begins_again(config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="nothing to resume"), folder.claim(config | {"resume": True}):
        pass
    path = finish(config)
    with folder.claim(config | {"resume": True}) as (_, manifest):
        assert "gaussians" in manifest.stages
    with folder.claim(config | {"resume": False}) as (_, manifest):
        assert not manifest.stages and not (path / "gaussians.ply").exists()


def test_a_strangers_files_are_not_touched(config: dict[str, Any]) -> None:
    path = Path(config["outdir"]) / "cat"
    path.mkdir(parents=True)
    (path / "gaussians.ply").write_text("somebody's")
    with pytest.raises(UserError, match="is no run's folder"), folder.claim(config):
        pass
    assert (path / "gaussians.ply").read_text() == "somebody's"


def test_two_processes_do_not_share_a_folder(config: dict[str, Any]) -> None:
    with folder.claim(config), pytest.raises(UserError, match="another process"), folder.claim(config):
        pass
    with folder.claim(config):
        pass  # free again


def test_manifest_round_trip_and_damage(tmp_path: Path) -> None:
    manifest = Manifest("abc", stages={"mesh": StageRecord("done", 1.5, outputs={"coarse.glb": "x"})}, warnings=["w"])
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    (tmp_path / "manifest.json").write_text('{"config_hash": "a", "stag')
    assert Manifest.load(tmp_path) is None


def run_in(path: Path, manifest: Manifest) -> Run:
    return Run({"device": "cpu"}, path, manifest, StopSignal())


def test_a_stage_runs_once_and_again_when_files_change(tmp_path: Path) -> None:
    source, result = tmp_path / "in.ply", tmp_path / "out.glb"
    source.write_text("one")
    calls = []

    def work() -> list[Path]:
        calls.append(1)
        result.write_text("made of " + source.read_text())
        return [result]

    manifest = Manifest("h")
    assert run_in(tmp_path, manifest).do("mesh", [source], work)
    assert not run_in(tmp_path, manifest).do("mesh", [source], work)
    source.write_text("two")
    assert run_in(tmp_path, manifest).do("mesh", [source], work)
    result.write_text("tampered")
    assert run_in(tmp_path, manifest).do("mesh", [source], work)
    result.unlink()
    assert run_in(tmp_path, manifest).do("mesh", [source], work)
    assert len(calls) == 4
    assert Manifest.load(tmp_path).stages["mesh"].outputs == {"out.glb": sha256(result)}


def test_a_failed_stage_is_booked_and_tried_again(tmp_path: Path) -> None:
    manifest = Manifest("h")

    def fails() -> list[Path]:
        raise ValueError("no surface")

    with pytest.raises(ValueError, match="no surface"):
        run_in(tmp_path, manifest).do("mesh", [], fails)
    assert Manifest.load(tmp_path).stages["mesh"].status == "failed"
    assert not run_in(tmp_path, manifest).is_done("mesh", {})


def test_atomic_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["mesh.obj"]
    with atomic(path) as temporary:
        temporary.write_text("new")
        (temporary.parent / "mesh.mtl").write_text("companion")
    assert path.read_text() == "new" and sorted(os.listdir(tmp_path)) == ["mesh.mtl", "mesh.obj"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [1.5, float("inf")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [1.5, None]}


def test_lines_are_appended(tmp_path: Path) -> None:
    for i in range(3):
        append_line(tmp_path / "deep" / "a.jsonl", json.dumps({"i": i}))
    assert (tmp_path / "deep" / "a.jsonl").read_text() == '{"i": 0}\n{"i": 1}\n{"i": 2}\n'
