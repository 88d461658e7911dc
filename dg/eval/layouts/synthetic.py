"""Procedural objects of our own: exact truth without a download. Made once into a cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from dg.eval.protocol import Item
from dg.io.files import sha256, write_json
from dg.io.images import write_png
from dg.io.mesh import save_mesh
from dg.io.suggest import nearest

log = logging.getLogger("dg")

PICTURE_PX = 512
_MODULES = ("objects", "sdf", "toys", "toys_kitchen", "toys_outdoors")  # what decides how the objects look


def code_version() -> str:
    """8 hex digits over the code that makes the objects: a changed toy is made anew, never taken from an old cache."""
    import dg.data.objects

    folder = Path(dg.data.objects.__file__).parent
    content = b"".join((folder / f"{name}.py").read_bytes() for name in _MODULES)
    return hashlib.sha256(content).hexdigest()[:8]


def read(cache: str | Path, names: Sequence[str] = ()) -> list[Item]:
    """One item per object: its mesh, and its front view as input (elevation 0, radius 2, not recentred).

    Args:
        cache: a folder; files that are there and whole (by checksum) are used again.
        names: of `dg.data.objects`; empty: all.

    Raises:
        ValueError: an unknown name.
    """
    from dg.data import objects

    chosen = tuple(names) or objects.names()
    for name in chosen:
        if name not in objects.names():
            raise ValueError(f"names: there is no object {name}{nearest(name, objects.names())}")
    folder = Path(cache) / "synthetic" / code_version()
    return [_item(name, folder, i, len(chosen)) for i, name in enumerate(chosen)]


def _item(name: str, folder: Path, index: int, count: int) -> Item:
    mesh, picture = folder / f"{name}.glb", folder / f"{name}_view.png"
    if not _whole(folder, name):
        from dg.data import objects

        log.info("making object %d of %d: %s", index + 1, count, name)
        made = objects.make(name)
        save_mesh(made, mesh)
        write_png(picture, objects.picture(made, PICTURE_PX))
        write_json(folder / f"{name}.json", {path.name: sha256(path) for path in (mesh, picture)})
    return Item(name=name, image=picture, recenter=False, truth=mesh, image_made=True)


def _whole(folder: Path, name: str) -> bool:
    """Whether both files are what their checksums say; the list is written last, so a broken-off pair is made again."""
    try:
        listed = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return bool(listed) and all(sha256(folder / file) == digest for file, digest in listed.items())
    except (OSError, ValueError, AttributeError):
        return False
