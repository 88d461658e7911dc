"""The smaller parts of the runtime: the series, devices, exit codes, the look of the result."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from dg.core.camera import orbit
from dg.core.gaussians import activate, ball
from dg.core.rng import generator
from dg.io.images import read_png
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.raster.numba_cpu import NumbaRasterizer
from dg.runtime import device
from dg.runtime.callbacks import GradientNorms, StopSignal
from dg.runtime.errors import Interrupted, RunError, UserError, exit_code
from dg.runtime.folder import disk_full
from dg.runtime.logging import jsonl_logger, log, logging_to, truncate_series
from dg.runtime.manifest import git_revision, versions
from dg.runtime.preview import PreviewOptions, Subject, reference_scores, write_all
from dg.runtime.stage_runners import flat
from dg.stages.gaussians import steps
from dg.types import Cameras, Gaussians, Reference, Render


def test_exit_codes() -> None:
    errors = [UserError(), RunError(), Interrupted(), KeyboardInterrupt(), ValueError()]
    assert [exit_code(e) for e in errors] == [2, 2, 130, 130, 1]


def test_series_goes_on_where_the_checkpoint_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = jsonl_logger(path, "gaussians"), jsonl_logger(path, "texture")
    for step in range(1, 6):
        first.log_metrics({"train/loss": (step - 1) / 3, "epoch": 0, "train/bad": float("nan")}, step)
    second.log_metrics({"refine/loss": 1.0}, 1)
    with path.open("a") as file:
        file.write('{"stage": "gaussians", "st')  # the process died here
    truncate_series(path, "gaussians", 3)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["stage"], r["step"]) for r in rows] == [
        ("gaussians", 1),
        ("gaussians", 2),
        ("gaussians", 3),
        ("texture", 1),
    ]
    assert rows[1] == {"stage": "gaussians", "step": 2, "train/loss": 0.333333}
    truncate_series(path, "texture", 0)
    assert len(path.read_text().splitlines()) == 3
    truncate_series(tmp_path / "absent.jsonl", "texture", 0)


def test_warnings_reach_log_and_manifest_and_others_stay_off_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_to(tmp_path) as collector:
        log.info("hello %s", "there")
        log.warning("mind %d", 3)
        log.warning("mind %d", 3)
        logging.getLogger("somebody.else").warning("their warning")
        warnings.warn("python's warning", stacklevel=1)
    assert collector.messages == ["mind 3"]
    text = (tmp_path / "log.txt").read_text()
    assert all(word in text for word in ("hello there", "mind 3", "their warning", "python's warning"))
    assert capsys.readouterr().err == "hello there\nmind 3\nmind 3\n"
    log.info("nobody listens")
    assert "nobody listens" not in (tmp_path / "log.txt").read_text()


def test_devices() -> None:
    assert device.resolve("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"device=gpu is not auto, cpu, cuda or cuda:N"):
        device.resolve("gpu")
    with pytest.raises(UserError, match=r"device=cuda:99: torch .* sees no such GPU here"):
        device.resolve("cuda:99")
    assert isinstance(device.rasterizer("cpu"), NumbaRasterizer)
    assert isinstance(device.mesh_rasterizer("cpu"), CpuMeshRasterizer)


def test_facts_for_the_manifest() -> None:
    assert {"dg", "torch", "python", "lightning"} <= set(versions())
    revision, modified = git_revision()
    assert (revision is None) == (modified is None)
    assert revision is None or len(revision) == 40


@pytest.mark.parametrize(
    ("told", "facts", "short"),
    [
        ("4e63672c03103b+", ("4e63672c03103b", True), "4e63672c0310+"),
        ("4e63672", ("4e63672", False), "4e63672"),
        (None, (None, None), "unknown"),
    ],
)
def test_a_copy_without_history_is_told_its_revision(
    told: str | None, facts: tuple, short: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks._record import revision

    monkeypatch.setattr("dg.runtime.manifest.REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("DG_REVISION", raising=False)
    if told is not None:
        monkeypatch.setenv("DG_REVISION", told)
    assert git_revision() == facts and revision() == short


def test_reports_become_flat_entries() -> None:
    assert flat("mesh", {"faces": 3, "seconds": {"clean": 1.5}}) == {"mesh/faces": 3, "mesh/seconds/clean": 1.5}


def test_scores_of_a_picture_of_itself_are_perfect_and_fall_when_it_is_moved() -> None:
    splats = activate(ball(generator(0, "test"), num_points=200, radius=0.4, opacity=0.9))
    cameras = orbit(0.0, 0.0, 2.0, height=64)

    def subject(picture: torch.Tensor) -> Subject:
        reference = Reference(picture, cameras)
        return Subject(
            splats, None, reference, NumbaRasterizer(), CpuMeshRasterizer(), 2.0, 49.1, 0.0, torch.device("cpu")
        )

    blank = subject(torch.zeros(1, 64, 64, 4))
    rendered = blank.splats(cameras)
    alpha = rendered[..., 3:]
    straight = torch.cat([(rendered[..., :3] - 1 + alpha) / alpha.clamp_min(1e-6), alpha], -1)
    same, moved = reference_scores(subject(straight)), reference_scores(subject(straight.roll(8, 2)))
    assert same["splats/psnr_ref"] > 60 and same["splats/iou_ref"] == 1
    assert moved["splats/psnr_ref"] < 25 and 0.5 < moved["splats/iou_ref"] < 0.9
    assert reference_scores(blank)["splats/iou_ref"] == 0


def test_a_terminal_signal_is_taken_back_from_lightning() -> None:
    stop = StopSignal()
    with stop.listening():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a library might
        stop.take_back()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_loader_of_steps_warns_of_nothing_and_counts_the_steps_taken() -> None:
    from lightning.pytorch.utilities.data import has_len_all_ranks  # where Lightning complains of iterable data sets

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = steps(7, 3)
        assert list(loader) == [4, 5, 6, 7] and len(loader) == 7
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        assert has_len_all_ranks(loader, trainer.strategy)


def test_norms_of_gradients_by_group() -> None:
    a, b, c = (torch.nn.Parameter(torch.zeros(n)) for n in (2, 3, 4))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    groups = [{"name": "both", "params": [a, b]}, {"name": "b", "params": [b]}, {"name": "none", "params": [c]}]
    module = SimpleNamespace()
    GradientNorms().on_before_optimizer_step(None, module, SimpleNamespace(param_groups=groups))
    assert module.grad_norms == {"both": pytest.approx(5.0), "b": pytest.approx(4.0)}


def test_what_counts_as_a_full_disk() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    try:
        try:
            raise full
        except OSError as error:
            raise RuntimeError("cannot save") from error
    except RuntimeError as error:
        assert disk_full(error)
    assert disk_full(full) and disk_full(OSError(errno.EDQUOT, "quota"))
    assert disk_full(RuntimeError("IoError: No space left on device (os error 28)"))  # as safetensors says it
    assert not disk_full(FileNotFoundError(errno.ENOENT, "nothing")) and not disk_full(None)


def test_overview_and_views_are_rendered_once(tmp_path: Path) -> None:
    splats = activate(ball(generator(0, "test"), num_points=50, radius=0.4, opacity=0.9))
    calls: list[int] = []

    class Counting(NumbaRasterizer):
        def __call__(self, gaussians: Gaussians, cameras: Cameras, background: torch.Tensor) -> Render:
            calls.append(len(cameras))
            return super().__call__(gaussians, cameras, background)

    subject = Subject(splats, None, None, Counting(), CpuMeshRasterizer(), 2.0, 49.1, 0.0, torch.device("cpu"))
    write_all(tmp_path / "eight", subject, PreviewOptions(size=32, azimuths=8, turntable_frames=0), "title")
    assert calls == [8]
    assert len(list((tmp_path / "eight" / "views").iterdir())) == 8
    calls.clear()
    write_all(tmp_path / "three", subject, PreviewOptions(size=32, azimuths=3, turntable_frames=0), "title")
    assert calls == [6]  # 0, 90, 120, 180, 240, 270: three views, four sides
    assert sorted(p.name for p in (tmp_path / "three" / "views").iterdir()) == [
        f"splats_{a}.png" for a in ("000", "120", "240")
    ]
    sheet, view = (
        read_png(tmp_path / "eight" / "overview.png"),
        read_png(tmp_path / "eight" / "views" / "splats_090.png"),
    )
    shown = view[..., :3] * view[..., 3:] + 1 - view[..., 3:]
    cells = sheet.unfold(0, 32, 1).unfold(1, 32, 1).permute(0, 1, 3, 4, 2)  # every place where a tile could stand
    inner = (cells[..., 1:-1, 1:-1, :] - shown[1:-1, 1:-1]).abs().amax((2, 3, 4))
    assert (inner < 0.02).sum() == 1  # the right side stands where it belongs, once
