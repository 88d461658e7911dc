"""Reads the object library: textured single objects by artists, in a few compact arrays (format: the library's README).

The library's uv has v upwards; it is converted here to `dg.types.Mesh`'s (row 0 of the texture at v = 0).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

PERMISSIVE = ("CC0", "CC-BY", "public-domain")  # what the shipped weights may be trained on; CC-BY-SA begins so too
HELD_OUT = Path(__file__).parent / "held_out.txt"


@dataclass(frozen=True)
class TexturedObject:
    """One object, longest side 1, bounding box centred, y up; surfaces may be open and their winding isn't reliable."""

    name: str
    vertices: Float[np.ndarray, "P 3"]  # float32
    uv: Float[np.ndarray, "P 2"]  # float32, per vertex, row 0 of the texture at v = 0
    faces: Int[np.ndarray, "F 3"]  # int64
    texture: UInt8[np.ndarray, "h w 3"]  # sRGB
    source: str = ""
    licence: str = ""
    author: str = ""


def index(folder: str | Path) -> list[dict]:
    """The entries of `index.json`.

    Raises:
        FileNotFoundError: the folder has no index.
    """
    path = Path(folder) / "index.json"
    if not path.is_file():
        raise FileNotFoundError(f"No object library at {folder} (index.json is missing).")
    return json.loads(path.read_text())


def permissive(entry: dict) -> bool:
    """Whether weights trained on it may be shared under CC-BY-SA: CC0, CC-BY, CC-BY-SA or public domain, no GPL."""
    return entry["licence"].startswith(PERMISSIVE) and "GPL" not in entry["licence"]


def held_out(entry: dict, families: tuple[str, ...] | None = None) -> bool:
    """Whether the object belongs to a family that is kept for evaluation (`held_out.txt`)."""
    return entry["id"].startswith(held_out_families() if families is None else families)


def held_out_families(path: Path = HELD_OUT) -> tuple[str, ...]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def read(folder: str | Path, entries: list[dict]) -> Iterator[TexturedObject]:
    """The objects of these index entries, in this order; each shard is opened once and kept while iterating."""
    from PIL import Image

    shards: dict[int, _Shard] = {}
    for entry in entries:
        if entry["shard"] not in shards:
            shards[entry["shard"]] = _Shard.open(Path(folder) / f"library_{entry['shard']}.npz")
        vertices, uv, faces, encoded = shards[entry["shard"]].row(entry["row"])
        texture = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        yield TexturedObject(
            entry["id"], vertices, uv, faces, texture, entry["source"], entry["licence"], entry.get("author", "")
        )


@dataclass(frozen=True)
class _Shard:
    vertices: Int[np.ndarray, "P 3"]  # uint16, 2047 = one unit
    uv: Int[np.ndarray, "P 2"]  # uint16, 1023 = one unit
    faces: Int[np.ndarray, "F3"]  # uint16, flat
    textures: UInt8[np.ndarray, "bytes"]
    offsets: Int[np.ndarray, "n 3"]  # first vertex, first face, first byte

    @staticmethod
    def open(path: Path) -> _Shard:
        """Undoes the differences along the shard: a running sum that wraps at 16 bits."""
        with np.load(path) as z:
            arrays = [np.cumsum(z[k], 0, dtype=np.uint16) for k in ("dv", "duv", "df")]
            return _Shard(*arrays, z["tex"], z["off"].astype(np.int64))

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bytes]:
        (v0, f0, b0), (v1, f1, b1) = self.offsets[i], self.offsets[i + 1]
        vertices = (self.vertices[v0:v1] / 2047 - 0.5).astype(np.float32)
        uv = (self.uv[v0:v1] / 1023).astype(np.float32)
        uv[:, 1] = 1 - uv[:, 1]
        faces = self.faces[3 * f0 : 3 * f1].reshape(-1, 3).astype(np.int64)
        return vertices, uv, faces, self.textures[b0:b1].tobytes()
