"""`python -m experiments.true_objects run --data DIR [--priors ...] | report`."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from benchmarks._record import revision

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORDS = HERE / "records.jsonl"
PRIORS = ("oracle", "zero123_mini", "silhouette")
STAGES = {"splats": "gaussians.ply", "coarse": "coarse.glb", "mesh": "mesh.glb"}
WORST = {"psnr_db": 0.0, "silhouette_iou": 0.0, "volume_iou": 0.0}
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def command(name: str, prior: str, data: Path, seed: int) -> list[str]:
    chosen = [f"prior={prior}", f"input={data / 'images' / (name + '_view.png')}", "recenter=false", f"seed={seed}"]
    return chosen + ([f"prior.mesh={data / 'objects' / (name + '.glb')}"] if prior == "oracle" else [])


def run_one(name: str, prior: str, data: Path, outdir: Path, seed: int, extra: list[str]) -> list[dict]:
    """Trains once and scores what each stage left."""
    from dg.eval.score import score_file

    overrides = [*command(name, prior, data, seed), *extra]
    folder = outdir / f"{name}_{prior}_{seed}"
    where = [f"outdir={outdir}", f"name={folder.name}", "overwrite=true", "resume=false"]
    start = time.monotonic()
    done = subprocess.run([sys.executable, "train.py", *overrides, *where], cwd=ROOT, capture_output=True, text=True)
    seconds = round(time.monotonic() - start, 1)
    shown = " ".join(o.replace(str(data), "DATA") for o in overrides)
    common = {"object": name, "prior": prior, "seed": seed, "command": f"python train.py {shown}", "seconds": seconds}
    common |= {"revision": revision(), "machine": f"{platform.machine()}, {platform.processor() or platform.system()}"}
    records = []
    for stage, file in STAGES.items():
        path = folder / file
        if done.returncode or not path.exists():
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"{file} is missing"]
            records.append(common | {"stage": stage, "failure": reason[0]} | WORST)
        else:
            records.append(common | {"stage": stage, "failure": None} | vars(score_file(path, truth_of(name, data))))
    return records


def truth_of(name: str, data: Path) -> Path:
    return data / "objects" / f"{name}.glb"


def run(options: argparse.Namespace) -> int:
    data = options.data.resolve()
    names = options.objects or sorted(p.stem for p in (data / "objects").glob("*.glb"))
    if not names:
        print(f"error: no objects/*.glb under {data}", file=sys.stderr)
        return 2
    failures = 0
    for prior in options.priors:
        for name in names:
            records = run_one(name, prior, data, options.outdir.resolve(), options.seed, options.overrides)
            with RECORDS.open("a") as file:
                file.writelines(json.dumps(r) + "\n" for r in records)
            failures += any(r["failure"] for r in records)
            figures = "  ".join(f"{r['stage']} {r['psnr_db']:.2f}" for r in records)
            print(f"{prior:13s} {name:16s} {records[0]['seconds']:6.1f} s  PSNR {figures}", flush=True)
    report(options)
    return 1 if failures else 0


def latest() -> list[dict]:
    """The newest record of every object, prior, stage and seed."""
    newest = {}
    for line in RECORDS.read_text().splitlines():
        record = json.loads(line)
        newest[record["object"], record["prior"], record["stage"], record["seed"]] = record
    return list(newest.values())


def summary(records: list[dict]) -> str:
    rows = [
        "| prior | stage | PSNR (dB) | silhouette IoU | volume IoU | seconds | failures |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = defaultdict(list)
    for r in records:
        groups[r["prior"], r["stage"]].append(r)
    for prior in [p for p in PRIORS if any(k[0] == p for k in groups)]:
        for stage in STAGES:
            group = groups[prior, stage]
            volume = [r["volume_iou"] for r in group if r["volume_iou"] is not None]
            cells = [f"{fmean(r['psnr_db'] for r in group):.2f}", f"{fmean(r['silhouette_iou'] for r in group):.3f}"]
            cells += [f"{fmean(volume):.3f}" if volume else "-", f"{fmean(r['seconds'] for r in group):.0f}"]
            rows.append(f"| {prior} | {stage} | {' | '.join(cells)} | {sum(bool(r['failure']) for r in group)} |")
    return "\n".join(rows)


def details(records: list[dict]) -> str:
    rows = [
        "| object | prior | PSNR splats / coarse / mesh | silhouette IoU mesh | volume IoU mesh |",
        "|---|---|---|---|---|",
    ]
    groups = defaultdict(dict)
    for r in records:
        groups[r["prior"], r["object"]][r["stage"]] = r
    for (prior, name), stages in sorted(groups.items(), key=lambda x: (PRIORS.index(x[0][0]), x[0][1])):
        line = " / ".join(f"{stages[s]['psnr_db']:.2f}" for s in STAGES)
        mesh = stages["mesh"]
        rows.append(f"| {name} | {prior} | {line} | {mesh['silhouette_iou']:.3f} | {mesh['volume_iou']:.3f} |")
    return "\n".join(rows)


def report(options: argparse.Namespace) -> int:
    records = latest()
    (HERE / "table.md").write_text(f"{summary(records)}\n\n{details(records)}\n")
    readme = ROOT / "README.md"
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n{summary(records)}\n{END}{tail}")
    print(summary(records))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.true_objects")
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train and score; appends to records.jsonl, then reports")
    runs.add_argument("--data", type=Path, required=True, help="folder with objects/*.glb and images/*_view.png")
    runs.add_argument("--priors", nargs="+", default=list(PRIORS), choices=PRIORS)
    runs.add_argument("--objects", nargs="+", default=None)
    runs.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "true_objects")
    runs.add_argument("--seed", type=int, default=0)
    runs.add_argument("--overrides", nargs="*", default=[], help="more overrides for train.py")
    runs.set_defaults(call=run)
    reports = commands.add_parser("report", help="rewrite table.md and the README's table")
    reports.set_defaults(call=report)
    options = parser.parse_args()
    return options.call(options)


if __name__ == "__main__":
    sys.exit(main())
