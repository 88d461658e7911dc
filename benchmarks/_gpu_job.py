"""The whole job, picture to textured GLB, in a process that has the prior: what it costs, and against the original."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._gpu_floor import Bench, Work, adam, splatting
from benchmarks._gpu_geometry import lump, of
from benchmarks._gpu_networks import Floors
from benchmarks._record import ROOT
from dg.core.diffusion import sdedit_start

STAGES = {"gaussians": "stage1", "mesh": "mesh", "texture": "stage2"}
DENOISE_STEPS = 50
REFINED = (0.2, 0.05)  # share of the denoising that stage 2 runs, at its first and last step
MOTIONS = {  # densification that reaches the asked number of Gaussians whatever random weights say; or the release's
    "doubling": ("densify.grad_threshold=0",),
    "natural": (),
}


@dataclass(frozen=True)
class Job:
    """What is run."""

    picture: Path
    checkpoint: Path
    iters: int
    iters_refine: int
    gaussians: int
    growth: str
    device: str
    more: Sequence[str] = ()

    def overrides(self, folder: Path, name: str) -> list[str]:
        own = [f"input={self.picture}", "prior=zero123", f"prior.checkpoint={self.checkpoint}", "preview=none"]
        own += [f"device={self.device}", f"outdir={folder}", f"name={name}", f"densify.max_gaussians={self.gaussians}"]
        return [*own, f"iters={self.iters}", f"iters_refine={self.iters_refine}", *MOTIONS[self.growth], *self.more]


def run_once(overrides: list[str], shelf: Any) -> tuple[float, dict[str, Any], dict[str, Any], Path]:
    """One run in this process: (wall seconds of all of it, manifest, metrics, its folder)."""
    from dg.runtime import compose, launch
    from dg.runtime.pipeline import run

    config = launch.prepare(compose.compose(ROOT / "conf", "train", overrides), ROOT / "conf")
    folder = Path(config["outdir"]) / config["name"]
    start = time.perf_counter()
    run(launch.Job(config, "python -m benchmarks.gpu", overrides), shelf, quiet=True)
    seconds = time.perf_counter() - start
    manifest, metrics = (json.loads((folder / f"{name}.json").read_text()) for name in ("manifest", "metrics"))
    return seconds, manifest, metrics, folder


def run_job(job: Job, folder: Path, name: str, shelf: Any, more: Sequence[str] = ()) -> tuple:
    """`run_once` of the whole job. Random weights need not make an object: where the mesh stage finds none, stage 1 is
    run by itself, and the others on a dented ball of as many Gaussians; metrics then say so under "mesh_of".
    """
    from dg.core.gaussians import deactivate
    from dg.io.ply import write_ply
    from dg.runtime.errors import RunError

    try:
        return run_once([*job.overrides(folder, name), *more], shelf)
    except RunError as error:
        print(f"{name}: {error}; stages 2 and 3 on a dented ball", flush=True)
    ball = folder / "ball.ply"
    write_ply(deactivate(lump(job.gaussians)), ball)
    apart = (["stages=[gaussians]"], ["stages=[mesh,texture]", f"gaussians={ball}"])
    first, second = (
        run_once([*job.overrides(folder, f"{name}-{k}"), *more, *own], shelf) for k, own in enumerate(apart)
    )
    stages = first[1]["stages"] | second[1]["stages"]
    told = {"mesh_of": "a dented ball", "splats/count": first[2].get("splats/count")}
    return first[0] + second[0], second[1] | {"stages": stages}, first[2] | second[2] | told, first[3]


def warmed(job: Job, folder: Path, shelf: Any) -> float:
    """A short run that loads the prior, visits every shape of the real one and lets everything compile: its seconds."""
    few = ["densify.start=2", "densify.interval=2", "iters=10", "iters_refine=3"]
    return run_job(job, folder, "warm", shelf, few)[0]


def whole(bench: Bench, job: Job, folder: Path, times: int, original: dict[str, Any] | None) -> Path:
    """Runs the job `times` times after a warm-up and keeps medians; returns the last run's folder.

    The clock starts with a loaded prior whose networks have run, as the original's does; it covers reading the picture,
    three stages with their files, and the run's figures.
    """
    from dg.runtime.shelf import PriorShelf

    shelf, runs = PriorShelf(), []
    bench.summary["warm_s"] = round(warmed(job, folder, shelf), 2)
    print(f"warm after {bench.summary['warm_s']} s (prior loaded, kernels and graphs made)", flush=True)
    for k in range(times):
        runs.append(run_job(job, folder, f"job{k}", shelf))
        bench.summary["job"] = told(job, runs)
        if original is not None:
            bench.summary |= against(bench.summary["job"], original)
        bench.save()
    record_stages(bench, job, runs)
    return runs[-1][3]


def told(job: Job, runs: list[tuple]) -> dict[str, Any]:
    """The whole job in one dictionary: seconds are medians, memory the largest."""
    stages = {own: [m["stages"][name]["seconds"] for _, m, _, _ in runs] for name, own in STAGES.items()}
    memory = {
        own: [m["stages"][name].get("peak_gpu_memory_mb") or 0 for _, m, _, _ in runs] for name, own in STAGES.items()
    }
    metrics = runs[-1][2]
    parts = {k.removeprefix("mesh/seconds/"): v for k, v in metrics.items() if k.startswith("mesh/seconds/")}
    total = of([seconds for seconds, *_ in runs]).median_s
    return {
        **{f"{own}_s": of(seconds).median_s for own, seconds in stages.items()},
        "other_s": round(total - sum(of(seconds).median_s for seconds in stages.values()), 3),
        "total_s": round(total, 3),
        "runs": len(runs),
        "stage1_step_ms": round(1e3 * of(stages["stage1"]).median_s / job.iters, 3),
        "stage2_step_ms": round(1e3 * of(stages["stage2"]).median_s / max(job.iters_refine, 1), 3),
        **{f"{own}_peak_gib": round(max(mb) / 1024, 3) for own, mb in memory.items()},
        "peak_gib": round(max(max(mb) for mb in memory.values()) / 1024, 3),
        "mesh_parts_s": parts,
        "gaussians": metrics.get("splats/count"),
        "faces": metrics.get("mesh/faces"),
        "mesh_of": metrics.get("mesh_of", "the job's Gaussians"),
        "iters": job.iters,
        "iters_refine": job.iters_refine,
        "growth": job.growth,
        "cap": job.gaussians,
        "weights": "random",
        "clock": "prior loaded and warm; reading the picture, three stages and their files, the run's figures",
        "overrides": list(job.more),
    }


def against(own: dict[str, Any], original: dict[str, Any]) -> dict[str, Any]:
    """How many times faster than the record of the original's run on the same machine.

    Raises:
        ValueError: that run did not end.
    """
    if "total_s" not in original:
        raise ValueError("the original's record has no total_s: its run did not end")
    names = ("stage1_s", "mesh_s", "stage2_s", "total_s")
    kept = ("replaced", "gaussians", "faces", "stage1_step_ms", "stage2_step_ms", "peak_gib", "compile_s", "device")
    return {
        "speedup_over_original": round(original["total_s"] / own["total_s"], 2),
        "speedup_by_stage": {n.removesuffix("_s"): round(original[n] / own[n], 2) for n in names[:3]},
        "original": {k: original[k] for k in (*names, *kept) if k in original},
    }


def record_stages(bench: Bench, job: Job, runs: list[tuple]) -> None:
    case = {"gaussians": runs[-1][2].get("splats/count")}
    for name, own in STAGES.items():
        bench.add(f"job: {own}", job.growth, of([m["stages"][name]["seconds"] for _, m, _, _ in runs]), None, **case)
    bench.add("job: all", job.growth, of([seconds for seconds, *_ in runs]), None, **case)


def steps(bench: Bench, job: Job, known: Floors, n: int) -> None:
    """A step of either stage in the job, with `n` Gaussians, against the sum of its parts' least times.

    Stage 1 draws the known view at 256 pixels, and the novel view at 128, 256 and 512 for 0.3, 0.3 and 0.4 of the run.
    """
    done = bench.summary["job"]
    novel = int(0.3 * 128**2 + 0.3 * 256**2 + 0.4 * 512**2)
    first = [known.unet, known.encode, splatting(n, 256**2), splatting(n, novel), adam(n)]
    _per_step(bench, "step of stage 1", done["stage1_step_ms"], first)
    ratios = [REFINED[0] + (REFINED[1] - REFINED[0]) * k / job.iters_refine for k in range(1, job.iters_refine + 1)]
    denoised = sum(DENOISE_STEPS - sdedit_start(DENOISE_STEPS, ratio) for ratio in ratios) / len(ratios)
    second = [known.unet.times(denoised), known.forward, known.decode]
    _per_step(bench, "step of stage 2", done["stage2_step_ms"], second)


def _per_step(bench: Bench, part: str, took_ms: float, parts: list[Work]) -> None:
    """Parts run one after another, so the floor is the sum of theirs."""
    floor = sum(work.floor_ms(bench.rates) for work in parts)
    bench.add(part, "in the job", of([took_ms / 1e3]), sum(parts, Work()), floor_ms=floor)
