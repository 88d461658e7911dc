"""What the loggers are left with, read back from their files."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from dg.io.images import read_png
from dg.io.mesh import load_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.runtime.callbacks import StopSignal
from dg.runtime.guidance import COLUMNS
from dg.runtime.manifest import Manifest
from dg.runtime.preview import Subject
from dg.runtime.run import Run
from dg.runtime.similarity import similarity
from tests.offline_wandb import group, read
from tests.runs import BARE, run, series
from tests.shapes import ball

LOSSES = {"train/loss/rgb", "train/loss/mask", "train/loss/score", "train/loss/total"}
LOSSES |= {"refine/loss/known", "refine/loss/novel", "refine/loss/total"}
WEIGHTS = {"train/weight/rgb", "train/weight/mask", "train/weight/score", "refine/weight/known", "refine/weight/novel"}
STATE = {"train/t", "train/resolution", "train/num_gaussians", "train/lr/means", "refine/t", "refine/resolution"}
DENSITY = {"train/clones", "train/splits", "train/prunes"}
GROUPS = ("means", "sh_dc", "opacity_logits", "log_scales", "quats")
NORMS = {f"train/grad_norm/{group}" for group in GROUPS} | {"refine/grad_norm/texture"}
SCALARS = LOSSES | WEIGHTS | STATE | DENSITY | NORMS
FINAL = {"splats/psnr_ref", "mesh/iou_ref", "splats/count", "mesh/faces", "seconds/gaussians", "clip/image_image"}
WANTED = (
    *("debug=fast", "threads=1", "device=cpu", "iters=4", "densify.start=1", "densify.interval=2"),
    *(
        "preview.azimuths=1",
        "preview.turntable_frames=3",
        "preview.log_every=2",
        "preview.guidance_every=2",
        "+clip._target_=tests.fake_clip.ColourScorer",
    ),
)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny run with every logger, by somebody who never heard of `wandb login`."""
    home = tmp_path_factory.mktemp("home")
    hidden = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith("WANDB_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_CONFIG_DIR", str(home))
        made = run(
            tmp_path_factory.mktemp("out"),
            [*WANTED, "logger=[wandb,csv,tensorboard]", "logger.wandb.group=ours", "mesh_format=obj"],
        )
    os.environ.update(hidden)
    return made


def test_wandb_without_a_login_keeps_everything_on_disk(logged: Path) -> None:
    (offline,) = (logged / "wandb").glob("offline-run-*")
    rows, config = read(offline)
    keys = set().union(*rows)
    assert keys >= SCALARS and keys >= FINAL
    assert group(offline) == "ours"  # that a multirun's jobs are given its name: test_sweeps.py
    assert config["iters"] == 4 and config["densify"]["interval"] == 2 and config["name"] == logged.name
    of_step = {row["trainer/global_step"]: row for row in rows if "train/loss/total" in row}
    assert sorted(of_step) == [1, 2, 3, 4]
    wanted = [row for row in series(logged) if row["stage"] == "gaussians"]
    for row in wanted:
        assert of_step[row["step"]]["train/loss/total"] == pytest.approx(row["train/loss/total"], rel=1e-5)
    pictures = [k.removesuffix("._type") for row in rows for k, v in row.items() if v == "image-file"]
    assert sorted(pictures) == sorted(
        2 * ["train/render/novel", "train/render/reference", "train/guidance"]
        + ["refine/render/novel", "refine/render/reference"]
        + ["overview"]
    )  # steps 2 and 4 of 4, the last of stage 2, and the sheet at the end
    files = {row[k.replace("._type", ".path")] for row in rows for k in row if k.endswith("._type")}
    assert len(files) == len(pictures) + 2  # a video and a mesh
    assert all((offline / "files" / file).stat().st_size > 0 for file in files)


def test_wandb_gets_the_textured_mesh_and_the_turntable(logged: Path) -> None:
    (offline,) = (logged / "wandb").glob("offline-run-*")
    rows, _ = read(offline)
    (mesh,) = (row["mesh.path"] for row in rows if row.get("mesh._type") == "object3D-file")
    shown, made = load_mesh(offline / "files" / mesh), load_mesh(logged / "mesh.obj")
    assert mesh.endswith(".glb") and len(shown.faces) == len(made.faces)
    assert torch.allclose(shown.texture, made.texture, atol=1 / 255)
    (video,) = (row["turntable.path"] for row in rows if row.get("turntable._type") == "video-file")
    assert (offline / "files" / video).read_bytes() == (logged / "turntable.mp4").read_bytes()


def test_wandb_gets_what_the_prior_was_shown_and_said(logged: Path) -> None:
    """A strip of render, noisy picture, estimate behind it and gradient, the same as in the run's folder."""
    (offline,) = (logged / "wandb").glob("offline-run-*")
    rows, _ = read(offline)
    sent = {r["trainer/global_step"]: r["train/guidance.path"] for r in rows if "train/guidance.path" in r}
    assert sorted(sent) == [2, 4]
    for step, name in sent.items():
        shown, made = (read_png(f) for f in (offline / "files" / name, logged / "guidance" / f"step_{step:05d}.png"))
        assert torch.equal(shown[..., :3], made[..., :3]) and made.shape[1] > len(COLUMNS) * 64


def test_csv_and_tensorboard_get_the_same_numbers(logged: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with next(logged.glob("csv/**/metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= SCALARS | FINAL
    board = EventAccumulator(str(next(logged.glob("tensorboard/version_*"))))
    board.Reload()
    assert set(board.Tags()["scalars"]) >= SCALARS | FINAL
    assert {"train/render/novel", "refine/render/reference", "overview"} <= set(board.Tags()["images"])
    for line in series(logged):
        total = f"{'train' if line['stage'] == 'gaussians' else 'refine'}/loss/total"
        table = [float(row[total]) for row in rows if row[total] and int(row["step"]) == line["step"]]
        events = [e.value for e in board.Scalars(total) if e.step == line["step"]]
        assert table == pytest.approx([line[total]], rel=1e-5) and events == pytest.approx([line[total]], rel=1e-5)


def test_logging_changes_no_bit_of_the_result(logged: Path, tmp_path: Path) -> None:
    plain = run(tmp_path, [*(w for w in WANTED if "clip" not in w), "mesh_format=obj"])
    for name in ("gaussians.ply", "coarse.glb", "mesh.obj"):
        assert (plain / name).read_bytes() == (logged / name).read_bytes()


def test_similarity_to_the_input_is_measured_and_named(logged: Path) -> None:
    metrics = json.loads((logged / "metrics.json").read_text())
    assert 0.5 < metrics["clip/image_image"] <= 1 and metrics["clip/model"] == "mean colour"


def test_a_prompt_is_compared_with_the_mesh_it_made(tmp_path: Path) -> None:
    config = {"clip": {"_target_": "tests.fake_clip.ColourScorer"}, "prompt": "a red ball", "device": "cpu", "iters": 1}
    made = ball(torch.full((8, 8, 3), 0.4))
    subject = Subject(None, made, None, None, CpuMeshRasterizer(), 2.0, 49.1, 0.0, torch.device("cpu"))
    found = similarity(Run(config, tmp_path, Manifest("x"), StopSignal()), subject)
    assert found == {"clip/text_image": pytest.approx(len("a red ball") / 100), "clip/model": "mean colour"}


def test_absent_weights_leave_the_figure_blank_with_the_reason(tmp_path: Path) -> None:
    made = run(tmp_path, [*BARE, "prior=point", "refine=none", "+clip._target_=tests.fake_clip.Absent"])
    metrics = json.loads((made / "metrics.json").read_text())
    assert metrics["clip/image_image"] is None and "not on this machine" in metrics["clip/reason"]
    manifest = Manifest.load(made)
    assert manifest.status == "done" and any("clip/image_image is left blank" in w for w in manifest.warnings)
    run(made.parent, [*BARE, "prior=point", "refine=none", "+clip._target_=tests.fake_clip.ColourScorer"])
    later = json.loads((made / "metrics.json").read_text())  # the weights came; nothing else is done again
    assert later["clip/image_image"] > 0 and "clip/reason" not in later and later["mesh/faces"] == metrics["mesh/faces"]
    assert (made / "log.txt").read_text().count("done before, kept") == 3
