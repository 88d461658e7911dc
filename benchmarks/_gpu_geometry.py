"""Splatting, the optimiser, densification and the extraction of a mesh, on a set of Gaussians as runs end with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._gpu_floor import PIXEL_FLOATS, SPLAT_FLOATS, Bench, Work, adam, densification, splatting
from benchmarks._record import Timing
from benchmarks.raster import FIELDS, surface
from dg.core import camera, optim_edit, rng
from dg.core.densify import AdaptiveDensity, Statistics
from dg.core.gaussians import RawGaussians, activate, deactivate
from dg.runtime.device import mesh_rasterizer, rasterizer
from dg.stages.mesh import extract
from dg.stages.mesh_options import MeshOptions
from dg.types import Gaussians


def lump(n: int) -> Gaussians:
    """The surface scene with dents, so that an unwrapped mesh needs several charts."""
    flat = surface(n)
    direction = torch.nn.functional.normalize(flat.means, dim=1)
    waves = torch.sin(7 * direction[:, :1]) * torch.sin(6 * direction[:, 1:2] + 1) * torch.sin(8 * direction[:, 2:])
    return Gaussians(flat.means * (1 + 0.25 * waves), flat.quats, flat.scales, flat.opacities, flat.sh)


def splat_step(device: str, n: int, size: int, views: int = 1) -> tuple[str, Callable[[], None]]:
    """The rasteriser's name; a render of `views` views in one call and its backward pass from all three pictures."""
    render, given = rasterizer(device), surface(n).to(device)
    inputs = {name: getattr(given, name).clone().requires_grad_() for name in FIELDS}
    cameras = camera.orbit(-10.0, [360.0 * v / views for v in range(views)], 2.0, height=size).to(device)
    white = torch.ones(3, device=device)
    slopes = [torch.randn(views, size, size, c, generator=rng.generator(c, "bench.gpu")).to(device) for c in (3, 1, 1)]

    def step() -> None:
        out = render(Gaussians(**inputs), cameras, white)
        torch.autograd.grad((out.rgb, out.alpha, out.depth), list(inputs.values()), slopes)

    return type(render).__name__.removesuffix("Rasterizer").lower(), step


def splat(bench: Bench, n: int, size: int, views: int = 1) -> dict[str, Any]:
    way, step = splat_step(bench.device, n, size, views)
    work = splatting(n, views * size**2)
    return bench.part("splats, both ways", way, step, work, gaussians=n, size=size, views=views)


def state(n: int, device: str) -> tuple[nn.ParameterDict, torch.optim.Adam]:
    """Parameters with gradients, and an Adam that has taken a step."""
    raw = deactivate(surface(n).to(device))
    params = nn.ParameterDict({name: nn.Parameter(value.contiguous()) for name, value in raw.as_dict().items()})
    optimizer = optim_edit.make_adam(params, optim_edit.LearningRates())
    for p in params.values():
        p.grad = torch.full_like(p, 1e-9)
    optimizer.step()
    return params, optimizer


def optimise(bench: Bench, n: int) -> None:
    _, optimizer = state(n, bench.device)
    bench.part("Adam", "fused", optimizer.step, adam(n), gaussians=n)


def densify(bench: Bench, n: int) -> None:
    """From n / 2 to n Gaussians: every one is cloned or split."""
    rule, half = AdaptiveDensity(grad_threshold=0.0, min_opacity=0.0), n // 2
    ones = torch.ones(half, device=bench.device)

    def prepare() -> tuple[nn.ParameterDict, torch.optim.Adam]:
        return state(half, bench.device)

    def work(given: tuple[nn.ParameterDict, torch.optim.Adam]) -> None:
        params, optimizer = given
        raw = RawGaussians(**{name: p.detach() for name, p in params.items()})
        result = rule.edit(100, 500, raw, Statistics(ones, ones, ones), rng.generator(0, "bench.densify"))
        optim_edit.apply(optimizer, params, result.edit)

    timing = each(prepare, work, bench.runs, bench.device)
    bench.add("densification", "one call", timing, densification(half, n), gaussians=n)


def each(prepare: Callable[[], Any], work: Callable[[Any], Any], runs: int, device: str) -> Timing:
    """As `measure`, of work that uses up what it is given."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds = []
    for _ in range(runs + 2):
        given = prepare()
        wait()
        start = time.perf_counter()
        work(given)
        wait()
        seconds.append(time.perf_counter() - start)
    return of(seconds[2:])


def of(seconds: Sequence[float]) -> Timing:
    return Timing(statistics.median(seconds), min(seconds), max(seconds), None, len(seconds))


def extraction(bench: Bench, n: int, options: MeshOptions, runs: int, made: Path | None = None) -> None:
    """The mesh stage's parts, as it reports them, after one unmeasured run.

    Args:
        made: a run's gaussians.ply; a dented ball of n Gaussians where it is None.
    """
    if made is None:
        given, way = lump(n).to(bench.device), "dented ball"
    else:
        from dg.io.ply import read_ply

        given, way = activate(read_ply(made)).to(bench.device), "the job's Gaussians"
    rasters = rasterizer(bench.device), mesh_rasterizer(bench.device)
    collected: dict[str, list[float]] = {}
    for k in range(runs + 1):
        start = time.perf_counter()
        _, report = extract(given, *rasters, options)
        times = report.seconds | {"all": time.perf_counter() - start}
        for part, seconds in times.items() if k else ():
            collected.setdefault(part, []).append(seconds)
    least = extraction_work(len(given), options, report.faces)
    for part, seconds in collected.items():
        case = {"gaussians": len(given), "faces": report.faces}
        bench.add(f"mesh: {part}", way, of(seconds), least.get(part), **case)


def extraction_work(n: int, options: MeshOptions, faces: int) -> dict[str, Work]:
    """The least bytes of those parts that a GPU can do; cleaning, decimation and unwrapping run on the host."""
    views, pixels, lattice = 26, options.render_size**2, options.resolution**3
    pictures = 4.0 * PIXEL_FLOATS * views * pixels
    mesh = 4.0 * 3 * (faces + faces / 2)
    return {
        "render": Work(bytes=4.0 * SPLAT_FLOATS * n * views + pictures),
        "density": Work(bytes=4.0 * (SPLAT_FLOATS * n + lattice)),
        "level": Work(bytes=4.0 * (lattice + 12 * 160**2)),
        "surface": Work(bytes=4.0 * 2 * lattice + mesh),
        "bake": Work(bytes=pictures + mesh + 4.0 * 3 * options.texture_size**2),
    }


def curves(
    bench: Bench, gaussians: Sequence[int], sizes: Sequence[int], views: Sequence[int], fixed: tuple[int, int, int]
) -> None:
    """What a render costs against one size at a time; `fixed`: Gaussians and pixels meanwhile, pixels for views."""
    n, size, small = fixed
    for count in gaussians:
        splat(bench, count, size)
    for side in sizes:
        splat(bench, n, side)
    for number in views:
        splat(bench, n, small, number)
