"""`python -m dg.doctor` says what is there, what does not fit together, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch

from dg import doctor as command
from dg.runtime import doctor
from tests import tiny_checkpoints


def test_one_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    said = {line[:22].strip(): line[22:] for line in lines}
    assert len(lines) == len(said) < 30 and max(map(len, lines)) < 140
    assert torch.__version__ in said["torch"] and (said["GPU"].startswith("none") or torch.cuda.is_available())
    assert "Rasterizer" in said["raster=auto"] and "Rasterizer" in said["meshraster=auto"]
    priors = {"zero123", "stable_zero123", "sd", "mvdream", "imagedream"}
    assert {key.removeprefix("prior=") for key in said if key.startswith("prior=")} == priors
    assert "downloads ashawkey/zero123-xl-diffusers, 2.5 GB" in said["prior=zero123"]


def test_what_is_not_installed_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert doctor.version("nvdiffrast") == (
        "not installed: pip install git+https://github.com/NVlabs/nvdiffrast.git --no-build-isolation"
    )
    assert doctor.version("wandb") == "not installed: pip install wandb"


def test_a_compiler_of_another_cuda_is_named() -> None:
    assert doctor.mismatch("12.4", "12.8") == "" == doctor.mismatch("12.4", None)
    assert doctor.mismatch("11.8", "12.8") == (
        ", but torch is built for 12.8: extensions do not build; install CUDA 12's nvcc"
    )


@pytest.mark.parametrize(
    ("driver", "cuda", "said"),
    [(None, None, "none; runs use the processor"), ("/bin/x", None, "built for CPUs"), ("/bin/x", "13.0", "CUDA 13.0")],
)
def test_a_gpu_that_torch_does_not_see(
    driver: str | None, cuda: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert said in doctor.gpu()


def test_a_checkpoint_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_checkpoints.zero123(tmp_path / "zero123")

    def cached(name: str, *, revision: str | None, local_files_only: bool, allow_patterns: list[str]) -> str:
        assert name == "ashawkey/zero123-xl-diffusers" and len(revision) == 40 and local_files_only
        assert allow_patterns == []  # the folder, complete or not
        return str(made)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    assert doctor.weights("zero123") == "ashawkey/zero123-xl-diffusers is here"
    (made / "unet" / "config.json").unlink()
    assert "lacks unet/config.json" in doctor.weights("zero123")
    assert doctor.weights("zero123_mini") is None and doctor.weights("magic123") is None
