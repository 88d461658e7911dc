"""Scores one file: `python -m dg.eval.score MESH --truth MESH | --image PNG [--protocol NAME] [--json]`.

A mesh (GLB, OBJ, PLY) or a 3DGS ply, against a true mesh, a picture, or both; what every figure means is in
docs/metrics.md. Unless told otherwise: 16 views (`dg.eval.views.NOVEL16`), white background, 128 px, unlit albedo, 4x
supersampled; 20,000 surface points; volumes on a 48^3 lattice; nothing is scaled.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dg.core.gaussians import activate
from dg.eval.catalog import ALIGNMENTS, CATALOG
from dg.eval.figures import OF_RUN
from dg.eval.images import psnr, silhouette_iou
from dg.eval.printed import printed
from dg.eval.protocol import Item, Protocol, Result, ViewSpec
from dg.eval.views import BY_NAME, novel16
from dg.eval.volume import volume_iou
from dg.io.mesh import load_mesh
from dg.io.ply import is_splats, read_ply
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours
from dg.raster.protocol import Rasterizer
from dg.types import Gaussians, Mesh

SSAA = 4
PROTOCOLS = Path(__file__).resolve().parents[2] / "conf" / "protocol"


@dataclass(frozen=True)
class Score:
    """Means over the 16 views. `volume_iou` is None for splats, which have no inside."""

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
    """The three figures that need no more than a truth: a mesh file, or a ply of Gaussians."""
    raster, true_mesh = CpuMeshRasterizer(), load_mesh(truth)
    if is_splats(path):
        from dg.raster.numba_cpu import NumbaRasterizer

        return score_splats(activate(read_ply(path)), true_mesh, NumbaRasterizer(), raster)
    return score_mesh(load_mesh(path), true_mesh, raster)


def read_rules(name: str) -> Protocol:
    """How to measure: a protocol's file, its name under conf/protocol, or one of `dg.eval.views.BY_NAME`.

    Raises:
        ValueError: there is no such protocol, or it cannot be read.
    """
    metrics = tuple(base for base in CATALOG if base not in OF_RUN)
    if name in BY_NAME:
        return Protocol(name, list, BY_NAME[name], metrics, (), ALIGNMENTS)
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else PROTOCOLS / f"{name}.yaml"
    if not path.is_file():
        shipped = sorted(p.stem for p in PROTOCOLS.glob("*.yaml"))
        raise ValueError(f"protocol {name}: is no file and none of {', '.join((*BY_NAME, *shipped))}")
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        views = {key: value for key, value in content["views"].items() if key != "_target_"}
        left = ("_target_", "source", "views", "objects", "headline")  # what says nothing about one file
        rest = {key: value for key, value in content.items() if key not in left}
        return Protocol(**rest, source=list, views=ViewSpec(**views), headline=())
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no protocol: {type(error).__name__}: {error}") from error


def clip_scorer(text: str) -> Any:
    """`openclip`, `transformers`, or one of them with a model or folder: `openclip:ViT-B-32:laion2b_s34b_b79k`.

    Raises:
        ValueError: another library, or the model cannot be had (`dg.eval.clip.Unavailable`).
    """
    from dg.eval.clip import OpenClip, TransformersClip

    library, *rest = text.split(":")
    kinds: dict[str, Any] = {"openclip": OpenClip, "transformers": TransformersClip}
    if library not in kinds or len(rest) > (2 if library == "openclip" else 1):
        raise ValueError(f"--clip {text}: must be openclip[:MODEL[:TAG]] or transformers[:MODEL]")
    return kinds[library](*rest)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m dg.eval.score", description=__doc__.splitlines()[0])
    made.add_argument("mesh", type=Path, help="GLB, OBJ or PLY; a 3DGS ply is scored as splats")
    made.add_argument("--truth", type=Path, help="the true mesh")
    made.add_argument("--image", type=Path, help="the picture that the mesh was made from")
    made.add_argument("--prompt", help="the text that it was made from; for CLIP")
    made.add_argument("--elevation", type=float, default=0.0, help="of the picture; negative looks down from above")
    made.add_argument("--framed", action="store_true", help="the picture's framing is the camera's: do not recentre it")
    made.add_argument("--protocol", default="novel16", help="novel16, orbit8, front, a name of conf/protocol, a file")
    made.add_argument("--clip", action="append", default=[], help="openclip[:MODEL[:TAG]] or transformers[:MODEL]")
    made.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.truth is None and options.image is None:
        parser().error("give --truth MESH, --image PNG, or both")
    try:
        content = scored(options)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(content))
    else:
        figures = {k: v for k, v in content.items() if k.partition("/")[0] in CATALOG and k != "volume_iou"}
        print(printed(figures, content["blanks"]))
    return 0


def scored(options: argparse.Namespace) -> dict[str, Any]:
    """Figures by name, `blanks` with the reasons; `volume_iou` stands for `volume_iou/unaligned`."""
    from dg.eval.scoring import score
    from dg.raster.numba_cpu import NumbaRasterizer

    item = Item(
        name=options.mesh.stem,
        image=options.image,
        prompt=options.prompt,
        elevation_deg=options.elevation,
        recenter=not options.framed,
        truth=options.truth,
    )
    rules = read_rules(options.protocol)
    scorers = [clip_scorer(text) for text in options.clip]
    if not scorers and not rules.clip:
        metrics = tuple(base for base in rules.metrics if not base.startswith("clip_"))
        rules = replace(rules, metrics=metrics)
    for path in (options.truth, options.image):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"no file at {path}; check the path")
    result = Result(splats=options.mesh) if is_splats(options.mesh) else Result(mesh=options.mesh)
    scores = score(result, item, rules, CpuMeshRasterizer(), NumbaRasterizer(), scorers)
    content: dict[str, Any] = {"mesh": str(options.mesh), "protocol": rules.name}
    content |= {"truth": str(options.truth)} if options.truth else {}
    content |= {"image": str(options.image)} if options.image else {}
    content |= scores.values
    if options.truth is not None:
        content["volume_iou"] = scores.values.get("volume_iou/unaligned")
    return content | {"blanks": scores.blanks}


if __name__ == "__main__":
    sys.exit(main())
