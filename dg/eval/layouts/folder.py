"""Any folder of meshes, with or without pictures of their fronts.

DIR/NAME.glb                     or DIR/objects/NAME.glb (.obj, .ply, .gltf; DIR/NAME/mesh.obj and the like, too)
DIR/NAME_view.png | NAME.png     or in DIR/images/ or DIR/views/; rendered where there is none
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dg.eval.layouts.asking import given_folder
from dg.eval.layouts.converted import mesh_in_our_frame
from dg.eval.protocol import Item
from dg.io.images import write_png
from dg.io.mesh import load_mesh

log = logging.getLogger("dg")

WHAT, ORIGIN = "meshes NAME.glb or NAME.obj", "any meshes of yours, y up, front at +z"
SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
INNER = ("mesh", "model", "meshes/model", "textured")  # DIR/NAME/INNER.obj
PICTURE_PX = 512
MADE_VERSION = 1


def meshes(root: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of every mesh of a folder, in the names' order; of several files of one name the first suffix's."""
    base = root / "objects" if (root / "objects").is_dir() else root
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in sorted(base.glob(f"*{suffix}")):
            found.setdefault(path.stem, path)
        for inner in INNER:
            for path in sorted(base.glob(f"*/{inner}{suffix}")):
                found.setdefault(path.relative_to(base).parts[0], path)
    yield from sorted(found.items())


def picture(root: Path, name: str, mesh: Path) -> Path | None:
    """The picture of an object's front, if there is one."""
    places = [root / "images", root / "views", root, mesh.parent]
    files = [f"{name}_view.png", f"{name}.png", f"{name}_rgba.png"]
    inside = [] if mesh.parent in (root, root / "objects") else [mesh.parent / "view.png"]
    return next((p for p in [*(place / file for place in places for file in files), *inside] if p.is_file()), None)


def read(root: str | Path | None, cache: str | Path, elevation: float = 0.0) -> list[Item]:
    """One item per mesh.

    A given picture must be a true view (radius 2, field of view 49.1 degrees, at `elevation`) of the mesh as it stands.
    Without one the mesh is centred, its longest side brought to 1, and its front rendered into `cache`.

    Raises:
        FileNotFoundError: no folder, or nothing in it.
    """
    folder = given_folder(root, "data", WHAT, ORIGIN)
    items = []
    for name, mesh in meshes(folder):
        item = Item(name=name, elevation_deg=float(elevation), recenter=False, truth=mesh)
        image = picture(folder, name, mesh)
        items.append(replace(item, image=image) if image else _with_picture(item, Path(cache)))
    if not items:
        raise FileNotFoundError(f"data={folder}: no mesh there; it should hold {WHAT} ({ORIGIN})")
    return items


def _with_picture(item: Item, cache: Path) -> Item:
    """The item with a rendered front view, and its mesh as that view saw it: centred, longest side 1."""
    from dg.data.objects import picture as front

    assert item.truth is not None
    mesh = mesh_in_our_frame(item.truth, cache, item.name, unit=True)
    image = mesh.with_name(f"{mesh.stem}_{item.elevation_deg:g}_v{MADE_VERSION}_view.png")
    if not image.is_file():
        log.info("rendering the front of %s", item.name)
        write_png(image, front(load_mesh(mesh), PICTURE_PX, item.elevation_deg))
    return replace(item, image=image, truth=mesh, image_made=True)
