"""What a method is to the evaluation, and what it leaves of one case."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dg.eval.protocol import Item, Result
from dg.io.files import sha256


@dataclass(frozen=True)
class Made:
    """Attributes:
    results: stage -> what it left; a stage that is missing here failed for the reason `failure`.
    costs: figures of the catalog (`seconds/mesh`, `peak_memory_mb`, ...), per stage.
    """

    results: dict[str, Result]
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    failure: str | None = None
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""


class Method(Protocol):
    name: str
    kind: str  # ours | foreign | reference
    licence: str | None

    def stages(self, item: Item) -> tuple[str, ...]:
        """What is measured of it: mesh, coarse, splats, renders."""
        ...

    def identity(self) -> str:
        """A checksum of all that decides its results, but for the item and the seed."""
        ...

    def applies(self, item: Item) -> bool:
        """False where the method makes no sense for the item: the truth of an item that has none."""
        ...

    def make(self, item: Item, seed: int, folder: Path, again: bool) -> Made:
        """Makes or finds the results of one case in `folder`; `again`: the first attempt failed."""
        ...


def checksum(value: Any) -> str:
    """16 hex digits over JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def item_checksum(item: Item) -> str:
    """Over the contents of an item's files and its numbers; where the files lie does not count."""
    views = item.truth_views
    content = {
        "name": item.name,
        "prompt": item.prompt,
        "elevation": item.elevation_deg,
        "recenter": item.recenter,
        "yaw": item.truth_yaw_deg,
        "camera": [item.radius, item.fovy_deg],
        "depth": None if item.truth_depth is None else [_of(p) for p in item.truth_depth.pictures],
        "image": _of(item.image),
        "truth": _of(item.truth),
        "views": None if views is None else [_of(p) for p in views.pictures],
        "cameras": None if views is None else [views.cameras.c2w.tolist(), views.cameras.K.tolist()],
    }
    return checksum(content)


def _of(path: Path | None) -> str | None:
    return None if path is None else sha256(path) if path.is_file() else "missing"
