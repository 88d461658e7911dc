"""Gaussians as ply files, in the layout that 3DGS viewers read.

Raw values: logit opacities, log scales, unnormalised quaternions w x y z, SH coefficients channel by channel (all of
red, then green, then blue). Files are read by property name, so the order does not matter: the original writes normals
(always 0), gsplat does not. Layout: DreamGaussian's gs_renderer.py and gsplat's exporter.py, as facts.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from dg.core.gaussians import RawGaussians

_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_MAX_HEADER = 1 << 16
_COEFFICIENTS = {0: 0, 9: 3, 24: 8, 45: 15}  # f_rest properties: coefficients per channel


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{i}" for i in range(count)]


def property_names(coefficients: int) -> list[str]:
    """The file's properties in order, for so many SH coefficients per channel beyond the first."""
    rest = _numbered("f_rest", 3 * coefficients)
    shape = ["opacity", *_numbered("scale", 3), *_numbered("rot", 4)]
    return ["x", "y", "z", "nx", "ny", "nz", *_numbered("f_dc", 3), *rest, *shape]


def write_ply(raw: RawGaussians, path: str | Path) -> None:
    """Writes little-endian float32, normals 0. The file appears whole or not at all; its folder is made if need be.

    Raises:
        ValueError: there are no Gaussians; nothing could read such a file.
    """
    n = len(raw)
    if n == 0:
        raise ValueError(
            f"{path} is not written, since no Gaussian is left: the last prune took all as too faint or too large; "
            "lower densify.min_opacity, raise densify.final_max_scale, or take densify=none"
        )
    rest = raw.sh_rest.transpose(1, 2).reshape(n, -1)
    parts = [raw.means, torch.zeros(n, 3), raw.sh_dc.reshape(n, 3), rest, raw.opacity_logits.reshape(n, 1)]
    parts += [raw.log_scales, raw.quats]
    table = torch.cat([part.detach().float().cpu() for part in parts], 1).numpy().astype("<f4")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {n}"]
    lines += [f"property float {name}" for name in property_names(raw.sh_rest.shape[1])]
    header = "\n".join([*lines, "end_header", ""])

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(header.encode("ascii"))
            file.write(table.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_splats(path: Path) -> bool:
    """Whether a file is a ply of Gaussians: its header names rotations.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    with path.open("rb") as file:
        return path.suffix.lower() == ".ply" and b"rot_3" in file.read(4096)


def read_ply(path: str | Path) -> RawGaussians:
    """Reads Gaussians of SH degree 0 to 3 (inferred) from an ascii or binary ply; other properties are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a ply, truncated, empty, not of Gaussians (the missing properties are named), or has
            values that are not finite.
    """
    path = Path(path)
    with path.open("rb") as file:
        vertices = read_vertices(file.read(), path)
    n, found = len(vertices), set(vertices.dtype.names)
    if n == 0:
        raise ValueError(f"{path} has no Gaussians")
    count = sum(name.startswith("f_rest_") for name in found)
    if count not in _COEFFICIENTS:
        raise ValueError(f"{path} has {count} f_rest properties; 0, 9, 24 or 45 belong to SH degrees 0 to 3")
    coefficients = _COEFFICIENTS[count]
    missing = [p for p in property_names(coefficients) if p not in found and p not in ("nx", "ny", "nz")]
    if missing:
        raise ValueError(f"{path} is not a ply of Gaussians: missing {', '.join(missing)}")

    def columns(*names: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in names], 1))

    rest = columns(*_numbered("f_rest", count)) if count else torch.zeros(n, 0)
    raw = RawGaussians(
        means=columns("x", "y", "z"),
        sh_dc=columns(*_numbered("f_dc", 3))[:, None],
        sh_rest=rest.reshape(n, 3, coefficients).transpose(1, 2).contiguous(),
        opacity_logits=columns("opacity"),
        log_scales=columns(*_numbered("scale", 3)),
        quats=columns(*_numbered("rot", 4)),
    )
    for name, value in raw.as_dict().items():
        bad = (~value.reshape(n, -1).isfinite()).any(1).nonzero()[:, 0]
        if len(bad):
            raise ValueError(f"{path}: {name} of {len(bad)} of {n} Gaussians is not finite, first in row {int(bad[0])}")
    return raw


def read_vertices(data: bytes, path: Path) -> np.ndarray:
    """The vertex element as a structured array."""
    if not data.startswith((b"ply\n", b"ply\r\n")):
        raise ValueError(f"{path} is not a ply file")
    end = data.find(b"end_header", 0, _MAX_HEADER)
    body = data.find(b"\n", end) + 1
    if end < 0 or body == 0:
        raise ValueError(f"{path} is not a ply file: its header has no end")
    order, elements = _header(data[:end].decode("ascii", "replace"), path)
    for name, count, properties in elements:
        if any(kind is None for _, kind in properties):
            raise ValueError(f"{path}: element {name} has list properties, before or in the vertices")
        dtype = np.dtype([(p, _ORDER[order] + kind) for p, kind in properties])
        if order == "ascii":
            rows = data[body:].split(b"\n", count)
            table = [tuple(row.split()) for row in rows[:count]]
            if len(table) < count or any(len(row) != len(properties) for row in table):
                raise ValueError(f"{path} is truncated: {count} rows of {len(properties)} values expected")
            values, size = np.array(table, dtype=dtype), sum(len(row) + 1 for row in rows[:count])
        else:
            size = count * dtype.itemsize
            if len(data) < body + size:
                raise ValueError(f"{path} is truncated: {body + size} bytes expected, {len(data)} there")
            values = np.frombuffer(data, dtype, count, body)
        if name == "vertex":
            return values
        body += size
    raise ValueError(f"{path} has no vertices")


def _header(text: str, path: Path) -> tuple[str, list[tuple[str, int, list[tuple[str, str | None]]]]]:
    """(format, [(element, count, [(property, numpy type or None for a list)])]), up to the vertices."""
    order, elements = "", []
    for line in text.splitlines()[1:]:
        match line.split():
            case ["format", name, _] if name in _ORDER:
                order = name
            case ["element", name, count] if count.isdecimal():
                elements.append((name, int(count), []))
            case ["property", "list", _, _, name] if elements:
                elements[-1][2].append((name, None))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1][2].append((name, _TYPES[kind]))
            case [] | ["comment" | "obj_info", *_]:
                continue
            case _:
                raise ValueError(f"{path} has a header line that is not understood: {line!r}")
    if not order:
        raise ValueError(f"{path} is not a ply file: its header names no format")
    names = [name for name, _, _ in elements]
    return order, elements[: names.index("vertex") + 1] if "vertex" in names else []
