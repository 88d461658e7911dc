"""Other people's results: a folder with `method.yaml` and meshes, splats or pictures in any known layout.

name: TripoSR                # on the board; required
axes: blender                # a name of `dg.eval.axes.KNOWN`, or three rows of three numbers; default ours
layout: auto                 # a name of `dg.eval.layouts.results.LAYOUTS`
seed: 0
seconds: 0.5                 # per object
hardware: A100 40 GB
vram_gb: 6
licence: MIT
url, notes: free text
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from dg.eval.axes import Axes, best_quarter_turn, read_axes
from dg.eval.layouts.results import LAYOUTS, Layout, detect, read_renders
from dg.eval.protocol import Item, Protocol, Result
from dg.io.files import sha256
from dg.io.mesh import load_mesh
from dg.io.suggest import nearest

KEYS = ("name", "axes", "layout", "seed", "seconds", "hardware", "vram_gb", "licence", "url", "notes")


@dataclass(frozen=True)
class ForeignMethod:
    """Attributes:
    layout: how its files lie; decides whether meshes, splats or renders are measured.
    seconds: per object, as its authors measured it on `hardware`.
    """

    folder: Path
    name: str
    axes: Axes
    layout: Layout
    seed: int = 0
    seconds: float | None = None
    hardware: str | None = None
    vram_gb: float | None = None
    licence: str | None = None
    url: str | None = None
    notes: str | None = None

    @property
    def stage(self) -> str:
        return self.layout.stage

    def files(self, item: Item) -> tuple[Path, ...]:
        """The files of an item; () where there are none."""
        return self.layout.find(self.folder, item, self.seed)

    def result(self, item: Item, protocol: Protocol) -> Result | None:
        """What the method made of an item, or None: a failure.

        Raises:
            ValueError: pictures that cannot be matched with the protocol's views, or a damaged mesh.
        """
        files = self.files(item)
        if not files:
            return None
        if self.stage == "renders":
            return Result(renders=read_renders(files, item, protocol, self.layout))
        matrix = self.axes.matrix(item)
        if self.stage == "splats":
            return Result(splats=files[0], axes=_or_none(matrix))
        if self.axes.search and item.truth is not None:
            matrix = best_quarter_turn(load_mesh(files[0]), load_mesh(item.truth), matrix)
        return Result(mesh=files[0], axes=_or_none(matrix))

    def checksum(self) -> str:
        """Over the method.yaml and the names, sizes and contents of all files beside it."""
        digest = hashlib.sha256()
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(self.folder).as_posix()} {sha256(path)}\n".encode())
        return digest.hexdigest()[:16]


def open_method(folder: Path) -> ForeignMethod:
    """A folder with a method.yaml.

    Raises:
        FileNotFoundError: the folder, its method.yaml or results that could be read are missing.
        ValueError: a mistake in method.yaml; names the key and the nearest valid one.
    """
    folder = Path(folder).expanduser()
    path = folder / "method.yaml"
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no method.yaml; write one with at least `name: NAME`")
    content = _read(path)
    layout = content.get("layout", "auto")
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"{path}: layout={layout} is not known{nearest(str(layout), ['auto', *LAYOUTS])}")
    return ForeignMethod(
        folder=folder,
        name=_text(content, "name", path) or "",
        axes=read_axes(content.get("axes", "ours"), str(path)),
        layout=detect(folder) if layout == "auto" else LAYOUTS[layout],
        seed=int(_number(content, "seed", path) or 0),
        seconds=_number(content, "seconds", path),
        hardware=_text(content, "hardware", path),
        vram_gb=_number(content, "vram_gb", path),
        licence=_text(content, "licence", path),
        url=_text(content, "url", path),
        notes=_text(content, "notes", path),
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold keys such as `name: NAME`")
    for key in content:
        if key not in KEYS:
            raise ValueError(f"{path}: there is no key {key}{nearest(str(key), KEYS)}")
    if not content.get("name"):
        raise ValueError(f"{path} lacks a name")
    return content


def _text(content: Mapping[str, Any], key: str, path: Path) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, (str, int, float)):
        raise ValueError(f"{path}: {key}={value} must be text")
    return None if value is None else str(value)


def _number(content: Mapping[str, Any], key: str, path: Path) -> float | None:
    value = content.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{path}: {key}={value} must be a number of at least 0")
    return float(value)


def _or_none(matrix: torch.Tensor) -> torch.Tensor | None:
    return None if torch.equal(matrix, torch.eye(3)) else matrix
