"""GPTEval3D's layout, to write and to read: 120 views of each mesh with their normals, 512 x 512.

    ROOT/prompts.json                                       a list of prompts; a prompt's id is its place in it
    ROOT/methods/METHOD/PROMPT_ID/SEED/rgb_{0..119}.png     and normal_{0..119}.png

Facts from its assets/data_format.md and gpteval3d/utils/t23d_tournament.py (files are counted from 0; its README shows
rgb_001.png). Views are "evenly spaced, with threestudio's camera": that code's test views as facts (15 degrees from
above, distance 1.5, field of view 70, azimuth from 0 to 360 with both ends, so that the first and the last are equal).
Colours stand on white, normals (world space, z up, halved and shifted into [0, 1]) on black.

    python -m dg.eval.layouts.gpteval3d ROOT --method NAME --meshes FOLDER [--seed 0]

FOLDER holds a mesh per prompt, called by the prompt's id or by the prompt with underscores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import orbit
from dg.eval.layouts.asking import given_folder
from dg.eval.layouts.converted import UNIT
from dg.eval.layouts.frames import FROM_Z_UP, elevation_from_above
from dg.eval.layouts.results import LAYOUTS
from dg.eval.placement import resized
from dg.eval.protocol import Item
from dg.io.images import write_png
from dg.io.mesh import load_mesh
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_mesh
from dg.types import Cameras, Mesh

ORIGIN = "a tournament folder of GPTEval3D, such as data/tournament-v0 of its repository"
VIEWS, SIZE = 120, 512
ELEVATION_ABOVE_DEG, DISTANCE, FOVY_DEG = 15.0, 1.5, 70.0
LONGEST = 1.4  # of the mesh's sides as it is shown: fills two thirds of the picture


def cameras(views: int = VIEWS, size: int = SIZE) -> Cameras:
    azimuths = torch.linspace(0, 360, views).tolist()
    return orbit(elevation_from_above(ELEVATION_ABOVE_DEG), azimuths, DISTANCE, fovy_deg=FOVY_DEG, height=size)


def read(root: str | Path | None) -> list[Item]:
    """One item per prompt of prompts.json, called prompt_000 and so on.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no list of texts.
    """
    path = given_folder(root, "data", "prompts.json", ORIGIN) / "prompts.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path} ({ORIGIN})")
    try:
        prompts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"{path} must hold a list of texts")
    return [Item(name=f"prompt_{i:03d}", prompt=prompt) for i, prompt in enumerate(prompts)]


def normal_colours(normal: Float[Tensor, "V H W 3"], alpha: Float[Tensor, "V H W 1"]) -> Float[Tensor, "V H W 3"]:
    """World normals in threestudio's z-up world as colours, on black."""
    return (normal @ torch.tensor(FROM_Z_UP) + 1) / 2 * alpha


def write(
    mesh: Mesh, folder: Path, raster: MeshRasterizer, views: int = VIEWS, size: int = SIZE, ssaa: int = 2
) -> None:
    """rgb_N.png and normal_N.png of a mesh, centred and scaled. Pictures that are there are kept."""
    mesh = resized(mesh, replace(UNIT, longest=LONGEST))
    all_cameras = cameras(views, size)
    for i in range(views):
        rgb, normal = folder / f"rgb_{i}.png", folder / f"normal_{i}.png"
        if rgb.is_file() and normal.is_file():
            continue
        seen = render_mesh(mesh, all_cameras[[i]], raster, torch.ones(3), ssaa=ssaa)
        write_png(normal, normal_colours(seen.normal, seen.alpha)[0])
        write_png(rgb, seen.rgb[0])


def export(
    root: str | Path,
    method: str,
    meshes: Path,
    raster: MeshRasterizer,
    seed: int = 0,
    views: int = VIEWS,
    size: int = SIZE,
) -> list[str]:
    """Writes every mesh that is there into ROOT/methods/METHOD; gives the names of prompts that have none.

    Raises:
        FileNotFoundError: a folder or prompts.json is missing, or no prompt has a mesh.
    """
    items = read(root)
    meshes = given_folder(meshes, "--meshes", "a mesh per prompt", "NAME.glb or NAME/mesh.obj")
    missing = []
    for i, item in enumerate(items):
        numbered = [replace(item, name=name) for name in (str(i), item.name)]
        found = [path for it in numbered for path in LAYOUTS["meshes"].find(meshes, it, seed)]
        if not found:
            missing.append(item.name)
            continue
        print(f"{i + 1}/{len(items)} {found[0].name}", file=sys.stderr, flush=True)
        write(load_mesh(found[0]), Path(root) / "methods" / method / str(i) / str(seed), raster, views, size)
    if len(missing) == len(items):
        raise FileNotFoundError(f"{meshes} has no mesh for any of {len(items)} prompts (0.glb, or PROMPT_IN_ONE.glb)")
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    from dg.meshraster.cpu import CpuMeshRasterizer

    parser = argparse.ArgumentParser(prog="python -m dg.eval.layouts.gpteval3d", description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="a tournament folder with prompts.json")
    parser.add_argument("--method", required=True, help="what the method is called there")
    parser.add_argument("--meshes", type=Path, required=True, help="folder with a mesh per prompt")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        missing = export(options.root, options.method, options.meshes, CpuMeshRasterizer(), options.seed)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if missing:
        print(f"without a mesh: {', '.join(missing)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
