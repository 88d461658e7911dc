"""Spoiling a mesh in one way moves the figures that should see it, and no other."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

from dg.eval.catalog import metric
from dg.eval.protocol import Result
from dg.eval.scoring import score
from dg.io.mesh import load_mesh, save_mesh
from tests.eval import lump

# What counts as a move. Surfaces are compared by points, which fall elsewhere as soon as faces come or go: with 12,000
# of them two sets on the same surface have a Chamfer distance of 0.007, and a few points in a hundred are 0.02 apart.
LEAST = {
    "psnr_db": 0.5,
    "input_psnr_db": 0.5,
    "ssim": 0.004,
    "input_ssim": 0.004,
    "input_iou": 0.01,
    "mirrored_front": 0.004,
    "silhouette_iou": 0.01,
    "chamfer": 0.012,
    "f_score@0.01": 0.3,
    "f_score@0.02": 0.05,
    "f_score@0.05": 0.03,
    "normal_consistency": 0.004,
    "volume_iou": 0.03,
    "saturation": 0.01,
    "saturation_error": 0.01,
    "file_mb": 0.005,
}
COLOURS = ("psnr_db*", "ssim*", "input_psnr_db", "input_ssim")
LOOKS = (*COLOURS, "silhouette_iou*", "input_iou")
POSES = ("unaligned", "visible", "hidden")
SHAPE = ("chamfer", "f_score@0.01", "f_score@0.02", "f_score@0.05", "normal_consistency", "volume_iou")
DISTANCES = ("chamfer/*", "f_score@*", "volume_iou/*")

# corruption -> (how, what must move, what may move besides)
CASES = {
    "recoloured": (lump.recoloured, COLOURS, ()),
    "faded": (lump.faded, (*COLOURS, "saturation", "saturation_error", "mirrored_front"), ()),
    "mirrored": (lump.mirrored, (*LOOKS, *DISTANCES, "normal_consistency/*"), ()),
    "turned": (  # by 45 degrees: the views are the same eight, so the mean saturation stays
        lambda m: lump.turned(m, 45),
        (*LOOKS, "mirrored_front", *(f"{base}/{part}" for base in SHAPE for part in (*POSES, "rot24"))),
        (),
    ),
    # directions stay, but points find other partners
    "scaled": (lump.scaled, (*LOOKS, *DISTANCES, "mirrored_front"), ("normal_consistency/*",)),
    # at the back, where the input does not see it
    "holed": (
        lump.holed,
        ("watertight", "faces", "psnr_db", "psnr_db/back", "psnr_db/hidden", "ssim/back"),
        ("ssim", "mirrored_front", "file_mb"),
    ),
    # within, where no view sees it, and where a volume counts once
    "hollow": (
        lump.hollow,
        (
            "components",
            "faces",
            "file_mb",
            *(f"{b}/{p}" for b in SHAPE[:4] for p in ("unaligned", "yaw", "icp", "rot24")),
        ),
        ("normal_consistency/*",),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lump")


@pytest.fixture(scope="module")
def item(folder):
    return lump.item(folder)


@pytest.fixture(scope="module")
def perfect(item):
    return score(Result(mesh=item.truth), item, lump.protocol(), lump.RASTER).values


def spoilt(how, item, folder, **rules):
    save_mesh(how(load_mesh(item.truth)), folder / "spoilt.glb")
    return score(Result(mesh=folder / "spoilt.glb"), item, lump.protocol(**rules), lump.RASTER).values


def test_truth_against_itself_is_perfect(perfect):
    best = {"psnr_db": 100.0, "watertight": 1.0, "manifold": 1.0}
    for name, value in perfect.items():
        base = name.partition("/")[0]
        row = metric(name)
        if row.better == "neither" or base == "mirrored_front":  # which no truth decides
            continue
        if base.startswith("input_"):  # the input has 8 bits
            assert value >= {"input_psnr_db": 55, "input_ssim": 0.999, "input_iou": 0.998}[base], (name, value)
        else:
            assert value == best.get(base, 1.0 if row.better == "higher" else 0.0), (name, value)


@pytest.mark.parametrize("name", CASES)
def test_a_corruption_moves_what_should_see_it_and_nothing_else(name, item, folder, perfect):
    how, must, may = CASES[name]
    found = spoilt(how, item, folder)
    assert found.keys() == perfect.keys()
    moved = {n for n in found if abs(found[n] - perfect[n]) > LEAST.get(n.partition("/")[0], 0)}
    expected = {n for n in found if any(fnmatch(n, pattern) for pattern in must)}
    allowed = expected | {n for n in found if any(fnmatch(n, pattern) for pattern in may)}
    assert not expected - moved, f"blind: {sorted(expected - moved)}"
    assert not moved - allowed, {n: (perfect[n], found[n]) for n in sorted(moved - allowed)}
    for n in moved - {"mirrored_front"}:
        better = metric(n).better
        assert better == "neither" or (found[n] < perfect[n]) == (better == "higher"), n


def test_without_a_fixed_size_scaling_is_seen_by_nothing(item, folder):
    found = spoilt(lump.scaled, item, folder, normalise="extent", alignments=("unaligned",))
    assert found["psnr_db"] > 60 and found["silhouette_iou"] == 1
    assert found["chamfer/unaligned"] < 1e-5 and found["volume_iou/unaligned"] == 1
