"""How long splat rasterisers take for one training step's work: forward, and backward from all three pictures.

python -m benchmarks.raster [--raster numba_cpu] [--sizes 128 256 512] [--runs 15]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch

from benchmarks._record import measure, record
from dg.core import camera, gaussians, rng
from dg.types import Gaussians

FIELDS = ("means", "quats", "scales", "opacities", "sh")


def ball(n: int) -> Gaussians:
    """The start of every run: uniform in a ball of radius 0.5, opacity 0.1."""
    return gaussians.activate(gaussians.ball(rng.generator(0, "bench.ball"), num_points=n))


def surface(n: int) -> Gaussians:
    """What runs end with: flat Gaussians of opacity 0.9 on a sphere of radius 0.45, as large as their distances."""
    g = rng.generator(0, "bench.surface")
    normal = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    quats = torch.stack([1 + normal[:, 2], -normal[:, 1], normal[:, 0], torch.zeros(n)], 1)  # turns z to the normal
    size = 0.9 * (4 * torch.pi * 0.45**2 / n) ** 0.5 * (0.7 + 0.6 * torch.rand(n, 1, generator=g))
    scales = size * torch.tensor([1.0, 1.0, 0.2])
    return Gaussians(0.45 * normal, quats, scales, torch.full((n,), 0.9), torch.rand(n, 1, 3, generator=g))


SCENES: dict[str, Callable[[int], Gaussians]] = {"ball": ball, "surface": surface}


def rasterizer(name: str) -> tuple[Callable, str]:
    """The implementation and the device that it runs on."""
    if name == "numba_cpu":
        from dg.raster.numba_cpu import NumbaRasterizer

        return NumbaRasterizer(), "cpu"
    if name == "gsplat":
        from dg.raster.gsplat import GsplatRasterizer

        return GsplatRasterizer(), "cuda"
    from dg.raster.dense import DenseRasterizer

    return DenseRasterizer(), "cpu"


def run(name: str, scene: str, n: int, size: int, runs: int) -> list[dict]:
    render, device = rasterizer(name)
    g = SCENES[scene](n).to(device)
    inputs = {field: getattr(g, field).clone().requires_grad_() for field in FIELDS}
    cameras = camera.orbit(-10, 30, 2, height=size).to(device)
    background = torch.ones(3, device=device)
    weights = [torch.randn(1, size, size, c, generator=rng.generator(c, "bench")).to(device) for c in (3, 1, 1)]

    def forward():
        return render(Gaussians(**inputs), cameras, background)

    def step():
        out = forward()
        torch.autograd.backward((out.rgb, out.alpha, out.depth), weights)

    case = {"raster": name, "scene": scene, "gaussians": n, "size": size}
    covered = float((forward().alpha > 0).float().mean())
    return [
        record("raster", {**case, "pass": part}, measure(f, runs=runs, device=device), device=device, covered=covered)
        for part, f in (("forward", forward), ("forward+backward", step))
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raster", default="numba_cpu", choices=("numba_cpu", "dense", "gsplat"))
    parser.add_argument("--sizes", type=int, nargs="+", default=(128, 256, 512))
    parser.add_argument("--gaussians", type=int, nargs="+", default=(5000,))
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args(argv)
    for scene in SCENES:
        for n in args.gaussians:
            for size in args.sizes:
                for line in run(args.raster, scene, n, size, args.runs):
                    median, least, cpu = (1e3 * line[key] for key in ("median_s", "min_s", "cpu_median_s"))
                    times = f"median {median:6.1f} ms  min {least:6.1f} ms  processor {cpu:6.1f} ms"
                    print(f"{scene:8} {n:6} {size:4}² {line['pass']:17} {times}")


if __name__ == "__main__":
    main()
