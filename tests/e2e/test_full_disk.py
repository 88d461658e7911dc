"""A disk without space: one line, exit code 2, no half file; with space again the same command goes on."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dg.runtime.manifest import Manifest
from tests.runs import FAST, exit_code_of, run

WANTED = (*FAST, "prior=point", "name=run", "iters=4", "iters_refine=4", "preview.turntable_frames=0")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: writing more fails as on a full disk (EFBIG for ENOSPC)."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("whole"), WANTED)


def complaint(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in said and "Logging error" not in said, said
    return lines[0]


@pytest.mark.parametrize("size", [100, 60_000, 130_000], ids=["config.yaml", "last.ckpt", "texture.ckpt"])
def test_no_space(size: int, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with files_up_to(size):
        assert exit_code_of(tmp_path, WANTED) == 2
    line = complaint(capsys.readouterr().err)
    assert f"nothing more can be written to {tmp_path / 'run'}: the disk is full" in line and "free some space" in line
    names = {p.relative_to(tmp_path / "run") for p in (tmp_path / "run").rglob("*")}
    assert not [name for name in names if ".tmp" in str(name)]
    for name in ("gaussians.ply", "coarse.glb", "mesh.glb"):
        path = tmp_path / "run" / name
        assert not path.exists() or path.read_bytes() == (whole / name).read_bytes()
    assert not (tmp_path / "run" / "mesh.glb").exists()
    assert exit_code_of(tmp_path, WANTED) == 0
    for name in ("gaussians.ply", "coarse.glb", "mesh.glb"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    assert Manifest.load(tmp_path / "run").status == "done"


@pytest.mark.parametrize(
    "writer",
    ["dg.runtime.logging.append_line", "dg.io.ply.write_ply", "dg.io.mesh.save_mesh", "dg.runtime.preview.write_png"],
)
def test_no_space_wherever_it_shows(
    writer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(writer, full)
        assert exit_code_of(tmp_path, WANTED) == 2
    assert "the disk is full" in complaint(capsys.readouterr().err)
    manifest = Manifest.load(tmp_path / "run")
    assert manifest.status == "failed" and "the disk is full" in manifest.failures[0]
