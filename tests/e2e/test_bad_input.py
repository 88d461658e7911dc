"""Whatever people hand in: it works, with a word where that is due, or one clear line and exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dg.runtime.manifest import Manifest
from tests.runs import BARE, exit_code_of, series
from tests.shapes import ball as ball_mesh

ONE_STEP = (*BARE, "prior=point", "stages=[gaussians]", "iters=1", "init.num_points=60", "name=run")
# all that a run that failed at its input may leave: complete records of the failure, no result
RECORDS = {".lock", "config.yaml", "manifest.json", "log.txt"}


def disc(width: int = 96, height: int = 96, background: tuple[int, ...] = (255, 255, 255, 0)) -> Image.Image:
    """A striped disc, on nothing or on a colour."""
    image = Image.new("RGBA", (width, height), background)
    draw = ImageDraw.Draw(image)
    r = min(width, height) // 3
    draw.ellipse((width // 2 - r, height // 2 - r, width // 2 + r, height // 2 + r), fill=(200, 40, 30, 255))
    draw.rectangle(
        (width // 2 - r // 2, height // 2 - 4, width // 2 + r // 2, height // 2 + 4), fill=(30, 60, 200, 255)
    )
    return image


def truncated(path: Path) -> None:
    disc(300, 300).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


BAD_PICTURES: dict[str, tuple[str, Any, str]] = {
    "empty": ("a.png", lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "truncated": ("a.png", truncated, "damaged or cut short"),
    "no picture": ("a.png", lambda p: p.write_text("hello, I am a letter"), "not a picture that can be read"),
    "a web page": ("a.jpg", lambda p: p.write_text("<!DOCTYPE html><html></html>"), "it looks like a web page"),
    "a folder": ("a.png", lambda p: p.mkdir(), "there is no such file"),
    "fully transparent": (
        "a.png",
        lambda p: Image.new("RGBA", (64, 64), (9, 9, 9, 0)).save(p),
        "is fully transparent",
    ),
    "plain opaque": ("a.png", lambda p: Image.new("RGB", (64, 64), (90, 90, 90)).save(p), "no object stands out"),
    "one opaque pixel": ("a.png", lambda p: Image.new("RGB", (1, 1), (90, 9, 9)).save(p), "pixels are too few"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_picture_is_one_line_and_leaves_no_result(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, make, message = BAD_PICTURES[kind]
    make(tmp_path / name)
    assert exit_code_of(tmp_path / "out", [*ONE_STEP, f"input={tmp_path / name}"]) == 2
    complaint(capsys, message, str(tmp_path / name))
    if (tmp_path / "out").exists():
        assert {p.name for p in (tmp_path / "out" / "run").iterdir()} <= RECORDS
        assert Manifest.load(tmp_path / "out" / "run").status == "failed"


def complaint(capsys: pytest.CaptureFixture[str], *parts: str) -> str:
    """The one line that begins with `error:` or `failed:`, in which every part stands; no traceback around it."""
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith(("error: ", "failed: "))]
    assert len(lines) == 1 and "Traceback" not in said and "Logging error" not in said, said
    assert all(part in lines[0] for part in parts), lines[0]
    return said


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.asarray(disc(background=(250, 250, 250, 255)).convert("L")).astype(np.uint16) * 257).save(path)


def animated(path: Path) -> None:
    frames = [disc(background=(240, 240, 240, 255)).rotate(a).convert("P") for a in (0, 40, 80)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    disc(120, 90, (250, 250, 250, 255)).convert("RGB").save(path, exif=exif, quality=95)


GREY = (250, 250, 250, 255)
UNUSUAL: dict[str, tuple[str, Any, str]] = {
    "cmyk": ("a.jpg", lambda p: disc(background=GREY).convert("CMYK").save(p, quality=95), "background removed"),
    "16 bits": ("a.png", sixteen_bits, "background removed"),
    "palette": ("a.png", lambda p: disc(background=GREY).convert("P").save(p), "background removed"),
    "grey": ("a.png", lambda p: disc(background=GREY).convert("L").save(p), "background removed"),
    "animated": ("a.gif", animated, "has 3 frames; the first is used"),
    "rotated by EXIF": ("a.jpg", rotated, "background removed"),
    "8000 pixels": ("a.png", lambda p: disc(8000, 500, GREY).convert("L").save(p), "background removed"),
    "one visible pixel": ("a.png", lambda p: Image.new("RGBA", (1, 1), (200, 9, 9, 200)).save(p), ""),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_picture_works_and_what_was_done_is_said(kind: str, tmp_path: Path) -> None:
    name, make, word = UNUSUAL[kind]
    make(tmp_path / name)
    assert exit_code_of(tmp_path, [*ONE_STEP, f"input={tmp_path / name}"]) == 0
    assert (tmp_path / "run" / "gaussians.ply").is_file()
    assert not word or any(word in warning for warning in Manifest.load(tmp_path / "run").warnings)


def test_a_prompt_with_a_prior_that_needs_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = [*BARE, "task=text", "prompt=a cat", "prior=zero123_mini", "stages=[gaussians]", "name=run"]
    assert exit_code_of(tmp_path, text) == 2
    complaint(capsys, "picture")
    assert not (tmp_path / "run" / "gaussians.ply").exists()


def obj_without_faces(path: Path) -> None:
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")


def ply_of_points(path: Path) -> None:
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "end_header\n0 0 0\n"
    )


@pytest.mark.parametrize(
    ("key", "stage", "name", "make", "message"),
    [
        ("mesh_file", "texture", "a.obj", obj_without_faces, "faces"),
        ("mesh_file", "texture", "a.glb", lambda p: p.write_bytes(b"glTF"), "a.glb"),
        ("mesh_file", "texture", "a.stl", lambda p: p.write_bytes(b"solid"), "a.stl"),
        ("gaussians", "mesh", "a.ply", ply_of_points, "opacity"),
        ("gaussians", "mesh", "a.ply", lambda p: p.write_bytes(b"ply\n"), "a.ply"),
    ],
    ids=["no faces", "cut off", "another format", "no properties", "no header"],
)
def test_a_bad_mesh_or_cloud(
    key: str, stage: str, name: str, make: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / name)
    wanted = [*BARE, "prior=point", f"stages=[{stage}]", f"{key}={tmp_path / name}", "name=run"]
    assert exit_code_of(tmp_path / "out", wanted) == 2
    complaint(capsys, f"{key}: ", message)
    assert {p.name for p in (tmp_path / "out" / "run").iterdir()} <= RECORDS


def test_a_nan_names_step_and_tensor_and_keeps_the_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dg.core.distill import SDS

    sound = SDS.loss

    def sick(self: SDS, predict: Any, z: torch.Tensor, t: torch.Tensor, *rest: Any) -> torch.Tensor:
        loss = sound(self, predict, z, t, *rest)  # the derivative of sqrt at 0 is infinite
        return loss + (z * 0).sum().sqrt() if int(t) < 200 else loss

    monkeypatch.setattr(SDS, "loss", sick)
    wanted = [*BARE, "prior=point", "stages=[gaussians]", "iters=6", "checkpoint_every=2", "name=run"]
    assert exit_code_of(tmp_path, wanted) == 2
    complaint(
        capsys, "failed: stage gaussians, step 5: the gradient of ", "means", " is not finite", "last sound state is in"
    )
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    assert state["gaussian_stage"]["step"] == 4 and all(torch.isfinite(x).all() for x in state["state_dict"].values())
    assert not (tmp_path / "run" / "gaussians.ply").exists()


def test_a_nan_in_the_texture_keeps_its_last_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dg.io.mesh import save_mesh
    from dg.losses.refine import SDEditMSE

    save_mesh(ball_mesh(torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))), tmp_path / "ball.glb")
    plain = SDEditMSE.__call__

    def sick(self: SDEditMSE, rgb: torch.Tensor, *rest: Any) -> Any:
        loss, logs = plain(self, rgb, *rest)
        return (loss * float("nan") if logs["t_start_ratio"] < 0.13 else loss), logs

    monkeypatch.setattr(SDEditMSE, "__call__", sick)
    wanted = [*BARE, "prior=point", "stages=[texture]", f"mesh_file={tmp_path / 'ball.glb'}", "name=run"]
    wanted += ["iters_refine=6", "checkpoint_every=2", "refine.size=64", "refine.loss.num_steps=10"]
    wanted += ["refine.loss.t_start_ratio=0.2", "refine.loss.t_end_ratio=0.1"]
    assert exit_code_of(tmp_path, wanted) == 2
    named = "failed: stage texture, step 5: the gradient of the texture's logits is not finite"
    complaint(capsys, named, "last sound state is in", "texture.ckpt")
    state = torch.load(tmp_path / "run" / "checkpoints" / "texture.ckpt", weights_only=False)
    assert state["texture_stage"]["step"] == 4 and torch.isfinite(state["state_dict"]["logits"]).all()
    assert not (tmp_path / "run" / "mesh.glb").exists()
    monkeypatch.setattr(SDEditMSE, "__call__", plain)
    assert exit_code_of(tmp_path, wanted) == 0  # it goes on from there
    assert [row["step"] for row in series(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_the_folder_of_another_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disc().save(tmp_path / "a.png")
    assert exit_code_of(tmp_path, [*ONE_STEP, f"input={tmp_path / 'a.png'}"]) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    capsys.readouterr()
    assert exit_code_of(tmp_path, [*ONE_STEP, f"input={tmp_path / 'a.png'}", "seed=3"]) == 2
    complaint(capsys, "another config (it differs in prior.seed, seed)", "overwrite=true")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_model_that_the_last_prune_empties(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert exit_code_of(tmp_path, [*ONE_STEP, "densify.min_opacity=0.9999"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "no Gaussian is left" in said and "densify.min_opacity" in said
    assert not (tmp_path / "run" / "gaussians.ply").exists()
