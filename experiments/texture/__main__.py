"""`python -m experiments.texture`: close.png, the variants' meshes from near by, of the runs that evaluate.py left."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from dg.core.camera import orbit
from dg.eval.overview import Row, overview
from dg.io.images import write_png
from dg.io.mesh import load_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_colours

HERE = Path(__file__).parent
VARIANTS = ("full", "release_rate", "sds_texture", "sds_release_rate")
OBJECTS = ("robot", "car")
AZIMUTH_DEG, RADIUS, SIZE = 60.0, 1.4, 320  # where the known view's colours end


def seen(mesh: Path) -> Tensor:
    """The mesh from `AZIMUTH_DEG`, [SIZE SIZE 3] on white."""
    camera = orbit([0.0], [AZIMUTH_DEG], RADIUS, height=SIZE, width=SIZE)
    return render_colours(load_mesh(mesh), camera, CpuMeshRasterizer(), torch.ones(3), ssaa=2)[0][0].clamp(0, 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.texture", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("outputs/experiments/texture/runs"))
    options = parser.parse_args()
    rows = []
    for item in OBJECTS:
        found = [sorted(options.runs.glob(f"zero123_mini_{v}/{item}-0-*/mesh.glb")) for v in VARIANTS]
        if not all(found):
            print(
                f"error: {options.runs} has no meshes of {item}: python -m dg.experiment run texture", file=sys.stderr
            )
            return 2
        rows.append(Row(item, "", [seen(files[-1]) for files in found]))
    write_png(HERE / "close.png", overview("from near by, 60 degrees to the side", VARIANTS, rows, tile=SIZE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
