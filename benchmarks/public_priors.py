"""The five public priors at full size with random weights, through the real stages: ms per step, memory, loading.

python -m benchmarks.public_priors [--priors zero123 sd ...] [--iters 20] [--iters-refine 3] [--dtype float32]
python -m benchmarks.public_priors --tiny            # tiny networks on this CPU: does it run at all?
python -m benchmarks.public_priors --write PAGE.md   # nothing is run: the records' table, between PAGE.md's marks

Random weights cost what real ones cost and make no object, so stage 2 refines the texture of an object of the project's
own. Each prior is measured by itself; one that fails is recorded with its error, and the others go on. Records are
appended after every prior.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._public_table import PRIORS, write_page
from benchmarks._record import RESULTS, ROOT, Timing, record
from benchmarks._step_clock import Steps, watched

TEXT = ("sd", "mvdream")  # of the five; the others take a picture
PROMPT = "a photo of an icecream"
WARM_UP = 3  # steps of stage 1: kernels are compiled, graphs recorded, memory claimed
GPU = ("device=cuda", "raster=gsplat", "meshraster=nvdiffrast")
TINY = ("device=cpu", "prior.profile.resolution=[32,32,32]", "refine.size=64", "init.num_points=300")
TINY_SIZE = {"sd": "null", "mvdream": "64", "imagedream": "64"}


class Measurement:
    """One prior: loaded once, then one stage after another as train.py runs them."""

    def __init__(self, prior: str, options: argparse.Namespace, folder: Path, mesh: Path, picture: Path) -> None:
        from dg.runtime.shelf import PriorShelf

        self.prior, self.options, self.folder, self.mesh = prior, options, folder, mesh
        self.device = torch.device("cpu" if options.tiny else "cuda")
        self.shelf = PriorShelf()
        given = ["task=text", f"prompt={PROMPT}"] if prior in TEXT else [f"input={picture}", "recenter=false"]
        self.overrides = [f"prior={prior}", "preview=none", "truth=null", *given]
        self.overrides += TINY if options.tiny else GPU
        self.overrides += [f"iters={options.iters}", f"iters_refine={options.iters_refine}"]
        if options.dtype:
            self.overrides.append(f"prior.dtype={options.dtype}")
        if options.tiny and prior in TINY_SIZE:
            self.overrides.append(f"prior.image_size={TINY_SIZE[prior]}")
        self.overrides += options.overrides

    def load(self) -> dict[str, Any]:
        """Makes the checkpoint and loads it; {seconds of both, dtype, memory}."""
        start = time.perf_counter()
        checkpoint = self._checkpoint()
        self.overrides.append(f"prior.checkpoint={checkpoint}")
        made = time.perf_counter()
        config = self._job("load", "gaussians").config
        loaded = self.shelf.get(config["prior"], str(self._resolved(config)), lambda: self._built(config))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        memory = torch.cuda.memory_allocated() / 2**20 if self.device.type == "cuda" else None
        seconds = time.perf_counter() - made
        facts = {"dtype": str(loaded.dtype).removeprefix("torch."), "load_s": round(seconds, 2)}
        facts |= {"made_s": round(made - start, 2), "views_per_sample": loaded.views_per_sample}
        return facts | ({"weights_mb": round(memory, 1)} if memory is not None else {})

    def _checkpoint(self) -> Path:
        place = self.folder / "checkpoint"
        if self.options.tiny:
            from tests.tiny_checkpoints import WRITERS as TINY_WRITERS

            return TINY_WRITERS[self.prior](place)
        from benchmarks._public_checkpoints import WRITERS

        return WRITERS[self.prior](place, "cuda")

    def _built(self, config: dict[str, Any]) -> Any:
        from dg.runtime.build import build

        return build(config["prior"], "prior")

    def _resolved(self, config: dict[str, Any]) -> torch.device:
        from dg.runtime.device import resolve

        return resolve(config["device"])

    def _job(self, name: str, stage: str) -> Any:
        from dg.runtime import compose, launch

        own = [*self.overrides, f"outdir={self.folder}", f"name={name}", f"stages=[{stage}]"]
        if stage == "texture":
            own.append(f"mesh_file={self.mesh}")
        config = launch.prepare(compose.compose(ROOT / "conf", "train", own), ROOT / "conf")
        return launch.Job(config, "benchmarks.public_priors", own)

    def run(self, name: str, stage: str) -> Steps:
        """One stage from its beginning to its end."""
        from dg.runtime.pipeline import run
        from dg.stages.gaussians import GaussianStage
        from dg.stages.texture import TextureStage

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        kind = {"gaussians": GaussianStage, "texture": TextureStage}[stage]
        with watched(kind, self.device) as seen:
            run(self._job(name, stage), self.shelf, quiet=True)
        return seen

    def stage_1(self) -> tuple[list[float], dict[str, Any]]:
        seen = self.run("first", "gaussians")
        steps = seen.milliseconds()
        warm = list(zip(seen.resolutions, steps, strict=True))[WARM_UP:]
        sizes = dict.fromkeys(size for size, _ in warm)
        by_size = {size: statistics.median(ms for at, ms in warm if at == size) for size in sizes}
        values = {"ms_by_resolution": {str(k): round(v, 2) for k, v in by_size.items()}}
        return steps[WARM_UP:] or steps, values | _told(steps, seen)

    def stage_2(self) -> tuple[list[float], dict[str, Any]]:
        """Twice from the start: the first time records graphs and claims memory, the second is measured."""
        cold = self.run("cold", "texture").milliseconds()
        seen = self.run("warm", "texture")
        steps = seen.milliseconds()
        return steps, _told(steps, seen) | {"first_ms": round(cold[0], 1)}


def _told(steps: list[float], seen: Steps) -> dict[str, Any]:
    values: dict[str, Any] = {"steps_ms": [round(x, 2) for x in steps], "first_ms": round(steps[0], 1)}
    if seen.allocated_mb:
        free, total = torch.cuda.mem_get_info()
        values |= {"peak_allocated_mb": round(seen.allocated_mb, 1), "peak_reserved_mb": round(seen.reserved_mb, 1)}
        values |= {"device_used_mb": round((total - free) / 2**20, 1)}
        values |= {"under_8_gb": max(seen.reserved_mb, seen.allocated_mb) < 8 * 1024}
    return values


def measure(prior: str, options: argparse.Namespace, folder: Path, mesh: Path, picture: Path, results: Path) -> bool:
    """Measures and records one prior; whether all of it went well."""
    one = Measurement(prior, options, folder, mesh, picture)
    case: dict[str, Any] = {"prior": prior, "weights": "random", "size": "tiny" if options.tiny else "full"}
    case |= {"iters": options.iters, "iters_refine": options.iters_refine, "overrides": options.overrides}
    device, fine = str(one.device), True

    def part(what: str, work: Callable[[], tuple[list[float], dict[str, Any]]]) -> bool:
        begun = time.perf_counter()
        try:
            steps, values = work()
            timing = Timing(*(f(steps) / 1e3 for f in (statistics.median, min, max)), None, len(steps))
        except Exception as error:  # recorded: the other priors are measured all the same
            timing = Timing(0.0, 0.0, 0.0, None, 0)
            values = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"}
        values["all_s"] = round(time.perf_counter() - begun, 1)
        record("public_priors", case | {"stage": what}, timing, device=device, results=results, **values)
        shown = {k: v for k, v in values.items() if k not in ("steps_ms", "under_8_gb")}
        print(f"{prior:15} {what:10} {1e3 * timing.median_s:9.1f} ms  {shown}", flush=True)
        return "error" not in values

    def load() -> tuple[list[float], dict[str, Any]]:
        facts = one.load()
        case["dtype"] = facts["dtype"]
        return [1e3 * facts["load_s"]], facts

    if fine := part("load", load):
        fine = part("gaussians", one.stage_1)
        fine = part("texture", one.stage_2) and fine
    return fine


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", nargs="+", default=list(PRIORS), choices=PRIORS)
    parser.add_argument("--iters", type=int, default=20, help="steps of stage 1")
    parser.add_argument("--iters-refine", type=int, default=3, help="steps of stage 2")
    parser.add_argument("--dtype", default=None, help="of the networks; the default is float16 on a GPU")
    parser.add_argument("--scratch", type=Path, default=None, help="where the checkpoints (up to 4 GB) are written")
    parser.add_argument("--results", type=Path, default=None, help="where the records go")
    parser.add_argument("--tiny", action="store_true", help="tiny networks on the CPU; records go to a scratch folder")
    parser.add_argument("--write", type=Path, default=None, help="a page that gets the table of the records")
    parser.add_argument("--overrides", nargs="*", default=[], help="for every run, e.g. prior.compile=none")
    options = parser.parse_args(argv)
    if options.write is not None:
        write_page(options.write, options.results or RESULTS)
        return 0
    if not options.tiny and not torch.cuda.is_available():
        print("public_priors: full size needs a CUDA device, which is not here; --tiny runs on a CPU", file=sys.stderr)
        return 0 if argv == [] else 2
    from benchmarks.pipeline import write_object

    failed = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        results = options.results or (scratch if options.tiny else RESULTS)
        mesh, picture = write_object(scratch, "robot")
        for prior in options.priors:
            folder = scratch / prior
            folder.mkdir()
            if not measure(prior, options, folder, mesh, picture, results):
                failed.append(prior)
            shutil.rmtree(folder, ignore_errors=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            write_page(results / "public_priors.md", results)
        print((results / "public_priors.md").read_text())
    print(f"failed: {', '.join(failed)}" if failed else "all went well", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
