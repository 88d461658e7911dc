"""Scores one mesh file against the truth: `python -m dg.eval.score MESH --truth MESH [--json]`.

Unaligned: both stand as their files have them. Protocol: 16 novel views (`dg.eval.views.novel16`), white background,
128 px, unlit albedo, 4x supersampled; volumes on a 48^3 lattice.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dg.core.gaussians import activate
from dg.eval.metrics import psnr, silhouette_iou, volume_iou
from dg.eval.views import novel16
from dg.io.mesh import load_mesh
from dg.io.ply import read_ply
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours
from dg.raster.protocol import Rasterizer
from dg.types import Gaussians, Mesh

SSAA = 4


@dataclass(frozen=True)
class Score:
    """Means over the protocol's views. `volume_iou` is None for splats, which have no inside."""

    psnr_db: float
    silhouette_iou: float
    volume_iou: float | None


def score_mesh(mesh: Mesh, truth: Mesh, raster: MeshRasterizer) -> Score:
    cameras, white = novel16(), torch.ones(3)
    (rgb, alpha), (true_rgb, true_alpha) = (render_colours(m, cameras, raster, white, ssaa=SSAA) for m in (mesh, truth))
    return Score(
        psnr_db=float(psnr(rgb, true_rgb).mean()),
        silhouette_iou=float(silhouette_iou(alpha, true_alpha).mean()),
        volume_iou=volume_iou(mesh, truth, raster),
    )


def score_splats(gaussians: Gaussians, truth: Mesh, splat_raster: Rasterizer, raster: MeshRasterizer) -> Score:
    cameras, white = novel16(), torch.ones(3)
    ours = splat_raster(gaussians, cameras, white)
    rgb, alpha = render_colours(truth, cameras, raster, white, ssaa=SSAA)
    return Score(float(psnr(ours.rgb, rgb).mean()), float(silhouette_iou(ours.alpha, alpha).mean()), None)


def score_file(path: Path, truth: Path) -> Score:
    """A mesh file, or a ply of Gaussians."""
    raster, true_mesh = CpuMeshRasterizer(), load_mesh(truth)
    if path.suffix.lower() == ".ply" and b"rot_3" in path.read_bytes()[:4096]:
        from dg.raster.numba_cpu import NumbaRasterizer

        return score_splats(activate(read_ply(path)), true_mesh, NumbaRasterizer(), raster)
    return score_mesh(load_mesh(path), true_mesh, raster)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dg.eval.score", description=__doc__.splitlines()[0])
    parser.add_argument("mesh", type=Path, help="GLB, OBJ or PLY; a 3DGS ply is scored as splats")
    parser.add_argument("--truth", type=Path, required=True, help="the true mesh")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of text")
    options = parser.parse_args(arguments)
    try:
        score = score_file(options.mesh, options.truth)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"mesh": str(options.mesh), "truth": str(options.truth), **asdict(score)}))
    else:
        volume = "-" if score.volume_iou is None else f"{score.volume_iou:.3f}"
        print(f"PSNR {score.psnr_db:.2f} dB  silhouette IoU {score.silhouette_iou:.3f}  volume IoU {volume}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
