"""The 32 objects that no training of the embedded prior sees: 16 of the library, by families of names, and 16 invented.

Figures about `zero123_mini` that are to be believed are measured on these. The library's families stand in
`held_out.txt`; invented objects follow from their number, in a stream of keys that training never draws from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dg.core import rng
from dg.data import library
from dg.data.library import TexturedObject
from dg.data.procedural import invent
from dg.types import Mesh

INVENTED = 16


def invented(count: int = INVENTED) -> list[TexturedObject]:
    """Procedural objects named after their plan and number: `procedural/creature_03`."""
    made = invent([rng.key(0, "held-out", i) for i in range(count)])
    return [replace(o, name=f"{o.name}_{i:02d}") for i, o in enumerate(made)]


def from_library(folder: str | Path) -> list[TexturedObject]:
    """The permissive objects of the held-out families.

    Raises:
        FileNotFoundError: no library at `folder`.
    """
    entries = [e for e in library.index(folder) if library.permissive(e) and library.held_out(e)]
    return list(library.read(folder, entries))


def as_mesh(thing: TexturedObject) -> Mesh:
    """The same as a mesh with float texture."""
    faces = torch.from_numpy(thing.faces).long()
    return Mesh(
        vertices=torch.from_numpy(thing.vertices).float(),
        faces=faces,
        uv=torch.from_numpy(thing.uv).float(),
        faces_uv=faces,
        texture=torch.from_numpy(thing.texture.astype("float32")) / 255,
    )


def file_name(thing: TexturedObject) -> str:
    """The object's name as a file's stem."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in thing.name)
