"""The GPU benchmark: all of it at a tiny size on the CPU, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import _gpu_geometry, _gpu_job, gpu
from benchmarks._gpu_floor import Bench, Rates, Work, adam, densification, operations
from benchmarks._gpu_job import against
from dg.core.densify import AdaptiveDensity, Statistics
from dg.core.gaussians import RawGaussians, deactivate
from dg.core.rng import generator
from dg.io.ply import read_ply
from dg.runtime.errors import RunError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", 2, Rates(1.0, 100.0), tmp_path, tiny=True)


def test_all_of_it_at_a_tiny_size(tmp_path: Path) -> None:
    original = {"total_s": 1000.0, "stage1_s": 600.0, "mesh_s": 150.0, "stage2_s": 250.0, "growth": "natural"}
    (tmp_path / "original.json").write_text(json.dumps(original))
    given = ["--original", str(tmp_path / "original.json"), "--mesh-runs", "1"]
    gpu.main(["--tiny", "--device", "cpu", "--results", str(tmp_path), *given])
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert "failures" not in report
    names = {p["part"] for p in report["parts"]}
    assert {"job: stage1", "job: all", "step of stage 1", "step of stage 2", "UNet, guidance"} <= names
    assert {"VAE encode, both ways", "Adam", "densification", "splats, both ways", "mesh: unwrap"} <= names
    assert all(p["median_s"] > 0 for p in report["parts"])
    assert all(p["floor_ms"] > 0 and p["ratio_to_floor"] > 0 for p in report["parts"] if p["part"] == "UNet, guidance")
    assert report["kernels"]["UNet, guidance: eager"]["launches"] > 50
    job = report["job"]
    assert job["total_s"] >= job["stage1_s"] + job["mesh_s"] + job["stage2_s"] and job["growth"] == "natural"
    assert report["speedup_over_original"] == pytest.approx(1000 / job["total_s"], abs=0.01)
    assert report["speedup_by_stage"]["mesh"] == pytest.approx(150 / job["mesh_s"], abs=0.01)
    lines = (tmp_path / "gpu.jsonl").read_text().splitlines()
    assert len(lines) == len(report["parts"]) and all("revision" in json.loads(line) for line in lines)
    drawn = np.asarray(Image.open(tmp_path / "gpu_cost.png"))
    assert drawn.shape[1] > 1000 and (drawn < 100).any(-1).mean() > 0.002


def test_a_floor_is_the_slower_of_arithmetic_and_traffic() -> None:
    rates = Rates(matrix_tflops=2.0, bandwidth_gb_s=500.0)
    assert Work(flops=4e9).floor_ms(rates) == pytest.approx(2.0)
    assert Work(bytes=1e9).floor_ms(rates) == pytest.approx(2.0)
    assert Work(flops=4e9, bytes=3e9).floor_ms(rates) == pytest.approx(6.0)
    assert (Work(1, 2) + Work(3, 4)).times(2) == Work(8, 12)


def test_operations_count_what_a_product_takes() -> None:
    a, b = torch.randn(7, 5), torch.randn(5, 3)
    assert operations(lambda: a @ b) == 2 * 7 * 5 * 3


def test_bytes_of_an_update_are_those_of_its_tensors() -> None:
    _, optimizer = _gpu_geometry.state(30, "cpu")
    held = [p for group in optimizer.param_groups for p in group["params"]]
    moments = [optimizer.state[p][name] for p in held for name in ("exp_avg", "exp_avg_sq")]
    size = lambda tensors: sum(x.numel() * x.element_size() for x in tensors)  # noqa: E731
    read, written = size(held) + size(p.grad for p in held) + size(moments), size(held) + size(moments)
    assert adam(30).bytes == read + written


def test_the_densification_measured_doubles_the_set() -> None:
    raw = RawGaussians(**{k: v.detach() for k, v in deactivate(_gpu_geometry.lump(50)).as_dict().items()})
    rule = AdaptiveDensity(grad_threshold=0.0, min_opacity=0.0)
    result = rule.edit(100, 500, raw, Statistics(*(torch.ones(50),) * 3), generator(0, "test"))
    assert int(result.edit.keep.sum()) + len(result.edit.append) == 100
    assert densification(50, 100).bytes == 4 * 3 * 14 * 150


def test_a_part_that_fails_is_recorded_and_the_others_go_on(bench: Bench) -> None:
    def broken() -> None:
        raise RuntimeError("no such kernel")

    assert gpu.tried(bench, "first", broken) is None
    assert gpu.tried(bench, "second", lambda: 7) == 7
    assert json.loads((bench.results / "gpu.json").read_text())["failures"] == {"first": "RuntimeError: no such kernel"}


def test_an_original_that_did_not_end_is_refused() -> None:
    with pytest.raises(ValueError, match="did not end"):
        against({"total_s": 1.0}, {"stage1_s": 3.0})


def test_where_no_object_was_made_a_dented_ball_is_meshed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run_once(overrides: list[str], shelf: object) -> tuple:
        asked.append(overrides)
        if len(asked) == 1:
            raise RunError("stage mesh: no surface")
        stages = {"gaussians": 1} if len(asked) == 2 else {"mesh": 2, "texture": 3}
        return 1.5, {"stages": stages}, {"splats/count": 10 * len(asked)}, tmp_path / str(len(asked))

    monkeypatch.setattr(_gpu_job, "run_once", run_once)
    job = _gpu_job.Job(tmp_path / "a.png", tmp_path, 5, 2, 60, "doubling", "cpu")
    seconds, manifest, metrics, folder = _gpu_job.run_job(job, tmp_path, "job0", None)
    assert (seconds, folder) == (3.0, tmp_path / "2") and manifest["stages"] == {
        "gaussians": 1,
        "mesh": 2,
        "texture": 3,
    }
    assert metrics["mesh_of"] == "a dented ball" and metrics["splats/count"] == 20
    assert "stages=[gaussians]" in asked[1] and f"gaussians={tmp_path / 'ball.ply'}" in asked[2]
    assert len(read_ply(tmp_path / "ball.ply")) == 60


def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--results", str(tmp_path)])
    assert "--tiny" in capsys.readouterr().out and not list(tmp_path.iterdir())
