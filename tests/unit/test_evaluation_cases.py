"""A case that fails is tried again, then counted with the worst figures; a success comes with its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from dg.data import objects
from dg.eval.protocol import Item, Protocol, Result, ViewSpec
from dg.eval.records import read
from dg.io.images import write_png
from dg.io.mesh import save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.runtime.errors import Interrupted, UserError
from dg.runtime.evaluation.cases import Judge, cases
from dg.runtime.evaluation.made import Made, item_checksum
from dg.runtime.logging import logging_to
from tests import shapes


@dataclass
class Fake:
    """Raises what it is told, then leaves the truth itself."""

    errors: list[BaseException] = field(default_factory=list)
    name: str = "fake"
    kind: str = "ours"
    licence: str | None = None
    calls: list[bool] = field(default_factory=list)

    def identity(self) -> str:
        return "1"

    def stages(self, item: Item) -> tuple[str, ...]:
        return ("mesh", "coarse")

    def applies(self, item: Item) -> bool:
        return True

    def make(self, item: Item, seed: int, folder: Path, again: bool) -> Made:
        self.calls.append(again)
        if self.errors:
            raise self.errors.pop(0)
        return Made({"mesh": Result(mesh=item.truth)}, {"mesh": {"seconds": 2.0}}, failure="no coarse mesh came out")


@pytest.fixture
def item(tmp_path: Path) -> Item:
    mesh = shapes.ball(torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0)), 0.5, 12)
    save_mesh(mesh, tmp_path / "ball.glb")
    write_png(tmp_path / "ball.png", objects.picture(mesh, 64))
    return Item("ball", tmp_path / "ball.png", recenter=False, truth=tmp_path / "ball.glb")


PROTOCOL = Protocol(
    "tiny",
    list,
    ViewSpec((0.0, 0.0), (0.0, 180.0), size=32, ssaa=1),
    metrics=("psnr_db", "chamfer", "clip_image", "faces"),
    headline=("psnr_db",),
    points=500,
    clip=("openclip-none",),
)


def judge(board: Path) -> Judge:
    absent = {"openclip-none": "its weights are not here"}
    return Judge(PROTOCOL, "abc", board, ("mesh", "coarse"), CpuMeshRasterizer(), None, (), absent)


def settle(board: Path, item: Item, fake: Fake, **more: object) -> dict:
    (case,) = cases("abc", [item], [fake], [0], board)
    board.mkdir(exist_ok=True)
    with logging_to(board):
        judge(board).settle(case, **{"deaths": 0, "too_many": 3} | more)
    return {r.stage: r for r in read(board / "records.jsonl")}


def test_a_success_is_recorded_with_pictures_costs_and_reasons(tmp_path: Path, item: Item) -> None:
    fake = Fake()
    records = settle(tmp_path / "board", item, fake)
    mesh = records["mesh"]
    assert fake.calls == [False] and mesh.failure is None and mesh.attempts == 1
    assert mesh.scores["psnr_db"] == 100 and mesh.scores["chamfer/unaligned"] < 1e-3 and mesh.scores["seconds"] == 2
    assert mesh.scores["clip_image/openclip-none"] is None
    assert mesh.blanks["clip_image/openclip-none"] == "its weights are not here"
    assert len(mesh.pictures) == len(mesh.truth_pictures) == 2
    assert all((tmp_path / "board" / p).is_file() for p in (*mesh.pictures, *mesh.truth_pictures))
    coarse = records["coarse"]
    assert coarse.failure == "no coarse mesh came out"
    assert coarse.scores["psnr_db"] == 0 and coarse.scores["chamfer/unaligned"] == 1 and coarse.scores["faces"] is None


def test_one_crash_is_forgiven(tmp_path: Path, item: Item) -> None:
    fake = Fake([RuntimeError("out of memory")])
    records = settle(tmp_path / "board", item, fake)
    assert fake.calls == [False, True] and records["mesh"].failure is None and records["mesh"].attempts == 2
    assert "out of memory" in (tmp_path / "board" / "log.txt").read_text()


def test_two_crashes_are_a_failure_with_the_worst_figures(tmp_path: Path, item: Item) -> None:
    records = settle(tmp_path / "board", item, Fake([RuntimeError("bad"), ValueError("worse")]))
    assert records["mesh"].failure == "ValueError: worse" and records["mesh"].scores["psnr_db"] == 0
    assert records["mesh"].attempts == 2


def test_what_trying_again_cannot_mend_is_tried_once(tmp_path: Path, item: Item) -> None:
    fake = Fake([UserError("input=x.png: not a picture")])
    assert settle(tmp_path / "board", item, fake)["mesh"].failure == "UserError: input=x.png: not a picture"
    assert fake.calls == [False]


def test_a_case_that_kills_its_process_is_given_up(tmp_path: Path, item: Item) -> None:
    fake = Fake()
    records = settle(tmp_path / "board", item, fake, deaths=3)
    assert fake.calls == [] and "the process ended 3 times" in records["mesh"].failure


def test_being_stopped_is_no_failure(tmp_path: Path, item: Item) -> None:
    with pytest.raises(Interrupted):
        settle(tmp_path / "board", item, Fake([Interrupted("now")]))
    assert not (tmp_path / "board" / "records.jsonl").exists()


def test_an_items_checksum_is_of_its_contents(tmp_path: Path, item: Item) -> None:
    from dataclasses import replace

    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(item.image.read_bytes())
    assert item_checksum(replace(item, image=copy)) == item_checksum(item)
    assert item_checksum(replace(item, elevation_deg=-10)) != item_checksum(item)
    copy.write_bytes(b"other")
    assert item_checksum(replace(item, image=copy)) != item_checksum(item)


def test_references_run_once_and_methods_with_every_seed(tmp_path: Path, item: Item) -> None:
    found = cases("abc", [item], [Fake(), Fake(name="truth", kind="reference")], [0, 1], tmp_path)
    assert [(c.method.name, c.seed) for c in found] == [("fake", 0), ("fake", 1), ("truth", 0)]
    assert len({c.key for c in found}) == 3 and len({c.place for c in found}) == 3
