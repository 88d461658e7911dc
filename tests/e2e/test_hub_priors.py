"""Priors of the hub on the command line: without a network, from single files, and what the manifest says of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dg.runtime.folder import config_hash
from dg.runtime.manifest import Manifest
from tests import tiny_checkpoints, tiny_single_files
from tests.runs import BARE, exit_code_of, run

ROOT = Path(__file__).resolve().parents[2]
HUB = ("zero123", "stable_zero123", "sd", "mvdream", "imagedream")
TEXT = ("sd", "mvdream")
FILES = {"zero123": "105000.ckpt", "stable_zero123": "stable_zero123.ckpt", "sd": "v2-1_512-ema-pruned.safetensors"}
FILES |= {"mvdream": "sd-v2.1-base-4view.pt", "imagedream": "sd-v2.1-base-4view-ipmv.pt"}
SMALL = ["prior.image_size=64", "iters=1", "stages=[gaussians]", "init.num_points=60"]


@pytest.mark.parametrize("prior", HUB)
def test_nothing_cached_and_no_network(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One screen that names the id, the folder option, the download's size and what works without; exit code 2.

    As a process of its own: tests/e2e/test_text.py.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    own, start = ["task=text", "prompt=a cat"] if prior in TEXT else [], time.monotonic()
    about = "prior.about.download_gb=7.5"  # the size comes from there
    for more in ([], [about]):
        wanted = [*BARE, "stages=[gaussians]", *own, f"prior={prior}", f"name={prior}{len(more)}", *more]
        assert exit_code_of(tmp_path, wanted) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said and len(said) < 1500, said
        (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
        config = yaml.safe_load((ROOT / "conf" / "prior" / f"{prior}.yaml").read_text())
        size = 7.5 if more else config["about"].get("download_gb", 2.5)
        for part in (
            config["checkpoint"].partition("@")[0],
            "prior.checkpoint=FOLDER",
            f"{size:g} GB",
            "prior=zero123_mini",
        ):
            assert part in line, line
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("prior", HUB)
def test_a_single_file_makes_a_run(prior: str, tmp_path: Path) -> None:
    of = tiny_checkpoints.WRITERS[prior](tmp_path / "diffusers", **{} if "dream" in prior else {"exact": True})
    write = {
        "sd": tiny_single_files.sd,
        "mvdream": tiny_single_files.multiview,
        "imagedream": tiny_single_files.multiview,
    }
    file = tiny_single_files.save(write.get(prior, tiny_single_files.zero123)(of), tmp_path / FILES[prior])
    if prior not in ("zero123", "stable_zero123"):
        (tmp_path / "tokenizer").symlink_to(of / "tokenizer")
    own = ["task=text", "prompt=a cat"] if prior in TEXT else []
    made = run(
        tmp_path, [*BARE, *own, f"prior={prior}", f"prior.checkpoint={file}", *SMALL, "init.num_points=600", "name=run"]
    )
    facts = Manifest.load(made).prior
    assert facts["checkpoint"] == str(file) and facts["revision"] is None and facts["gated"] is False
    assert (
        facts["licence"] == yaml.safe_load((ROOT / "conf" / "prior" / f"{prior}.yaml").read_text())["about"]["licence"]
    )


def test_a_pinned_file_of_the_hub_makes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MVDream's default: its own single file at a commit, here from the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = yaml.safe_load((ROOT / "conf" / "prior" / "mvdream.yaml").read_text())["checkpoint"]
    name, _, rest = asked.partition("@")
    commit, _, file = rest.partition("/")
    snapshot = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    of = tiny_checkpoints.mvdream(tmp_path / "diffusers")
    tiny_single_files.save(tiny_single_files.multiview(of), snapshot / file)
    (snapshot / "tokenizer").symlink_to(of / "tokenizer")
    made = run(tmp_path, [*BARE, "task=text", "prompt=a cat", "prior=mvdream", *SMALL, "name=run"])
    facts = Manifest.load(made).prior
    assert facts["checkpoint"] == asked and facts["revision"] == commit


def test_a_wrong_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    of = tiny_checkpoints.zero123(tmp_path / "diffusers", exact=True)
    file = tiny_single_files.save(tiny_single_files.zero123(of), tmp_path / "105000.ckpt")
    wanted = [*BARE, "task=text", "prompt=a cat", f"prior.checkpoint={file}", *SMALL, "name=run"]
    assert exit_code_of(tmp_path, wanted) == 2
    said = capsys.readouterr().err
    assert "so it is a Zero123: prior=zero123" in said and "Traceback" not in said


def test_the_manifest_names_the_revision_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--ashawkey--zero123-xl-diffusers" / "snapshots" / commit
    tiny_checkpoints.zero123(snapshot)
    asked = []

    def cached(name: str, *, revision: str | None, local_files_only: bool, allow_patterns: list[str]) -> str:
        asked.append((name, revision, local_files_only))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    made = run(tmp_path, [*BARE, "prior=zero123", f"prior.revision={commit[:8]}", *SMALL, "name=run"])
    assert asked == [("ashawkey/zero123-xl-diffusers", commit[:8], True)]
    assert Manifest.load(made).prior == {
        "prior": "Zero123",
        "licence": "MIT",
        "gated": False,
        "download_gb": 2.5,
        "checkpoint": "ashawkey/zero123-xl-diffusers",
        "revision": commit,
    }


def test_facts_about_a_checkpoint_compute_nothing(tmp_path: Path) -> None:
    made = run(tmp_path, [*BARE, "prior=zero123_mini", "iters=1", "stages=[gaussians]", "name=run"])
    assert json.loads((made / "manifest.json").read_text())["prior"]["licence"] == "CC-BY-SA-4.0"
    config = yaml.safe_load((made / "config.yaml").read_text())
    other = config | {"prior": config["prior"] | {"about": {"licence": "none"}}}
    assert config_hash(config) == config_hash(other)
    assert config_hash(config) != config_hash(config | {"prior": config["prior"] | {"unconditional": True}})


def test_imagedream_is_not_held_to_the_pixels_of_the_picture(tmp_path: Path) -> None:
    """With a prompt beside the picture; through both stages."""
    made = tiny_checkpoints.imagedream(tmp_path / "imagedream")
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[16:48, 20:44] = 200, 80, 30, 255
    Image.fromarray(rgba).save(tmp_path / "box.png")
    wanted = [
        *BARE,
        f"input={tmp_path / 'box.png'}",
        "prior=imagedream",
        f"prior.checkpoint={made}",
        "prompt=a cat",
        "prior.image_size=64",
    ]
    wanted += ["iters=2", "iters_refine=1", "refine.size=64", "name=run"]
    folder = run(tmp_path, wanted)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert [config["loss"][name]["weight"] for name in ("rgb", "mask")] == [0, 0]
    assert config["refine"]["reference_weight"] == 0 and config["optim"]["means_until"] == 0.6
    assert (folder / "mesh.glb").is_file()
