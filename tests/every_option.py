"""What the tests that run every option share: small runs, the options of a group, what options read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dg.core.gaussians import deactivate
from dg.io.mesh import save_mesh
from dg.io.ply import read_ply, write_ply
from dg.runtime.ablation import clash, read
from tests.config.test_groups import CONF, is_base
from tests.config.test_options_docs import options as all_options
from tests.runs import series
from tests.shapes import ball
from tests.stages.test_mesh_stage import egg

APART = {  # option -> why it is in no row, and which test has it
    "raster=gsplat": "needs a GPU: test_what_needs_a_gpu_says_so",
    "meshraster=nvdiffrast": "needs a GPU and a library: test_what_needs_a_gpu_says_so",
    "loss=lpips": "needs weights: test_loss_options.py has it on random ones",
}

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


@pytest.fixture(scope="module", name="place")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
