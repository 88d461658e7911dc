"""Shipped protocols are frozen; open ones take their items into the hash; scores of different ones are kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dg.data import objects
from dg.eval.comparing import differences, refuse
from dg.eval.layouts import images
from dg.eval.protocol import Item, Protocol, ViewSpec, content_hash
from dg.eval.views import novel16
from dg.io.images import write_png
from tests.eval.shipped import NAMES, protocol

# A change here is a new protocol: old scores are no longer compared with new ones. Raise `version` and say why.
PINNED = {
    "dg_clip8": "aea94eeb5383f0fc",
    "escher_gso30": "2b39bea8c783cc11",
    "gso30_mesh": "52358251d17d92d0",
    "gso30_nvs": "f382a2fecb4eaa63",
    "gt_folder": "455d881329b34fba",
    "images": "12f5cfbf2746a2f9",
    "nerf4": "ab8a167d52d5cf6d",
    "realfusion15": "f9a3da02a1cc5573",
    "synthetic_gt": "3041702a2d9024e2",
    "t3bench": "3b4b22f26c0a481b",
}


def test_every_shipped_protocol_is_pinned():
    assert {name: protocol(name).hash() for name in NAMES} == PINNED


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_says_what_is_missing_and_does_not_depend_on_places(name, tmp_path):
    here, there = (protocol(name, data=tmp_path / d, images=tmp_path / d, outdir=tmp_path / d) for d in "ab")
    assert here.name == name and here.hash() == there.hash() == protocol(name).hash()
    if name != "synthetic_gt":
        key = "images" if name in ("images", "dg_clip8") else "data"
        with pytest.raises(FileNotFoundError, match=f"give {key}="):
            protocol(name, outdir=tmp_path).items()
        with pytest.raises(FileNotFoundError, match=f"{key}=.*a: there is no such"):
            here.items()


def test_our_own_views_are_the_sixteen_of_the_score_command():
    cameras, expected = protocol("synthetic_gt").views.cameras(), novel16()
    torch.testing.assert_close(cameras.c2w, expected.c2w)
    torch.testing.assert_close(cameras.K, expected.K)


def test_synthetic_objects_are_ours():
    assert len(protocol("synthetic_gt").objects) >= 8
    assert set(protocol("synthetic_gt").objects) <= set(objects.names())


def plain(**changes) -> Protocol:
    views = ViewSpec((0, -20), (0, 45), size=32)
    base = Protocol("toy", lambda: [Item("a"), Item("b")], views, ("psnr_db", "ssim"), ("psnr_db",))
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"views": ViewSpec((0, -20), (0, 45), size=32, radius=3)}, "views.radius: 2.0 against 3"),
        ({"metrics": ("psnr_db",)}, "metrics.ssim: 1 against None"),
        ({"normalise": "extent"}, "normalise: none against extent"),
        ({"alignments": ("yaw",)}, "alignments: unaligned against yaw"),
        ({"points": 5}, "points: 20000 against 5"),
        ({"surface": "visible"}, "surface: all against visible"),
        ({"version": 2}, "version: 1 against 2"),
        ({"objects": ("a", "b")}, "only there a, b"),
    ],
)
def test_what_decides_a_figure_changes_the_hash_and_is_named(changes, named):
    a, b = plain().content(), plain(**changes).content()
    assert content_hash(a) != content_hash(b)
    assert any(named in line for line in differences(a, b)), differences(a, b)
    with pytest.raises(ValueError, match="must not be compared") as error:
        refuse(a, b)
    assert named in str(error.value)


def test_what_decides_nothing_does_not():
    for changes in ({"headline": ("ssim",)}, {"baseline": "x"}, {"source": list}):
        assert plain(**changes).hash() == plain().hash()
        refuse(plain().content(), plain(**changes).content())


def test_a_new_version_of_a_metric_changes_the_hash(monkeypatch):
    from dg.eval.catalog import CATALOG

    before = plain().hash()
    monkeypatch.setitem(CATALOG, "ssim", replace(CATALOG["ssim"], version=2))
    assert plain().hash() != before
    monkeypatch.setitem(CATALOG, "lpips_alex", replace(CATALOG["lpips_alex"], version=2))  # not measured here
    after = plain().hash()
    monkeypatch.setitem(CATALOG, "ssim", replace(CATALOG["ssim"], version=1))
    assert plain().hash() == before != after


@pytest.mark.parametrize("bad", [{"metrics": ("psnr",)}, {"headline": ("chamfer",)}, {"alignments": ("roll",)}])
def test_a_wrong_name_is_an_error(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        plain(**bad)


def test_open_sets_hash_contents_not_places(tmp_path):
    for folder in ("here", "there"):
        for i, name in enumerate(("cat", "dog")):
            write_png(tmp_path / folder / f"{name}.png", torch.full((4, 4, 4), i / 2))
    here, there = (images.read(tmp_path / folder) for folder in ("here", "there"))
    one = plain()
    assert one.hash(here) == one.hash(there) != one.hash()
    assert one.hash(here[:1]) != one.hash(here)
    write_png(tmp_path / "there" / "dog.png", torch.full((4, 4, 4), 0.1))
    changed = images.read(tmp_path / "there")
    assert one.hash(changed) != one.hash(here)
    assert differences(one.content(here), one.content(changed)) == ["objects: other files or settings of dog"]
    lower = images.read(tmp_path / "here", elevation=-30)
    assert one.hash(lower) != one.hash(here)
    closed = plain(objects=("cat", "dog"))
    assert closed.hash(here) == closed.hash(changed) == closed.hash()


def test_items_are_checked():
    assert [item.name for item in plain().items()] == ["a", "b"]
    with pytest.raises(ValueError, match="two objects are called a"):
        plain(source=lambda: [Item("a"), Item("a")]).items()
    with pytest.raises(ValueError, match="without c and with b besides"):
        plain(objects=("a", "c")).items()


def test_documented(tmp_path: Path):
    text = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"`{name}`" in text, f"docs/protocols.md does not mention {name}"
