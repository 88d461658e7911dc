"""A checkpoint that is known to be absent is told before anything heavy is imported, and only where it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dg.priors import hub
from dg.priors.checkpoint import find_checkpoint
from dg.runtime import checkpoints, compose
from dg.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
HUB = ("zero123", "stable_zero123", "sd", "mvdream", "imagedream")
ASK = """
import json, sys
from pathlib import Path
from dg.runtime import checkpoints, compose
from dg.runtime.errors import UserError
told = {}
for prior in sys.argv[1:]:
    text = ["task=text", "prompt=cat"] if prior in ("sd", "mvdream") else []
    try:
        checkpoints.look(compose.resolve(compose.compose(Path("conf"), "train", [f"prior={prior}", "outdir=x", *text])))
    except UserError as error:
        told[prior] = str(error)
heavy = [m for m in ("lightning", "diffusers", "transformers", "torchvision", "numba") if m in sys.modules]
print(json.dumps([told, heavy]))
"""


def config(*overrides: str) -> dict[str, Any]:
    return compose.resolve(compose.compose(ROOT / "conf", "train", ["outdir=nowhere", *overrides]))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))


def test_offline_with_nothing_cached(tmp_path: Path) -> None:
    """Each prior's error is one line that names the id, the folder option, the size and the embedded alternative."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", ASK, *HUB]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    told, heavy = json.loads(done.stdout)
    assert set(told) == set(HUB) and heavy == []
    for prior in HUB:
        node = config(f"prior={prior}", *(["task=text", "prompt=cat"] if prior in ("sd", "mvdream") else []))["prior"]
        size = f"{node['about']['download_gb']:g} GB"
        for part in (node["checkpoint"].partition("@")[0], "prior.checkpoint=FOLDER", size, "prior=zero123_mini"):
            assert part in told[prior] and "\n" not in told[prior], told[prior]


def test_what_needs_no_prior_is_not_asked_for_one(offline: None, tmp_path: Path) -> None:
    checkpoints.look(config("prior=zero123", "stages=[mesh]", "gaussians=x.ply"))
    checkpoints.look(config("prior=zero123", "stages=[texture]", "mesh_file=x.glb", "refine=none"))
    checkpoints.look(config("prior=zero123_mini"))
    with pytest.raises(UserError, match="zero123-xl"):
        checkpoints.look(config("prior=zero123", "stages=[texture]", "mesh_file=x.glb"))
    fresh = ["prior=zero123", f"outdir={tmp_path}", "name=run"]
    with pytest.raises(UserError, match="zero123-xl"):
        checkpoints.look(config(*fresh))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    checkpoints.look(config(*fresh))  # its stages may be done


def test_only_the_hub_can_tell_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    checkpoints.look(config("prior=zero123"))


def test_folders_and_files(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"vae/config\.json"):
        checkpoints.look(config("prior=zero123", f"prior.checkpoint={tmp_path}"))
    with pytest.raises(UserError, match="image_encoder"):
        checkpoints.look(config("prior=imagedream", f"prior.checkpoint={tmp_path}"))
    file = tmp_path / "105000.ckpt"
    file.write_bytes(b"")
    checkpoints.look(config("prior=zero123", f"prior.checkpoint={file}"))
    with pytest.raises(UserError, match="no such folder"):
        checkpoints.look(config("prior=zero123", "prior.checkpoint=/does/not/exist"))


def test_a_mistyped_key_is_told_first(offline: None) -> None:
    with pytest.raises(UserError, match="checkpont"):
        checkpoints.look(config("prior=zero123", "+prior.checkpont=x"))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["prior.checkpoint=own/fine-tune"], ("own/fine-tune", None, None)),
        ([f"prior.checkpoint=own/fine-tune@{COMMIT}"], ("own/fine-tune", COMMIT, None)),
        ([f"prior.checkpoint=own/fine-tune@{COMMIT}", "prior.revision=main"], ("own/fine-tune", "main", None)),
        ([f"prior.checkpoint=own/fine-tune@{COMMIT}/a/b.ckpt"], ("own/fine-tune", COMMIT, "a/b.ckpt")),
        (["prior.checkpoint=own/fine-tune@main/b.ckpt"], ("own/fine-tune", "main", "b.ckpt")),
        ([f"prior.revision={COMMIT}"], ("ashawkey/zero123-xl-diffusers", COMMIT, None)),
    ],
)
def test_a_pin_belongs_to_its_id(words: list[str], taken: tuple[str, str | None, str | None]) -> None:
    node = config("prior=zero123", *words)["prior"]
    assert hub.parsed(node["checkpoint"], node["revision"]) == hub.Place(*taken)


@pytest.mark.parametrize(
    "text", ["weights", "a/b/c.ckpt", "./a/b", "~/a", "/a/b", "a/b@v1", f"a/b@{COMMIT[1:]}", "a@b/c", ""]
)
def test_what_the_hub_cannot_have(text: str) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder or file"):
        hub.parsed(text, None)


@pytest.mark.parametrize("prior", ["zero123", "stable_zero123", "sd", "mvdream", "imagedream"])
def test_pinned_ids(prior: str) -> None:
    node = config(f"prior={prior}", *(["task=text", "prompt=cat"] if prior in ("sd", "mvdream") else []))["prior"]
    place = hub.parsed(node["checkpoint"], node["revision"])
    assert place.name.count("/") == 1 and place.revision is not None and len(place.revision) == 40


def test_a_file_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the cache, missed offline, and told in the manifest's words."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = f"own/name@{COMMIT}/sub/weights.pt"
    with pytest.raises(FileNotFoundError, match=r"own/name, file sub/weights\.pt .*HF_HUB_OFFLINE"):
        find_checkpoint(asked, None, {"unet": ()}, hint="")
    file = tmp_path / "models--own--name" / "snapshots" / COMMIT / "sub" / "weights.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert find_checkpoint(asked, None, {"unet": ()}, hint="") == file
    assert hub.source_of(asked, file) == {"checkpoint": asked, "revision": COMMIT}
    assert hub.source_of(str(file.parent), file.parent)["checkpoint"] == str(file.parent)
    for own in ("/elsewhere/weights.pt", "/elsewhere/snapshots/best/weights.pt"):
        assert hub.source_of(own, Path(own)) == {"checkpoint": own, "revision": None}


def test_a_cached_repository_serves_offline_without_the_files_that_were_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer clients note all files of a repository, and by that note a folder of the chosen ones is incomplete."""
    client = pytest.importorskip("huggingface_hub._snapshot_download")
    if not hasattr(client, "write_tree_cache"):
        pytest.skip("this hub client keeps no list of a repository's files")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--own--name"
    folder = kept / "snapshots" / COMMIT
    (folder / "unet").mkdir(parents=True)
    for name in ("config.json", "model.fp16.safetensors"):
        (folder / "unet" / name).write_text("{}")
    entry = client.TreeCacheEntry(size=2, blob_id="0", lfs_sha256=None, lfs_size=None, xet_hash=None)
    files = ("README.md", "unet/config.json", "unet/model.fp16.safetensors", "unet/model.bin")
    client.write_tree_cache(str(kept), COMMIT, dict.fromkeys(files, entry))
    assert find_checkpoint(f"own/name@{COMMIT}", None, {"unet": ("config.json",)}, hint="") == folder
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        find_checkpoint(f"own/name@{COMMIT}", None, {"vae": ("config.json",)}, hint="")


@pytest.mark.parametrize("file", ["", "@main/b.ckpt"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GatedRepoError, r"no such repository \(GatedRepoError\).*accept the terms.*log in"),
        (RepositoryNotFoundError, "no such repository .*check the name"),
        (OSError, r"OSError: No space left.*prior\.checkpoint=FOLDER"),
    ],
)
def test_why_nothing_was_downloaded(
    error: type[Exception], told: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        answer = httpx.Response(401, request=httpx.Request("GET", "https://hub"))
        raise error("No space left") if error is OSError else error("401", response=answer)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fails)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: ["unet/config.json"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match=told):
        find_checkpoint(f"own/name{file}", None, {"unet": ()}, hint="")


@pytest.mark.parametrize(
    ("error", "told"),
    [(EntryNotFoundError, r"own/name has no file b\.ckpt"), (LocalEntryNotFoundError, "nor could they be downloaded")],
)
def test_a_file_that_the_repository_lacks_is_not_a_network_that_is_down(
    error: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise error("404")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", absent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match=told):
        find_checkpoint("own/name@main/b.ckpt", None, {"unet": ()}, hint="")


def test_a_commit_that_has_left_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise RevisionNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", gone)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", gone)
    with pytest.raises(FileNotFoundError, match=f"own/name has no revision {COMMIT}; prior.revision=main"):
        find_checkpoint(f"own/name@{COMMIT}", None, {"unet": ()}, hint="")
