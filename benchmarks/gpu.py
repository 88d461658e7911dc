"""What a GPU takes for the whole job and for each of its parts, against what it could.

python -m benchmarks.gpu [--original FILE.json] [--results FOLDER] [--parts job networks ...] [--tiny]

The job is picture to textured GLB with Zero123 at full size and random weights, the prior loaded and warm. Each part
stands beside its floor: operations over the measured matrix rate, or bytes over the measured bandwidth. Lines go to
gpu.jsonl as they are measured, the whole report to gpu.json, curves to gpu_cost.png. `--original` takes the record of
the original's run in the same session (total_s, stage1_s, mesh_s, stage2_s) and adds speedup_over_original. `--tiny`
checks all of it on a CPU in seconds. `--redraw FILE.json` makes the picture of a report.
"""

from __future__ import annotations

import dg  # noqa: F401  # isort: skip  says how OpenMP's threads wait, which torch reads when it is loaded

import argparse
import json
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import _checkpoints, _gpu_geometry, _gpu_kernels, _gpu_networks, _gpu_plot
from benchmarks._gpu_floor import Bench, measure_rates
from benchmarks._gpu_job import MOTIONS, Job, steps, whole
from benchmarks._record import RESULTS, ROOT
from dg.stages.mesh_options import MeshOptions

PARTS = ("job", "networks", "geometry", "extraction", "curves", "kernels")


@dataclass(frozen=True)
class Sizes:
    iters: int = 500
    iters_refine: int = 50
    gaussians: int = 20_000
    side: int = 512
    views_side: int = 256
    prior_side: int = 256  # of the pictures that the prior works on
    matrix: int = 8192
    copied: int = 1 << 30
    mesh: MeshOptions = field(default_factory=MeshOptions)
    gaussians_curve: tuple[int, ...] = (1_000, 5_000, 20_000, 80_000)
    sides: tuple[int, ...] = (128, 256, 1024)
    views: tuple[int, ...] = (1, 2, 4, 8, 16)
    objects: tuple[int, ...] = (1, 2, 4, 8)
    overrides: tuple[str, ...] = ()
    networks: dict[str, Any] | None = None  # of _checkpoints.random_zero123, where not at full size


TINY = Sizes(
    iters=4,
    iters_refine=2,
    gaussians=400,
    side=48,
    views_side=32,
    prior_side=64,
    matrix=256,
    copied=1 << 22,
    mesh=MeshOptions(resolution=32, render_size=64, texture_size=64, max_faces=400),
    gaussians_curve=(100, 400),
    sides=(32,),
    views=(1, 2),
    objects=(1, 2),
    overrides=(
        "init.num_points=200",
        "prior.image_size=64",
        "prior.profile.resolution=[32,32,32]",
        "prior.profile.refine_size=32",
        "task.reference_size=64",
        "mesh.resolution=32",
        "mesh.render_size=64",
        "mesh.texture_size=64",
        "mesh.max_faces=400",
        "recenter=false",
    ),
    networks={
        "unet": {
            "sample_size": 32,
            "in_channels": 8,
            "out_channels": 4,
            "block_out_channels": (16, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": 24,
            "attention_head_dim": 2,
        },
        "vae": _checkpoints.VAE | {"block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2, "layers_per_block": 1},
        "clip": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 224,
            "patch_size": 32,
            "projection_dim": 24,
        },
        "dtype": torch.float32,
    },
)


def tried(bench: Bench, name: str, work: Callable[[], Any]) -> Any:
    """A part that fails is told and recorded; the others still run."""
    try:
        return work()
    except Exception as error:
        traceback.print_exc()
        bench.summary.setdefault("failures", {})[name] = f"{type(error).__name__}: {error}"[:500]
        bench.save()
        return None


def measured(bench: Bench, args: argparse.Namespace, sizes: Sizes, folder: Path, original: dict | None) -> None:
    checkpoint = args.zero123 or folder / "zero123"
    if not (checkpoint / "unet").is_dir():
        _checkpoints.random_zero123(checkpoint, device=bench.device, **(sizes.networks or {}))
        print(f"a Zero123 of random weights in {checkpoint.name}", flush=True)
    growth = args.growth or (original or {}).get("growth", "doubling")
    job = Job(
        args.picture.resolve(),
        checkpoint.resolve(),
        args.iters or sizes.iters,
        args.iters_refine or sizes.iters_refine,
        sizes.gaussians,
        growth,
        bench.device,
        (*sizes.overrides, *args.overrides),
    )
    made = None
    if "job" in args.parts:
        made = tried(bench, "job", lambda: whole(bench, job, folder, args.times, original))
        _gpu_networks.free()
    if {"networks", "curves"} & set(args.parts):
        tried(bench, "networks", lambda: _networks(bench, args, sizes, job))
        _gpu_networks.free()
    if "geometry" in args.parts:
        for part in (_gpu_geometry.optimise, _gpu_geometry.densify):
            tried(bench, part.__name__, lambda part=part: part(bench, sizes.gaussians))
        tried(bench, "splat", lambda: _gpu_geometry.splat(bench, sizes.gaussians, sizes.side))
    if "extraction" in args.parts:
        ply = made / "gaussians.ply" if made else None
        for source in dict.fromkeys((ply, None)):
            work = lambda s=source: _gpu_geometry.extraction(bench, sizes.gaussians, sizes.mesh, args.mesh_runs, s)  # noqa: E731
            tried(bench, "extraction", work)
    if "curves" in args.parts:
        fixed = sizes.gaussians, sizes.side, sizes.views_side
        ranges = sizes.gaussians_curve, sizes.sides, sizes.views
        tried(bench, "curves", lambda: _gpu_geometry.curves(bench, *ranges, fixed))
    if "kernels" in args.parts:  # last: a profiler that has run may slow what comes after it
        load = lambda: _gpu_networks.load(job.checkpoint, bench.device, sizes.prior_side)  # noqa: E731
        tried(bench, "kernels", lambda: _gpu_kernels.kernels(bench, load(), sizes.gaussians, sizes.side))


def _networks(bench: Bench, args: argparse.Namespace, sizes: Sizes, job: Job) -> None:
    prior = _gpu_networks.load(job.checkpoint, bench.device, sizes.prior_side)
    known = _gpu_networks.floors(prior)
    if "job" in bench.summary:
        steps(bench, job, known, sizes.gaussians)
    if "networks" in args.parts:
        ways = tuple(way for way in _gpu_networks.WAYS if way != "compiled" or args.compiled)
        _gpu_networks.networks(bench, prior, known, ways)
    if "curves" in args.parts:
        _gpu_networks.batches(bench, prior, known, sizes.objects)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, help="the record of the original's run")
    parser.add_argument(
        "--zero123", type=Path, help="a checkpoint's folder; made with random weights where it is absent"
    )
    parser.add_argument("--picture", type=Path, default=ROOT / "examples" / "robot.png")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--times", type=int, default=1, help="runs of the whole job")
    parser.add_argument("--runs", type=int, default=15, help="of each small part")
    parser.add_argument("--mesh-runs", type=int, default=3)
    parser.add_argument("--iters", type=int)
    parser.add_argument("--iters-refine", type=int)
    parser.add_argument(
        "--growth", choices=MOTIONS, help="doubling: to the asked number of Gaussians; natural: release"
    )
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, which takes minutes")
    parser.add_argument("--overrides", nargs="*", default=[], help="for the job, e.g. prior.compile=full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--redraw", type=Path, help="a report: make gpu_cost.png beside it and do nothing else")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parsed(arguments)
    if args.redraw:
        _gpu_plot.draw(json.loads(args.redraw.read_text()), args.redraw.with_name("gpu_cost.png"))
        return
    if args.device == "cpu" and not args.tiny:
        print("gpu: there is no CUDA device here; --tiny checks the script", flush=True)
        return
    original = json.loads(args.original.read_text()) if args.original else None
    sizes, runs = (TINY, 2) if args.tiny else (Sizes(), args.runs)
    rates = measure_rates(args.device, side=sizes.matrix, copied=sizes.copied, runs=min(runs, 10))
    print(f"{rates.matrix_tflops:.3g} TFLOP/s, {rates.bandwidth_gb_s:.4g} GB/s; {asdict(rates)}", flush=True)
    bench = Bench(args.device, runs, rates, args.results.resolve(), args.tiny)
    with tempfile.TemporaryDirectory() as name:
        measured(bench, args, sizes, Path(name), original)
    tried(bench, "plot", lambda: _gpu_plot.draw(json.loads((bench.results / "gpu.json").read_text()), plot_path(bench)))
    told(bench)


def plot_path(bench: Bench) -> Path:
    return bench.results / "gpu_cost.png"


def told(bench: Bench) -> None:
    job = bench.summary.get("job")
    if job:
        print(" ".join(f"{k} {job[k]}" for k in ("stage1_s", "mesh_s", "stage2_s", "total_s")), flush=True)
    for key in ("speedup_over_original", "speedup_by_stage", "failures"):
        if key in bench.summary:
            print(f"{key}: {bench.summary[key]}", flush=True)


if __name__ == "__main__":
    main()
