"""The embedded prior: what a prediction costs, and how well it answers on objects that it was not trained on.

python -m benchmarks.prior [--runs 15] [--shared ../shared] [--samples 32] [--draws 1] [--grid FILE.png]

Costs need nothing; the figures need the reference material (held-out library objects, and six true objects) and are
left out where it is absent. The baselines are the input picture taken as the answer for every view, and the input's
silhouette inflated into a solid.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks._record import ROOT, measure, record
from dg.core import camera, rng
from dg.core.diffusion import add_noise, x0_from_eps
from dg.io.images import to_uint8
from dg.io.mesh import load_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_mesh
from dg.priors.sampling import sample
from dg.priors.zero123_mini import Zero123Mini
from dg.types import Cameras, Condition, Mesh, Reference

TIMES = (100, 200, 300, 400, 500, 600, 700, 800, 900)
AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
BATCHES = (1, 2, 4)
OBJECTS = ("spot", "Duck", "CesiumMilkTruck", "fuze", "teapot", "CesiumMan")


def blank_reference() -> Reference:
    rgba = torch.zeros(1, 128, 128, 4)
    rgba[:, 30:100, 40:90] = 1
    return Reference(rgba, camera.orbit(0.0, 0.0, 2.0, height=128))


def asked(prior: Zero123Mini, batch: int) -> tuple[Tensor, Tensor, Condition]:
    """Noise, timesteps and the condition of `batch` views around a blank object."""
    views = camera.orbit(0.0, [90.0 + 360.0 * i / batch for i in range(batch)], 2.0, height=64)
    cond = prior.condition(blank_reference(), None, views, torch.ones(batch, 3))
    noise = torch.randn(batch, 3, 64, 64, generator=rng.generator(0, "bench.cost", batch))
    return noise, torch.full((batch,), 500), cond


def matrix_rate(side: int = 1024) -> float:
    """What the machine does with a square float32 product, in 1e9 operations a second."""
    a, b = torch.randn(2, side, side).unbind(0)
    return 2 * side**3 / measure(lambda: a @ b, runs=15).median_s / 1e9


def operations(prior: Zero123Mini, batch: int) -> int:
    """Multiplications and additions of the matrix products and attentions in one `predict`."""
    from torch.utils.flop_counter import FlopCounterMode

    z, t, cond = asked(prior, batch)
    with FlopCounterMode(display=False) as counter:
        prior.predict(z, t, cond)
    return counter.get_total_flops()


def peak_memory_mb(batch: int) -> dict[str, float]:
    """Highest resident memory of a fresh process: after the imports, with the weights loaded, after predictions.

    Linux only, else empty: what getrusage says begins with the parent's.
    """
    if not Path("/proc/self/status").is_file():
        return {}
    code = (
        "import re\nfrom benchmarks.prior import Zero123Mini, asked\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        f"a = peak(); p = Zero123Mini(); b = peak(); x = asked(p, {batch})\n"
        "[p.predict(*x) for _ in range(3)]; print(a, b, peak())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    values = [round(float(x), 1) for x in done.stdout.split()]
    return dict(zip(("imports_mb", "loaded_mb", "peak_mb"), values, strict=True))


def cost(prior: Zero123Mini, runs: int) -> None:
    """Seconds of a prediction of 1, 2 and 4 pictures, of encoding a reference; memory; share of the matrix rate."""
    case = {"prior": "zero123_mini", "parameters": sum(p.numel() for p in prior.net.parameters())}
    for batch in BATCHES:
        z, t, cond = asked(prior, batch)
        rate, count = matrix_rate(), operations(prior, batch)
        timing = measure(lambda z=z, t=t, cond=cond: prior.predict(z, t, cond), runs=runs)
        share = count / timing.median_s / 1e9 / rate
        values = {"gflop": round(count / 1e9, 3), "matrix_gflops": round(rate, 1), "share_of_rate": round(share, 3)}
        record("prior", case | {"what": "predict", "batch": batch}, timing, **values, **peak_memory_mb(batch))
        print(
            f"predict, batch {batch}: {1e3 * timing.median_s:.1f} ms (min {1e3 * timing.min_s:.1f}), "
            f"{100 * share:.0f} % of {rate:.0f} GFLOP/s"
        )
    reference, views = blank_reference(), camera.orbit(0.0, 90.0, 2.0, height=64)

    def encode() -> None:
        prior._kept = None  # as for a picture never seen
        prior.condition(reference, None, views, torch.ones(1, 3))

    works = {
        "condition, reference kept": lambda: prior.condition(reference, None, views, torch.ones(1, 3)),
        "condition, reference new": encode,
    }
    for what, work in works.items():
        line = record("prior", case | {"what": what}, measure(work, runs=runs))
        print(f"{what}: {1e3 * line['median_s']:.2f} ms (min {1e3 * line['min_s']:.2f})")


def held_out(prior: Zero123Mini, library: Path, samples: int) -> None:
    from dg.data.training_views import ViewBank, held_out_pool
    from dg.stages.prior_batch import held_out_psnr

    pool, groups = held_out_pool(str(library), "cpu")
    bank = ViewBank(pool, groups, CpuMeshRasterizer(), instances=samples, targets=4, chunk=8, seed=12)
    bank.refresh()
    scores = held_out_psnr(prior.net, bank, prior.alpha_bar, list(TIMES), samples=samples)
    for name, values in scores.items():
        print(f"{name:16s}", " ".join(f"{v:6.2f}" for v in values))
    values = {name: [round(v, 3) for v in value] for name, value in scores.items()}
    once = measure(lambda: None, runs=1)
    record("prior", {"what": "held-out x0 PSNR", "times": TIMES, "samples": samples}, once, **values)


def truth(mesh: Mesh, views: Cameras) -> Float[Tensor, "V 4 h w"]:
    """On white, with alpha."""
    made = render_mesh(mesh, views, CpuMeshRasterizer(), torch.ones(3), ssaa=4)
    return torch.cat([made.rgb, made.alpha], -1).permute(0, 3, 1, 2).clamp(0, 1)


def true_objects(prior: Zero123Mini, folder: Path, grid: Path | None, draws: int) -> None:
    """Per object: eight views of the truth, x_0 from the noised truth at t = 500, and samples from pure noise.

    PSNRs leave the known view out. One sample is one guess and lies further from the truth than the mean of several,
    which is what distillation follows: with `draws` above 1, "sample" is the mean of the draws' PSNRs and "mean_sample"
    the PSNR of their mean picture.
    """
    from dg.priors.silhouette import SilhouettePrior
    from dg.stages.prior_batch import psnr

    solid = SilhouettePrior(rasterizer=CpuMeshRasterizer(), image_size=64)
    views = camera.orbit(0.0, list(AZIMUTHS), 2.0, height=64)
    rows = []
    for name in OBJECTS:
        mesh = load_mesh(folder / f"{name}.glb")
        known = camera.orbit(0.0, 0.0, 2.0, height=256)
        seen = truth(mesh, known)
        straight = (seen[:, :3] - (1 - seen[:, 3:])) / seen[:, 3:].clamp_min(1e-4)
        rgba = torch.cat([straight.clamp(0, 1), seen[:, 3:]], 1).permute(0, 2, 3, 1)
        reference = Reference(rgba, known)
        cond = prior.condition(reference, None, views, torch.ones(8, 3))
        x0 = 2 * truth(mesh, views)[:, :3] - 1
        noise = torch.randn(x0.shape, generator=rng.generator(0, "bench.prior"))
        values, shown = {}, None
        for t in (300, 500, 700):
            step = torch.full((8,), t)
            x_t = add_noise(x0, noise, prior.alpha_bar[t])
            guess = x0_from_eps(x_t, prior.predict(x_t, step, cond).cond, prior.alpha_bar[t])
            values[f"t{t}"], shown = psnr(guess[1:], x0[1:]), guess if t == 500 else shown
        several = [
            noise,
            *(torch.randn(x0.shape, generator=rng.generator(0, "bench.prior", k)) for k in range(1, draws)),
        ]
        guesses = torch.stack([sample(prior, cond, start) for start in several]).clamp(-1, 1)
        made = guesses[0]
        inflated = 2 * solid.target(reference, views, torch.ones(8, 3)) - 1
        values["sample"] = sum(psnr(guess[1:], x0[1:]) for guess in guesses) / draws
        values["silhouette"] = psnr(inflated[1:], x0[1:])
        if draws > 1:
            values |= {"mean_sample": psnr(guesses.mean(0)[1:], x0[1:]), "draws": draws}
        values["copy"] = psnr(x0[:1].expand_as(x0[1:]), x0[1:])
        print(f"{name:16s}", " ".join(f"{k} {v:5.2f}" for k, v in values.items()))
        once = measure(lambda: None, runs=1)
        record(
            "prior", {"what": "true object PSNR", "object": name}, once, **{k: round(v, 3) for k, v in values.items()}
        )
        rows += [torch.cat([*row], -1) for row in (x0, shown, made)]
    if grid is not None:
        from PIL import Image

        grid.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_uint8((torch.cat(rows, 1).permute(1, 2, 0) / 2 + 0.5).clamp(0, 1))).save(grid)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--only", choices=("cost", "held-out", "objects"), default=None)
    parser.add_argument("--samples", type=int, default=32, help="held-out references, with four targets each")
    parser.add_argument("--draws", type=int, default=1, help="samples from pure noise per object and view")
    parser.add_argument("--grid", type=Path, default=None, help="where to save the picture of the true objects")
    options = parser.parse_args(arguments)
    prior = Zero123Mini()
    with torch.no_grad():
        if options.only in (None, "cost"):
            cost(prior, options.runs)
        if options.only in (None, "held-out") and (options.shared / "library").is_dir():
            held_out(prior, options.shared / "library", options.samples)
        if options.only in (None, "objects") and (options.shared / "data" / "objects").is_dir():
            true_objects(prior, options.shared / "data" / "objects", options.grid, options.draws)


if __name__ == "__main__":
    main()
