"""Realistic records of a small board, with pictures and a mesh on disk, for the tests of the leaderboard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from dg.eval.records import Record, append
from dg.io.mesh import save_mesh
from tests.shapes import ball

ITEMS = ("robot", "teapot", "duck", "mug")
NEW, OLD = "5f0c9a1be2d34477", "00aa11bb22cc33dd"
HEADLINE = ("psnr_db", "silhouette_iou", "volume_iou", "chamfer/unaligned")
BASELINE = "silhouette"
NASTY = '<script>alert(1)</script> & "quotes" | pipe'
# method -> kind, stage -> what is added to the baseline's PSNR
METHODS = {
    "zero123_mini": ("ours", {"mesh": 1.2, "coarse": 0.9, "splats": 0.6}),
    "silhouette": ("ours", {"mesh": 0.0, "coarse": -0.2}),
    NASTY: ("foreign", {"mesh": -1.5}),
    "views_only": ("foreign", {"renders": 0.4}),
    "truth": ("reference", {"mesh": 60.0}),
    "oracle": ("reference", {"mesh": 12.0}),
    "billboard": ("reference", {"mesh": -6.0}),
}


def records(items: tuple[str, ...] = ITEMS, seeds: tuple[int, ...] = (0, 1), hash_: str = NEW) -> list[Record]:
    """Deterministic figures: an object's own level, the method's offset, a little of the seed."""
    found = []
    for method, (kind, stages) in METHODS.items():
        for i, item in enumerate(items):
            for seed in (0,) if kind == "reference" else seeds:
                for stage, offset in stages.items():
                    found.append(_record(method, kind, stage, offset, item, i, seed, hash_))
    return found


def _record(method: str, kind: str, stage: str, offset: float, item: str, i: int, seed: int, hash_: str) -> Record:
    wave = float(np.sin(3.1 * i + len(method)) * 0.5 + 0.1 * seed)
    psnr = min(100.0, 20 + 1.5 * i + offset + wave)
    solid = stage not in ("splats", "renders")
    truth = method == "truth"
    scores: dict[str, float | None] = {
        "psnr_db": 100.0 if truth else psnr,
        "psnr_db/back": 100.0 if truth else psnr - 2,
        "silhouette_iou": 1.0 if truth else min(0.999, psnr / 30),
        "volume_iou": (1.0 if truth else min(0.99, psnr / 34)) if solid else None,
        "chamfer/unaligned": (0.0 if truth else 0.9 / psnr) if solid else None,
        "lpips_vgg": None,
        "faces": 4000.0 + i if solid else None,
        "seconds": 40.0 + 3 * i + seed,
    }
    blanks = {"lpips_vgg": "weights of VGG are not on this machine"}
    if not solid:
        blanks |= dict.fromkeys(("volume_iou", "chamfer/unaligned", "faces"), f"{stage} have no surface")
    failure = None
    if method == NASTY and item == ITEMS[-1] and seed == 0:
        failure, scores, blanks = "the mesh is empty: <b>no</b> face left", {"psnr_db": 0.0}, {}
    return Record(
        key=f"{hash_}-{method}-{item}-{seed}",
        protocol="synthetic_gt",
        protocol_hash=hash_,
        item=item,
        method=method,
        stage=stage,
        seed=seed,
        kind=kind,
        scores=scores,
        blanks=blanks,
        failure=failure,
        attempts=2 if failure else 1,
        command=f"python evaluate.py protocol=synthetic_gt methods=[{method}] seed={seed}",
        config="0123456789abcdef",
        revision="cd8220a",
        machine="2 cores, AMD EPYC",
        device="cpu",
        licence="Apache-2.0" if kind == "ours" else None,
        versions={"torch": "2.14.0", "dg": "0.3.0"},
        finished=f"2026-11-25T0{2 + (hash_ == NEW)}:{10 + i}:00Z",
    )


def write(folder: Path, found: list[Record], views: int = 4) -> list[Record]:
    """records.jsonl with pictures and one mesh that the records point at."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = torch.linspace(0, 1, 64)
    checks = ((torch.arange(64)[:, None] // 8 + torch.arange(64)[None] // 8) % 2).float()
    texture = torch.stack([rows[None].expand(64, 64), 0.2 + 0.6 * checks, 1 - rows[:, None].expand(64, 64)], -1)
    save_mesh(ball(texture), folder / "ball.glb")
    kept = []
    for record in found:
        tint = 40 + 37 * (sum(map(ord, record.method)) % 6)
        stem = f"{record.item}-{tint}"
        pictures = tuple(_picture(folder, f"{stem}-{v}.png", (tint, 120, 250 - tint), v) for v in range(views))
        truth = tuple(_picture(folder, f"{record.item}-truth-{v}.png", (210, 140, 40), v) for v in range(views))
        given = _picture(folder, f"{record.item}-input.png", (210, 140, 40), 0)
        mesh = "ball.glb" if record.stage in ("mesh", "coarse") else None
        if record.failure:
            pictures, mesh = (), None
        record = replace(record, pictures=pictures, truth_pictures=truth, input_picture=given, mesh=mesh)
        append(folder / "records.jsonl", record)
        kept.append(record)
    return kept


def _picture(folder: Path, name: str, colour: tuple[int, int, int], view: int) -> str:
    path = folder / "pictures" / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        image = Image.new("RGB", (128, 128), "white")
        draw = ImageDraw.Draw(image)
        draw.ellipse((24, 24, 104, 104), fill=colour)
        draw.ellipse((40 + 12 * view, 50, 54 + 12 * view, 64), fill="white")
        image.save(path)
    return f"pictures/{name}"
