"""Every option of every config group runs: ten steps of a stage that optimises, or the whole of one that does not.

Groups whose options run together are dealt into rows; what needs a checkpoint, a mesh or a stage of its own has a case.
An option that is added to a group is dealt into a row; a new group, or an option that does not run as the others of its
group, fails here.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dg.core.gaussians import deactivate
from dg.io.mesh import load_mesh, save_mesh
from dg.io.ply import read_ply, write_ply
from dg.runtime.ablation import clash, read
from tests import tiny_checkpoints
from tests.config.test_groups import CONF, GROUPS, ROOT, is_base
from tests.config.test_options_docs import options as all_options
from tests.fake_alexnet import write_random_alexnet
from tests.pairs import all_pairs
from tests.runs import exit_code_of, run, series
from tests.shapes import ball
from tests.stages.test_mesh_stage import egg

# Options of these groups are combined at will in stage 1. `pairs` are those that meddle with each other.
PAIRS = ("anneal", "background", "densify", "distill", "init", "loss", "raster")
DEALT = (*PAIRS, "camera", "debug", "logger", "optim", "paths", "preset", "preview", "resolution", "sweep", "trainer")
APART = {  # option -> why it is in no row, and which test has it
    "raster=gsplat": "needs a GPU: test_what_needs_a_gpu_says_so",
    "meshraster=nvdiffrast": "needs a GPU and a library: test_what_needs_a_gpu_says_so",
    "loss=lpips": "needs weights: test_loss_options.py has it on random ones",
}
CASES = ("ablation", "clip", "experiment", "mesh", "meshraster", "pretrain", "prior", "refine", "task")
ELSEWHERE = {"protocol": "evaluate.py's, tests/eval and tests/e2e/test_evaluate_cli.py"}

STEPS = 10
BASE = ("device=cpu", "threads=1", f"iters={STEPS}", f"iters_refine={STEPS}", "name=run", "truth=null", "recenter=true")
SMALL = ("resolution.sizes=[32]", "resolution.boundaries=[]", "resolution.reference=32", "checkpoint_every=100")
EAGER = tuple(f"prior.profile.densify_{k}={v}" for k, v in (("start", 1), ("interval", 3), ("grad_threshold", 1e-4)))
STAGE1 = (*BASE, *SMALL, *EAGER, "stages=[gaussians]", "prior.image_size=32")
POINT = (
    "prior=point",
    "prior.unconditional_std=0.3",
)  # the distillations that compare with it get their second prediction
MESH = ("mesh.resolution=32", "mesh.render_size=64", "mesh.texture_size=64", "mesh.max_faces=2000")


def names(group: str) -> list[str]:
    found = {option for option in all_options(group) if not is_base(option) and f"{group}={option}" not in APART}
    return sorted(found)


def own(place: Path, row: Mapping[str, str]) -> list[str]:
    """The overrides of a row, with what its options leave to the user."""
    given = [f"{group}={option}" for group, option in row.items() if group != "loss"]
    loss = row.get("loss", "image")
    given += [f"loss={loss}" if loss in ("image", "text") else f"loss=[image,{loss}]"]
    few = (
        "init.num_points=100" if row.get("densify") != "paper" else "init.num_points=600"
    )  # which prunes what is large
    given += [few] if row.get("init") != "pointcloud" or few.endswith("100") else []
    given += [f"init.file={place / 'points.ply'}"] if row.get("init") in ("pointcloud", "shape_e") else []
    given += ["logger.wandb.mode=offline"] if row.get("logger") == "wandb" else []
    given += ["objective=null"] if row.get("sweep") == "optuna" else []  # there is no truth here that it could read
    given += ["preview=none"] if row.get("preview") != "default" else ["preview.size=16", "preview.turntable_frames=2"]
    return list(dict.fromkeys(given))


def dealt(groups: Sequence[str], seed: int = 0) -> list[dict[str, str]]:
    """As few rows as hold every option of every group once; shorter groups begin again from their first option."""
    shuffled = {group: random.Random(f"{group}{seed}").sample(names(group), len(names(group))) for group in groups}
    count = max(map(len, shuffled.values()))
    return [{group: listed[i % len(listed)] for group, listed in shuffled.items()} for i in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What options read: points, splats, a true mesh, LPIPS's network with random weights."""
    folder = tmp_path_factory.mktemp("inputs")
    save_mesh(ball(torch.linspace(0.1, 0.9, 8 * 8 * 3).reshape(8, 8, 3)), folder / "ball.glb")
    write_ply(deactivate(egg(filled=True, n=400)), folder / "splats.ply")
    vertices = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in (0.3 * torch.randn(600, 3)).tolist())
    head = "ply\nformat ascii 1.0\nelement vertex 600\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    (folder / "points.ply").write_text(f"{head}end_header\n{vertices}")
    return folder


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))


def steps_of(folder: Path, stage: str) -> list[int]:
    logged = series(folder) if (folder / "metrics.jsonl").exists() else []
    return [row["step"] for row in logged if row["stage"] == stage]


def ten_steps(folder: Path) -> None:
    assert steps_of(folder, "gaussians") == [*range(1, STEPS + 1)]
    splats = read_ply(folder / "gaussians.ply")
    assert len(splats) > 0 and all(torch.isfinite(values).all() for values in splats.as_dict().values())


def shown(row: Mapping[str, str]) -> str:
    return "+".join(row.values())


@pytest.mark.parametrize("row", dealt(DEALT), ids=shown)
def test_options_that_run_together(row: dict[str, str], place: Path, tmp_path: Path) -> None:
    ten_steps(run(tmp_path, [*STAGE1, *POINT, *own(place, row)]))


ROWS = all_pairs({group: names(group) for group in PAIRS})


@pytest.mark.parametrize("row", ROWS[:3], ids=shown)
def test_pairs(row: dict[str, str], place: Path, tmp_path: Path) -> None:
    """The three rows that meet most pairs of options; all of them are the slow ones."""
    ten_steps(run(tmp_path, [*STAGE1, *POINT, *own(place, row)]))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS[3:], ids=shown)
def test_all_other_pairs(row: dict[str, str], place: Path, tmp_path: Path) -> None:
    ten_steps(run(tmp_path, [*STAGE1, *POINT, *own(place, row)]))


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


def sets_of_overlays() -> list[list[str]]:
    """All of conf/ablation in as few runs as their clashes allow."""
    found: list[list[Any]] = []
    for path in sorted((CONF / "ablation").glob("*.yaml")):
        overlay = read(path)
        free = next((group for group in found if clash([*group, overlay]) is None), None)
        if free is None:
            found.append([overlay])
        else:
            free.append(overlay)
    return [[overlay.name for overlay in group] for group in found]


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


def test_nothing_is_left_out() -> None:
    assert sorted({*DEALT, *CASES, *ELSEWHERE}) == GROUPS
    rows = dealt(DEALT)
    for group in DEALT:
        assert {row[group] for row in rows} == set(names(group))
    for option in APART:
        group, _, name = option.partition("=")
        assert name in all_options(group)
    assert {name for group in sets_of_overlays() for name in group} == all_options("ablation")
    assert set(names("pretrain")) == {"none", "zero123_mini"}
