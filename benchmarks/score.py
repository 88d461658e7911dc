"""How long it takes to score one object as protocol=synthetic_gt does: 16 views, every figure but CLIP and LPIPS.

python -m benchmarks.score [--objects teddy car] [--runs 5]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._record import measure, record
from dg.core.clean import decimate
from dg.eval import truth
from dg.eval.layouts.synthetic import read
from dg.eval.protocol import Result
from dg.eval.score import read_rules
from dg.eval.scoring import score
from dg.io.mesh import load_mesh, save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.types import Mesh


def worse(mesh: Mesh) -> Mesh:
    """Decimated, moved and swollen: what a reconstruction differs by."""
    bare = decimate(Mesh(mesh.vertices, mesh.faces), 8000)
    return replace(bare, vertices=bare.vertices * 1.02 + torch.tensor([0.01, 0.0, -0.01]))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", nargs="+", default=["teddy", "car"])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(argv)
    raster, rules = CpuMeshRasterizer(), read_rules("synthetic_gt")
    with tempfile.TemporaryDirectory() as folder:
        for item in read(folder, options.objects):
            path = Path(folder) / f"{item.name}-result.glb"
            save_mesh(worse(load_mesh(item.truth)), path)
            for known in (False, True):

                def work(known: bool = known, item=item, path: Path = path) -> None:
                    if not known:
                        truth.forget()
                    score(Result(mesh=path), item, rules, raster)

                timing = measure(work, runs=options.runs, warmup=1)
                case = {"object": item.name, "truth": "in memory" if known else "from its file"}
                print(f"{item.name:12s} truth {case['truth']:13s} {timing.median_s:.2f} s", flush=True)
                record("score", case, timing)


if __name__ == "__main__":
    main()
