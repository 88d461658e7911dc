"""`python -m experiments.held_out views --library DIR | meshes --library DIR --out DIR | report`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch

from benchmarks._record import revision
from dg.data.held_out import as_mesh, file_name, from_library, invented
from dg.io.images import write_png
from dg.io.mesh import save_mesh
from experiments.held_out import views

HERE = Path(__file__).parent
RECORDS = HERE / "views.jsonl"
README = HERE / "README.md"
BEGIN, END = "<!-- views: begin -->", "<!-- views: end -->"
REFERENCES = ("input copied", "silhouette inflated", "mean picture")
SHOWN = 8  # objects on the sheet


def objects(options: argparse.Namespace):
    return [*from_library(options.library), *invented()]


def rasterizer(device: torch.device):
    if device.type == "cuda":
        from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer

        return NvdiffrastMeshRasterizer(device)
    from dg.meshraster.cpu import CpuMeshRasterizer

    return CpuMeshRasterizer()


def run_views(options: argparse.Namespace) -> int:
    """Samples, compares, appends one record per object and answer, then reports."""
    from tqdm import tqdm

    from dg.meshraster.cpu import CpuMeshRasterizer
    from dg.priors.zero123_mini import Zero123Mini

    device = torch.device(options.device)
    prior = Zero123Mini(options.checkpoint, device=device)
    raster = CpuMeshRasterizer()
    things = objects(options)
    meshes = [as_mesh(thing) for thing in things]
    truths = [views.truth(mesh, raster) for mesh in meshes]  # of all: the mean picture is the mean over the others
    chosen = range(options.first, len(things), options.every)
    common = {"draws": options.draws, "steps": views.STEPS, "checkpoint": options.name, "revision": revision()}
    common["command"] = f"python -m experiments.held_out views --name {options.name} --draws {options.draws}"
    rows = []
    for i in tqdm(chosen, desc="held-out objects", disable=None):
        start = time.monotonic()
        seen = views.reference(meshes[i])
        made = views.samples(prior, seen, options.draws, device)
        answers = views.without_prior(seen, truths[:i] + truths[i + 1 :], raster)
        figures = {name: views.compare(answer, truths[i]) for name, answer in answers.items()}
        each = [asdict(views.compare(one, truths[i])) for one in made]
        found = {name: asdict(value) for name, value in figures.items()}
        found["one sample"] = {key: fmean(e[key] for e in each) for key in each[0]}
        found[f"mean of {options.draws}"] = asdict(views.compare(made.mean(0), truths[i]))
        seconds = round(time.monotonic() - start, 2)
        with RECORDS.open("a") as file:
            for answer, values in found.items():
                line = common | {"object": things[i].name, "answer": answer, "seconds": seconds}
                file.write(json.dumps(line | {k: round(v, 4) for k, v in values.items()}) + "\n")
        if chosen.index(i) % max(1, len(chosen) // SHOWN) == 0 and len(rows) < 3 * SHOWN:
            rows += [torch.cat([*x[..., :3]], 1) for x in (truths[i], made[0], made.mean(0))]
    if options.sheet:
        write_png(options.sheet, torch.cat(rows))
    return report(options)


def run_meshes(options: argparse.Namespace) -> int:
    """Writes the 32 objects as `evaluate.py protocol=gt_folder` reads them."""
    options.out.mkdir(parents=True, exist_ok=True)
    for thing in objects(options)[options.first :: options.every]:
        save_mesh(as_mesh(thing), options.out / f"{file_name(thing)}.glb")
        print(thing.name)
    return 0


def latest() -> dict[tuple[str, str, str], dict]:
    """The newest record by (checkpoint, answer, object)."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    records = [json.loads(line) for line in lines]
    return {(r["checkpoint"], r["answer"], r["object"]): r for r in records}


def table(records: dict[tuple[str, str, str], dict]) -> str:
    """Means over all objects, and by how much each answer beats the best of the references."""
    means: dict[tuple[str, str], tuple[float, ...]] = {}
    for checkpoint, answer in dict.fromkeys((c, a) for c, a, _ in records):
        group = [r for (c, a, _), r in records.items() if (c, a) == (checkpoint, answer)]
        # references don't depend on the weights: they are shown once
        name = (answer, "") if answer in REFERENCES else (answer, checkpoint)
        means[name] = tuple(fmean(r[k] for r in group) for k in ("psnr_db", "ssim", "silhouette_iou"))
    known = [v for (answer, _), v in means.items() if answer in REFERENCES]
    best = [max(column) for column in zip(*known, strict=True)] if known else [0.0] * 3
    rows = [
        "| answer | weights | PSNR (dB) | SSIM | silhouette IoU | against the best reference |",
        "|---|---|---|---|---|---|",
    ]
    for (answer, weights), (p, s, i) in sorted(means.items(), key=lambda x: x[1][0]):
        over = "" if answer in REFERENCES else f"{p - best[0]:+.2f} dB, {i - best[2]:+.3f} IoU"
        rows.append(f"| {answer} | {weights} | {p:.2f} | {s:.3f} | {i:.3f} | {over} |")
    return "\n".join(rows)


def report(options: argparse.Namespace) -> int:
    made = table(latest())
    head, rest = README.read_text().split(BEGIN)
    README.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}")
    print(made)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.held_out", description=__doc__)
    commands = parser.add_subparsers(required=True)
    sampled = commands.add_parser("views", help="novel views of the 32 objects, sampled; then the table")
    sampled.add_argument("--library", type=Path, required=True, help="the object library's folder")
    sampled.add_argument("--checkpoint", default=None, help="weights; the shipped ones by default")
    sampled.add_argument("--name", default="shipped", help="what to call these weights in the table")
    sampled.add_argument("--draws", type=int, default=8)
    sampled.add_argument("--every", type=int, default=1, help="every n-th object only")
    sampled.add_argument("--first", type=int, default=0, help="beginning with this one, so that processes can share")
    sampled.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    sampled.add_argument("--sheet", type=Path, default=None, help="PNG: truth, one sample, mean; twelve views a row")
    sampled.set_defaults(call=run_views)
    written = commands.add_parser("meshes", help="the objects as GLB files, for evaluate.py protocol=gt_folder")
    written.add_argument("--library", type=Path, required=True)
    written.add_argument("--out", type=Path, required=True)
    written.add_argument("--every", type=int, default=1)
    written.add_argument("--first", type=int, default=0)
    written.set_defaults(call=run_meshes)
    commands.add_parser("report", help="rewrites the table from views.jsonl").set_defaults(call=report)
    options = parser.parse_args()
    return options.call(options)


if __name__ == "__main__":
    sys.exit(main())
