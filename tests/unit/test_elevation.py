"""`elevation=auto`: found where it can be, refused where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dg.core.camera import orbit
from dg.data.objects import make, picture
from dg.io.images import write_png
from dg.io.mesh import save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.oracle import OraclePrior
from dg.runtime.manifest import Manifest
from dg.stages.elevation import CANDIDATES_DEG, denoising_error, search
from dg.types import Reference
from tests.runs import BARE, exit_code_of, run


@pytest.mark.parametrize("true", [-37.0, -12.5, 0.0, 3.0, 18.0])
def test_the_search_finds_the_minimum(true: float) -> None:
    asked: list[float] = []
    found = search(lambda e: (asked.append(e), (e - true) ** 2 + 3)[1])
    assert found.elevation_deg == pytest.approx(true, abs=1e-6) and len(asked) == len(set(asked)) <= 11
    assert set(CANDIDATES_DEG) <= set(found.curve) and list(found.curve) == sorted(found.curve)


def test_a_flat_curve_has_no_vertex() -> None:
    assert search(lambda e: 1.0).elevation_deg == CANDIDATES_DEG[0]


@pytest.fixture(scope="module", params=["robot", "mug"])
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mesh") / f"{request.param}.glb"
    save_mesh(make(request.param), path)
    return path


@pytest.mark.parametrize("true", [-33.0, -16.0, 7.0])
@pytest.mark.parametrize("bias", [{}, {"blur_px": 1.5, "noise": 0.1}], ids=["oracle", "oracle_blur"])
def test_the_oracle_finds_the_true_elevation(mesh: Path, true: float, bias: dict) -> None:
    prior = OraclePrior(mesh=mesh, rasterizer=CpuMeshRasterizer(), image_size=64, ssaa=1, **bias)
    rgba = picture(make(mesh.stem), 128, true)[None]
    found = search(lambda e: denoising_error(prior, Reference(rgba, orbit(e, 0, 2.0, height=128))))
    assert found.elevation_deg == pytest.approx(true, abs=3.0)


def test_it_is_recorded_and_used(mesh: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "in.png", picture(make(mesh.stem), 128, -20.0))
    wanted = [*BARE, "prior=oracle", f"prior.mesh={mesh}", f"input={tmp_path / 'in.png'}", "recenter=false", "name=run"]
    wanted += ["elevation=auto", "iters=1", "stages=[gaussians]"]
    made = run(tmp_path, wanted)
    record = Manifest.load(made).elevation
    assert record["elevation_deg"] == pytest.approx(-20, abs=3)
    assert min(record["curve"], key=record["curve"].get) == "-20" and len(record["curve"]) >= 9
    (made / "gaussians.ply").unlink()
    assert run(tmp_path, wanted) == made and Manifest.load(made).elevation == record


def test_priors_that_cannot_tell_say_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert exit_code_of(tmp_path, [*BARE, "elevation=auto", "stages=[gaussians]", "iters=1", "name=x"]) == 2
    said = capsys.readouterr().err
    assert "elevation=auto cannot work with Zero123Mini" in said and "elevation=DEGREES" in said
    assert exit_code_of(tmp_path, [*BARE, "elevation=automatic", "name=y"]) == 2
    assert "elevation=automatic must be a number or one of auto" in capsys.readouterr().err
    assert torch.is_grad_enabled()
