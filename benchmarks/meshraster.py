"""How long mesh rasterisers take for stage 2: triangles to pixels alone, and a picture with its backward pass.

python -m benchmarks.meshraster [--rasters cpu torch nvdiffrast] [--device cuda] [--sizes 256 512 1024] [--views 1 4]

On a GPU the default is every rasteriser that works there; `cpu` copies its input and output.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch

from benchmarks._record import measure, record
from dg.core.camera import clip_from_world, orbit
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_mesh
from dg.types import Mesh


def _cpu() -> MeshRasterizer:
    from dg.meshraster.cpu import CpuMeshRasterizer

    return CpuMeshRasterizer()


def _torch() -> MeshRasterizer:
    from dg.meshraster.torch_rows import TorchMeshRasterizer

    return TorchMeshRasterizer()


def _nvdiffrast() -> MeshRasterizer:
    from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer

    return NvdiffrastMeshRasterizer()


KINDS: dict[str, Callable[[], MeshRasterizer]] = {"cpu": _cpu, "torch": _torch, "nvdiffrast": _nvdiffrast}


def bench(name: str, mesh: Mesh, device: str, size: int, views: int, runs: int) -> None:
    """Records what one rasteriser takes for `views` pictures of size x size pixels."""
    raster, mesh = KINDS[name](), mesh.to(device)
    cameras = orbit(-10.0, [30.0 + 360.0 * i / views for i in range(views)], 2.0, height=size).to(device)
    clip = clip_from_world(mesh.vertices, cameras).contiguous()
    texture = mesh.texture.clone().requires_grad_()
    background = torch.ones(3, device=device)

    def step() -> None:
        texture.grad = None
        render_mesh(mesh, cameras, raster, background, texture=texture).rgb.sum().backward()

    parts = {"fragments": lambda: raster(clip, mesh.faces, (size, size)), "render and backward": step}
    for what, work in parts.items():
        case = {"meshraster": name, "part": what, "size": size, "views": views, "faces": len(mesh.faces)}
        timing = measure(work, runs=runs, device=device)
        record("meshraster", case, timing, device=device)
        print(f"{name:10} {what:20} {views} x {size}²: {1e3 * timing.median_s:8.2f} ms (min {1e3 * timing.min_s:.2f})")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rasters", nargs="+", default=None, choices=KINDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(argv)
    from dg.data.objects import make

    mesh = make("robot")
    for name in options.rasters or (KINDS if options.device.startswith("cuda") else ("cpu", "torch")):
        for size in options.sizes:
            for views in options.views:
                try:
                    bench(name, mesh, options.device, size, views, options.runs)
                except (ImportError, RuntimeError) as error:
                    print(f"{name}: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
