"""Every option of the groups that need a checkpoint, a mesh or a stage of their own runs; see test_every_option.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dg.io.mesh import load_mesh
from tests import tiny_checkpoints
from tests.config.test_groups import ROOT
from tests.every_option import (  # noqa: F401 - fixtures
    BASE,
    EAGER,
    MESH,
    POINT,
    SMALL,
    STAGE1,
    STEPS,
    at_home,
    inputs,
    names,
    sets_of_overlays,
    steps_of,
    ten_steps,
)
from tests.fake_alexnet import write_random_alexnet
from tests.runs import exit_code_of, run

PARTS = {"magic123": ("zero123", "sd")}


@pytest.mark.parametrize("prior", names("prior"))
def test_priors(prior: str, place: Path, tmp_path: Path) -> None:
    given = [f"prior={prior}", "preview=none", "init.num_points=600"]
    given += [f"prior.mesh={place / 'ball.glb'}"] if prior.startswith("oracle") else []
    for part in PARTS.get(prior, (prior,)):
        if part in tiny_checkpoints.WRITERS:
            at = "prior" if part == prior else f"prior.parts.{part}"
            given += [f"{at}.checkpoint={tiny_checkpoints.WRITERS[part](tmp_path / part)}", f"{at}.image_size=64"]
    given += ["task=text"] if prior in ("sd", "mvdream") else []
    given += ["prompt=a cat"] if prior in ("sd", "mvdream", "imagedream", "magic123") else []
    if prior == "imagedream":  # the default picture is not one that a prompt could describe
        given += [f"input={shutil.copy(ROOT / 'examples' / 'robot.png', tmp_path / 'own.png')}"]
    ten_steps(run(tmp_path, [*BASE, *SMALL, *EAGER, "stages=[gaussians]", *given]))


@pytest.mark.parametrize("task", names("task"))
def test_tasks(task: str, tmp_path: Path) -> None:
    prior = list(POINT)
    if task == "text":
        prior = [f"prior.checkpoint={tiny_checkpoints.sd(tmp_path / 'sd')}", "prompt=a cat"]
    ten_steps(run(tmp_path, [*STAGE1, f"task={task}", *prior, "preview=none", "init.num_points=600"]))


STAGE2 = (*BASE, "stages=[texture]", "prior=point", "prior.image_size=32", "refine.size=32", "preview=none")


@pytest.mark.parametrize("refine", names("refine"))
def test_losses_of_stage_2(refine: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    write_random_alexnet(tmp_path)
    given = ["refine.loss.net=alex", "refine.size=64"] if refine == "lpips" else []
    wanted = [o for o in STAGE2 if refine != "none" or not o.startswith("refine.")]
    folder = run(tmp_path, [*wanted, f"mesh_file={place / 'ball.glb'}", f"refine={refine}", *given])
    assert steps_of(folder, "texture") == ([] if refine == "none" else [*range(1, STEPS + 1)])
    before, after = load_mesh(place / "ball.glb"), load_mesh(folder / "mesh.glb")
    assert torch.equal(before.texture, after.texture) == (refine == "none")


@pytest.mark.parametrize("meshraster", names("meshraster"))
def test_rasterisers_of_meshes(meshraster: str, place: Path, tmp_path: Path) -> None:
    folder = run(tmp_path, [*STAGE2, f"mesh_file={place / 'ball.glb'}", f"meshraster={meshraster}"])
    assert steps_of(folder, "texture") == [*range(1, STEPS + 1)]


@pytest.mark.parametrize("mesh", names("mesh"))
def test_extractions(mesh: str, place: Path, tmp_path: Path) -> None:
    given = ["stages=[mesh]", f"gaussians={place / 'splats.ply'}", f"mesh={mesh}", *MESH, "prior=point", "preview=none"]
    folder = run(tmp_path, [*BASE, *given])
    assert len(load_mesh(folder / "coarse.glb").faces) > 100


@pytest.mark.parametrize("clip", names("clip"))
def test_similarity_without_its_network_is_a_blank_with_its_reason(clip: str, place: Path, tmp_path: Path) -> None:
    given = [f"clip={clip}", "refine=none", "stages=[texture]", f"mesh_file={place / 'ball.glb'}", "prior=point"]
    folder = run(tmp_path, [*BASE, *given, "preview=none"])
    results = json.loads((folder / "metrics.json").read_text())
    assert ("clip/reason" in results) == (clip != "none") and results.get("clip/image_image") is None


@pytest.mark.parametrize("overlays", sets_of_overlays(), ids=len)
def test_ablations(overlays: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    write_random_alexnet(tmp_path)
    own = ["refine.loss.net=alex"] if "lpips_texture" in overlays else []
    own += ["refine.size=64"] if "no_texture" not in overlays else []
    small = [o for o in STAGE1 if not o.startswith("stages")]
    folder = run(
        tmp_path, [*small, *MESH, *own, "prior=silhouette", f"ablation=[{','.join(overlays)}]", "preview=none"]
    )
    ten_steps(folder)
    assert len(steps_of(folder, "texture")) == (0 if "no_texture" in overlays else STEPS)
    assert (folder / "mesh.glb").is_file()


@pytest.mark.parametrize("experiment", names("experiment"))
def test_experiments(experiment: str, tmp_path: Path) -> None:
    if experiment == "train_zero123_mini":  # with it pretrain=zero123_mini
        little = ("bank.procedural=1", "bank.instances=2", "bank.targets=2", "bank.chunk=2")
        little += (
            "net.width=64",
            "net.depth=1",
            "net.heads=1",
            "recipe.references=2",
            "recipe.targets=1",
            "log_every=1",
        )
        given = [*(f"pretrain.{o}" for o in little), "trainer.precision=32-true", f"experiment={experiment}"]
        folder = run(tmp_path, [o for o in (*BASE, *given) if not o.startswith("recenter")])
        assert steps_of(folder, "prior") == [*range(1, STEPS + 1)]
        assert (folder / "zero123_mini.safetensors").is_file()
        return
    own = [f"prior.checkpoint={tiny_checkpoints.zero123(tmp_path / 'zero123')}", "prior.image_size=64"]
    given = own if experiment != "none" else list(POINT)
    stages = [*BASE, *SMALL, *EAGER, "stages=[gaussians]", "init.num_points=600", "preview=none"]
    ten_steps(run(tmp_path, [*stages, f"experiment={experiment}", *given]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: tests/e2e/test_cuda.py")
@pytest.mark.parametrize("option", ["raster=gsplat", "meshraster=nvdiffrast"])
def test_what_needs_a_gpu_says_so(option: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stage = STAGE2 if option.startswith("mesh") else (*STAGE1, *POINT, "preview=none")
    assert exit_code_of(tmp_path, [*stage, f"mesh_file={place / 'ball.glb'}", option]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    group, _, name = option.partition("=")
    assert said.startswith(f"error: {group}: ") and name in said and f"use {group}=" in said
