"""True meshes by name: a file, or `object:NAME` for one of our own objects (`dg.data.objects`)."""

from __future__ import annotations

from pathlib import Path

from dg.io.mesh import load_mesh
from dg.types import Mesh

OBJECT = "object:"


def object_name(source: str | Path) -> str | None:
    """NAME of `object:NAME`; None of anything else."""
    text = str(source)
    return text.removeprefix(OBJECT) if text.startswith(OBJECT) else None


def known_mesh(source: str | Path) -> Mesh:
    """The mesh that `source` names. Objects are made by formula, once per process (some seconds).

    Raises:
        FileNotFoundError, ValueError: there is no such file or object, or it cannot be read.
    """
    name = object_name(source)
    if name is None:
        return load_mesh(Path(source))
    from dg.data.objects import make

    return make(name)
