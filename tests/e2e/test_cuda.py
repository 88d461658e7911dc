"""The whole pipeline on a GPU (`make test-gpu`): every stage, exact, embedded and full-size priors, and the same result
as on the CPU where the arithmetic allows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dg.io.images import write_png
from dg.io.mesh import load_mesh, save_mesh
from dg.io.ply import read_ply
from dg.runtime import compose, launch

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).resolve().parents[2]
BARE = ("device=cuda", "preview=none", "recenter=false", "mesh.resolution=64", "mesh.texture_size=256")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A toy object's mesh and its front view."""
    from dg.data.objects import make, picture

    folder = tmp_path_factory.mktemp("known")
    save_mesh(make("robot"), folder / "robot.glb")
    write_png(folder / "robot.png", picture(make("robot"), 256))
    return folder / "robot.glb", folder / "robot.png"


def run(folder: Path, *overrides: str) -> Path:
    from dg.runtime.pipeline import run as pipeline

    config = compose.compose(ROOT / "conf", "train", [f"outdir={folder}", *overrides])
    plain = launch.prepare(config, ROOT / "conf")
    pipeline(launch.Job(plain, "test", list(overrides)))
    return folder / plain["name"]


def check(made: Path, stages: tuple[str, ...] = ("gaussians", "mesh", "texture")) -> dict:
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["status"] == "done" and manifest["device"].startswith("cuda")
    assert all(manifest["stages"][s]["status"] == "done" for s in stages)
    assert manifest["stages"]["gaussians"]["peak_gpu_memory_mb"] > 1
    assert read_ply(made / "gaussians.ply").means.isfinite().all()
    return manifest


def score(made: Path, truth: Path) -> float:
    """PSNR over eight views of the made mesh against the true one, in dB, on the CPU."""
    from dg.core.camera import orbit
    from dg.eval.metrics import psnr
    from dg.meshraster.cpu import CpuMeshRasterizer
    from dg.meshraster.render import render_mesh

    views = orbit(-10.0, [45.0 * i for i in range(8)], 2.0, height=128)
    pictures = [render_mesh(load_mesh(p), views, CpuMeshRasterizer(), torch.ones(3), ssaa=2).rgb for p in (made, truth)]
    return float(psnr(*pictures).mean())


def test_oracle(known, tmp_path):
    mesh, picture = known
    made = run(
        tmp_path, *BARE, "prior=oracle", f"prior.mesh={mesh}", f"input={picture}", "iters=200", "iters_refine=10"
    )
    check(made)
    assert score(made / "mesh.glb", mesh) > 24


def test_zero123_mini(known, tmp_path):
    made = run(tmp_path, *BARE, "prior=zero123_mini", f"input={known[1]}", "iters=120", "iters_refine=10")
    check(made)
    assert score(made / "mesh.glb", known[0]) > 14


@pytest.mark.parametrize("prior", ["silhouette", "point"])
def test_other_exact_priors(known, tmp_path, prior):
    made = run(tmp_path, *BARE, f"prior={prior}", f"input={known[1]}", "iters=20", "stages=[gaussians]")
    check(made, ("gaussians",))


def test_zero123_at_full_size(known, tmp_path):
    """Random weights: it must run in half precision and stay finite, no more."""
    from benchmarks._checkpoints import random_zero123

    checkpoint = random_zero123(tmp_path / "zero123", device="cuda")
    made = run(
        tmp_path, *BARE, "prior=zero123", f"prior.checkpoint={checkpoint}", f"input={known[1]}",
        f"mesh_file={known[0]}", "stages=[gaussians,texture]", "iters=4", "iters_refine=2",
    )  # fmt: skip
    manifest = check(made, ("gaussians", "texture"))
    assert manifest["stages"]["gaussians"]["peak_gpu_memory_mb"] > 2000
    assert load_mesh(made / "mesh.glb").texture.isfinite().all()


def test_stage_2_without_nvdiffrast(known, tmp_path):
    """The fallback of plain torch makes the texture that nvdiffrast makes, or as good a one."""
    common = (
        *BARE,
        "prior=oracle",
        f"prior.mesh={known[0]}",
        f"input={known[1]}",
        "stages=[texture]",
        "iters_refine=8",
    )
    common = (*common, f"mesh_file={known[0]}", "refine.size=128")
    made = {"nvdiffrast": run(tmp_path / "nvdiffrast", *common, "meshraster=nvdiffrast")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dg.meshraster.texture_library.library", lambda: None)  # which looks textures up, too
        made["torch"] = run(tmp_path / "torch", *common, "meshraster=torch")
    scores = {name: score(folder / "mesh.glb", known[0]) for name, folder in made.items()}
    assert scores["torch"] > 24 and abs(scores["torch"] - scores["nvdiffrast"]) < 1, scores


def test_a_stopped_run_goes_on(known, tmp_path):
    """Checkpoints written on the GPU resume there, with the optimiser's state, to the result of the unbroken run."""
    from dg.runtime.callbacks import Steps
    from dg.runtime.errors import RunError

    overrides = (*BARE, "prior=oracle", f"prior.mesh={known[0]}", f"input={known[1]}", "stages=[gaussians]")
    overrides = (*overrides, "iters=24", "checkpoint_every=8", "densify.start=4", "densify.interval=4")
    whole = run(tmp_path / "whole", *overrides)

    class Crash(Exception):
        pass

    original = Steps.on_train_batch_end

    def crash(self, trainer, module, *rest):
        original(self, trainer, module, *rest)
        if module.step == 19:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "on_train_batch_end", crash)
        with pytest.raises((Crash, RunError)):
            run(tmp_path / "broken", *overrides)
    again = run(tmp_path / "broken", *overrides)
    a, b = read_ply(whole / "gaussians.ply"), read_ply(again / "gaussians.ply")
    assert len(a) == len(b)
    torch.testing.assert_close(b.means, a.means, atol=2e-3, rtol=0)


def test_the_same_start_on_cpu_and_gpu(known, tmp_path):
    """Same seed, same draws: after a few steps the Gaussians agree up to the arithmetic."""
    common = ("preview=none", "recenter=false", "prior=oracle", f"prior.mesh={known[0]}", f"input={known[1]}")
    common = (*common, "stages=[gaussians]", "iters=5", "meshraster=cpu")
    gpu = read_ply(run(tmp_path / "gpu", *common, "device=cuda") / "gaussians.ply")
    cpu = read_ply(run(tmp_path / "cpu", *common, "device=cpu") / "gaussians.ply")
    assert (gpu.means - cpu.means).abs().quantile(0.9) < 2e-3
