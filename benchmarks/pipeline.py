"""Seconds per stage of whole runs of train.py, each in a process of its own, on one of the project's own objects.

python -m benchmarks.pipeline [--priors oracle zero123_mini] [--device auto] [--iters 500] [--zero123 FOLDER|random]

`zero123` needs a checkpoint, or `random`: a network of the same size with random weights, which costs the same time and
makes no object, so only its stages gaussians and texture are run, the latter on the mesh of an earlier prior.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks._record import ROOT, Timing, record


def write_object(folder: Path, name: str) -> tuple[Path, Path]:
    """The object's mesh and its front view."""
    from PIL import Image

    from dg.data.objects import make, picture
    from dg.io.images import to_uint8
    from dg.io.mesh import save_mesh

    mesh = make(name)
    save_mesh(mesh, folder / f"{name}.glb")
    Image.fromarray(to_uint8(picture(mesh, 256))).save(folder / f"{name}.png")
    return folder / f"{name}.glb", folder / f"{name}.png"


def run(overrides: list[str], folder: Path, name: str) -> dict:
    """The manifest of one run.

    Raises:
        RuntimeError: it failed; the end of what it printed.
    """
    command = [sys.executable, str(ROOT / "train.py"), f"outdir={folder}", f"name={name}", "preview=none", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(overrides)}: {(done.stdout + done.stderr)[-2000:]}")
    return json.loads((folder / name / "manifest.json").read_text())


def bench(
    prior: str, args: argparse.Namespace, folder: Path, mesh: Path, picture: Path, made: Path | None
) -> Path | None:
    """Runs one prior, records its stages, and returns the mesh that came out, if any."""
    overrides = [f"prior={prior}", f"device={args.device}", f"input={picture}", "recenter=false"]
    overrides += [f"iters={args.iters}", f"iters_refine={args.iters_refine}", *args.overrides]
    case = {"prior": prior, "object": args.object, "iters": args.iters, "iters_refine": args.iters_refine}
    if prior == "oracle":
        overrides.append(f"prior.mesh={mesh}")
    if prior == "zero123":
        checkpoint = args.zero123
        if checkpoint == "random":
            from benchmarks._checkpoints import random_zero123
            from dg.runtime.device import resolve

            checkpoint = str(random_zero123(folder / "zero123", device=str(resolve(args.device))))
            overrides += ["stages=[gaussians,texture]", f"mesh_file={made}"]
            case["weights"] = "random"
        overrides.append(f"prior.checkpoint={checkpoint}")
    manifest = run(overrides, folder, prior)
    device = "cuda" if "cpu" not in manifest["device"].lower() and torch.cuda.is_available() else "cpu"
    case["overrides"] = args.overrides
    for stage, kept in manifest["stages"].items():
        seconds = kept["seconds"]
        timing = Timing(seconds, seconds, seconds, None, 1)
        memory = {k: kept[k] for k in ("peak_gpu_memory_mb",) if kept.get(k)}
        line = record("pipeline", case | {"stage": stage}, timing, device=device, **memory)
        print(f"{prior:14} {stage:10} {seconds:7.1f} s  {line['device']}", flush=True)
    print(f"{prior:14} {'all':10} {manifest['seconds']:7.1f} s", flush=True)
    out = folder / prior / "coarse.glb"
    return out if out.is_file() else made


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", nargs="+", default=["oracle"], choices=("oracle", "zero123_mini", "zero123"))
    parser.add_argument("--object", default="robot")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--iters", type=int, default=500)
    parser.add_argument("--iters-refine", type=int, default=50)
    parser.add_argument("--zero123", default="random", help="a checkpoint's folder or hub id, or random")
    parser.add_argument("--overrides", nargs="*", default=[], help="for every run, e.g. raster=dense")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mesh, picture = write_object(folder, args.object)
        made = mesh
        for prior in args.priors:
            made = bench(prior, args, folder, mesh, picture, made)


if __name__ == "__main__":
    main()
