"""`python train.py` as people use it: what it leaves, what it says, how it stops and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dg.io.images import read_png
from dg.io.mesh import load_mesh
from dg.io.ply import read_ply
from dg.runtime.callbacks import Steps
from dg.runtime.errors import Interrupted, RunError, UserError
from dg.runtime.manifest import Manifest
from tests.runs import BARE, FAST, run, series

ROOT = Path(__file__).resolve().parents[2]
DENSIFY = ("densify.start=2", "densify.interval=2")


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The newcomer's command, but shrunk: the example picture, nothing else given."""
    folder = tmp_path_factory.mktemp("work")
    return folder, cli(folder, *FAST, *DENSIFY)


def test_the_folder_of_a_run(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, result = finished
    assert result.returncode == 0, result.stderr
    assert [p.name for p in folder.iterdir()] == ["outputs"]  # no lightning_logs, no .hydra, no multirun
    (made,) = (folder / "outputs").iterdir()
    files = {"config.yaml", "manifest.json", "metrics.jsonl", "metrics.json", "log.txt", "gaussians.ply", "coarse.glb"}
    files |= {"mesh.glb", "overview.png", "turntable.mp4", "views", "checkpoints"}
    assert files == {p.name for p in made.iterdir()} - {".lock"}
    assert len(list((made / "views").glob("*.png"))) == 8
    assert len(read_ply(made / "gaussians.ply")) > 0
    mesh = load_mesh(made / "mesh.glb")
    assert len(mesh.faces) > 0 and mesh.texture is not None
    picture = read_png(made / "overview.png")
    assert picture.shape[1] > 4 * 64 and picture.std() > 0.05
    assert (made / "turntable.mp4").stat().st_size > 1000


def test_the_manifest_tells_the_story(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    (made,) = (finished[0] / "outputs").iterdir()
    manifest = Manifest.load(made)
    assert manifest.status == "done" and manifest.seed == 0 and manifest.failures == [] and manifest.threads == 1
    assert list(manifest.stages) == ["gaussians", "mesh", "texture"]
    assert all(s.status == "done" and s.peak_memory_mb > 0 for s in manifest.stages.values())
    assert manifest.command.endswith(" ".join(FAST + DENSIFY)) and manifest.overrides == [*FAST, *DENSIFY]
    assert {"dg", "torch", "python"} <= set(manifest.versions)
    assert yaml.safe_load((made / "config.yaml").read_text())["iters"] == 6
    metrics = json.loads((made / "metrics.json").read_text())
    assert {"splats/psnr_ref", "mesh/iou_ref", "splats/count", "mesh/faces", "seconds/gaussians"} <= set(metrics)
    steps = [(row["stage"], row["step"]) for row in series(made)]
    assert steps == [("gaussians", i) for i in range(1, 7)] + [("texture", 1), ("texture", 2)]
    assert {"refine/loss/known", "refine/loss/novel"} <= set(series(made)[-1])
    assert {"train/loss/rgb", "train/t", "train/num_gaussians"} <= set(series(made)[0])


def test_it_says_little_when_nobody_watches(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, result = finished
    lines = (result.stdout + result.stderr).splitlines()
    assert len(lines) < 40
    assert not [line for line in lines if "Tip" in line or "GPU available" in line or "\x1b" in line]
    last = next(i for i, line in enumerate(lines) if "mesh.glb" in line and " s" in line)
    assert len(lines) - last <= 5  # the result, what it knows of itself in three lines, the overview
    assert lines[last + 1].startswith("front against the picture") and "overview.png" in lines[-1]


def test_again_keeps_what_is_done_and_another_config_is_refused(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    outputs = finished[0] / "outputs"
    made = run(outputs, [*FAST, *DENSIFY])
    assert (made / "log.txt").read_text().count("done before, kept") == 3
    manifest = Manifest.load(made)
    assert manifest.sessions == 2 and len(series(made)) == 8
    with pytest.raises(UserError, match=r"it differs in .*seed.*overwrite=true"):
        run(outputs, [*FAST, *DENSIFY, "seed=1"])
    assert Manifest.load(made) == manifest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["itres=3"], "error: there is no key itres; did you mean iters?"),
        (["prior=silouette"], "error: prior=silouette: there is no such option; did you mean silhouette?"),
        (["input=nothing.png"], "error: input=nothing.png: there is no such file"),
        (["-m", "prior=point,silouette"], "did you mean silhouette?"),
        (["seed=1,2"], "add -m to run each"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = cli(tmp_path, *arguments)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1 and result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_help_and_the_config_can_be_read(tmp_path: Path) -> None:
    shown = cli(tmp_path, "--help")
    assert (
        shown.returncode == 0 and "python train.py input=photo.png" in " ".join(shown.stdout.split())
    ) or "prior:" in shown.stdout
    config = cli(tmp_path, "iters=7", "--cfg", "job")
    assert config.returncode == 0 and yaml.safe_load(config.stdout)["iters"] == 7


def test_missing_weights_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^prior: .*no/such/folder") as caught:
        run(tmp_path, [*BARE, "prior=zero123", "ablation=no_densify", "prior.checkpoint=no/such/folder"])
    assert "\n" not in str(caught.value)
    (folder,) = tmp_path.iterdir()
    assert Manifest.load(folder).status == "failed"


def test_a_sweep_records_failures_and_goes_on(tmp_path: Path) -> None:
    result = cli(tmp_path, *BARE, "stages=[gaussians]", "-m", "iters=0,2", "seed=3")
    assert result.returncode == 2, result.stderr
    (record,) = (tmp_path / "outputs" / "multirun").glob("*/jobs.jsonl")
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert rows[0]["error"] == "UserError: iters=0 must be at least 1"
    assert (tmp_path / rows[1]["folder"] / "gaussians.ply").is_file()
    assert rows[1]["name"].endswith("iters=2,seed=3")
    assert "1 of 2 jobs done" in result.stderr


def test_one_stage_alone(tmp_path: Path, finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    (made,) = (finished[0] / "outputs").iterdir()
    folder = run(tmp_path, [*BARE, "stages=[mesh]", f"gaussians={made / 'gaussians.ply'}"])
    assert folder.name == f"{made.name}-mesh" and (folder / "coarse.glb").is_file()
    assert not (folder / "mesh.glb").exists() and not (folder / "gaussians.ply").exists()
    folder = run(tmp_path, [*BARE, "stages=[texture]", f"mesh_file={made / 'coarse.glb'}", "mesh_format=obj"])
    assert {"mesh.obj", "mesh.mtl"} <= {p.name for p in folder.iterdir()}
    outputs = Manifest.load(folder).stages["texture"].outputs
    assert {"mesh.obj", "mesh.mtl"} <= set(outputs)


def test_ctrl_c_keeps_the_state_and_the_result_is_as_if_nothing_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [*BARE, "stages=[gaussians]", "iters=8", "checkpoint_every=100"]
    whole = run(tmp_path / "whole", wanted)
    with monkeypatch.context() as patch:
        after = Steps.on_train_batch_end

        def interrupted(self: Steps, trainer: Any, module: Any, *rest: Any) -> None:
            after(self, trainer, module, *rest)
            if module.step == 4:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(Steps, "on_train_batch_end", interrupted)
        with pytest.raises(Interrupted, match=r"after step 5 of 8; the same command continues"):
            run(tmp_path / "broken", wanted)
    folder = tmp_path / "broken" / whole.name
    manifest = Manifest.load(folder)
    assert manifest.status == "interrupted" and manifest.stages["gaussians"].status == "interrupted"
    assert [row["step"] for row in series(folder)] == [1, 2, 3, 4, 5]
    assert run(tmp_path / "broken", [*wanted, "resume=true"]) == folder
    assert [row["step"] for row in series(folder)] == list(range(1, 9))
    for a, b in zip(*(read_ply(f / "gaussians.ply").as_dict().values() for f in (whole, folder)), strict=True):
        assert torch.equal(a, b)
    assert Manifest.load(folder).sessions == 2


class Killed(BaseException):
    """As if the process ended here: nothing in the code expects it."""


def test_a_texture_stage_that_was_cut_off_ends_as_the_unbroken_one(
    tmp_path: Path, finished: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = (finished[0] / "outputs").iterdir()
    wanted = [*BARE, "prior=point", "stages=[texture]", f"mesh_file={made / 'coarse.glb'}", "refine.size=64"]
    wanted += ["iters_refine=8", "checkpoint_every=3"]
    whole = run(tmp_path / "whole", wanted)
    after = Steps.on_train_batch_end

    def at(step: int, act: Any) -> None:
        def hook(self: Steps, trainer: Any, module: Any, *rest: Any) -> None:
            after(self, trainer, module, *rest)
            if module.step == step:
                act()

        monkeypatch.setattr(Steps, "on_train_batch_end", hook)

    def die() -> None:
        raise Killed

    at(5, die)  # two steps after the state was kept
    with pytest.raises(Killed):
        run(tmp_path / "broken", wanted)
    at(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"in stage texture after step 7 of 8; the same command continues from there"):
        run(tmp_path / "broken", wanted)
    folder = tmp_path / "broken" / whole.name
    assert [row["step"] for row in series(folder)] == [1, 2, 3, 4, 5, 6, 7]
    at(0, die)
    run(tmp_path / "broken", wanted)
    assert (folder / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
    assert series(folder) == series(whole)
    assert "going on after step 3 of 8" in (folder / "log.txt").read_text()
    assert "going on after step 7 of 8" in (folder / "log.txt").read_text()


def test_the_state_of_another_mesh_is_not_taken_up(
    tmp_path: Path, finished: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    (made,) = (finished[0] / "outputs").iterdir()
    wanted = [*BARE, "prior=point", "stages=[texture]", "refine.size=64", "iters_refine=4", "checkpoint_every=3"]
    own = run(tmp_path, [*wanted, f"mesh_file={made / 'coarse.glb'}", "name=own"])
    inputs = torch.load(own / "checkpoints" / "texture.ckpt", weights_only=False)["inputs"]
    assert list(inputs) == ["coarse.glb"] and inputs == Manifest.load(own).stages["texture"].inputs
    state = torch.load(own / "checkpoints" / "texture.ckpt", weights_only=False)
    torch.save(state | {"inputs": {"coarse.glb": "another"}}, own / "checkpoints" / "texture.ckpt")
    before = (own / "mesh.glb").read_bytes()
    (own / "mesh.glb").unlink()
    run(tmp_path, [*wanted, f"mesh_file={made / 'coarse.glb'}", "name=own"])
    assert (own / "mesh.glb").read_bytes() == before
    assert "belongs to another input file: the stage begins again" in (own / "log.txt").read_text()
    (own / "mesh.glb").unlink()
    (own / "checkpoints" / "texture.ckpt").write_bytes(b"half a file")
    run(tmp_path, [*wanted, f"mesh_file={made / 'coarse.glb'}", "name=own"])
    assert (own / "mesh.glb").read_bytes() == before
    assert "cannot be read" in (own / "log.txt").read_text()


def test_a_nan_stops_the_run_and_names_the_tensor(tmp_path: Path) -> None:
    wanted = [*BARE, "stages=[gaussians]", "optim.log_scales=1e30", "checkpoint_every=1"]
    with pytest.raises(RunError, match=r"stage gaussians, step 1: scales is not finite"):
        run(tmp_path, wanted)
    (folder,) = tmp_path.iterdir()
    manifest = Manifest.load(folder)
    assert manifest.status == "failed" and "not finite" in manifest.failures[0]
    assert not (folder / "gaussians.ply").exists()


def test_a_mesh_that_fails_leaves_the_splats_and_their_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no surface: the density peaks at 0.01")

    monkeypatch.setattr("dg.stages.mesh.extract", nothing)
    with pytest.raises(RunError, match=r"^stage mesh: no surface: the density peaks at 0\.01$"):
        run(tmp_path, FAST)
    (folder,) = tmp_path.iterdir()
    manifest = Manifest.load(folder)
    assert manifest.status == "failed" and manifest.stages["mesh"].status == "failed"
    assert manifest.stages["gaussians"].status == "done" and (folder / "gaussians.ply").is_file()
    assert (folder / "overview.png").is_file() and len(list((folder / "views").iterdir())) == 4
    assert "Traceback" in (folder / "log.txt").read_text()


def test_a_damaged_file_is_the_users_to_mend(tmp_path: Path) -> None:
    bad = tmp_path / "bad.ply"
    bad.write_bytes(b"not a ply")
    with pytest.raises(UserError, match=r"^gaussians: .*bad\.ply is not a ply file"):
        run(tmp_path / "out", [*BARE, "stages=[mesh]", f"gaussians={bad}"])


def test_values_without_effect_warn_and_are_errors_when_strict(tmp_path: Path) -> None:
    wanted = [*BARE, "stages=[gaussians]", "densify.start=100"]
    folder = run(tmp_path, [*wanted, "name=loose"])
    assert any("densify" in w and "100" in w for w in Manifest.load(folder).warnings)
    with pytest.raises(UserError, match=r"densify.*strict=true"):
        run(tmp_path, [*wanted, "name=strict", "strict=true"])
