"""Pictures: a folder, a glob pattern, one file, or a list of them as CSV or JSONL.

Columns of a list: `image` or `prompt` (one is needed), `elevation` (degrees, negative looks down from above), `truth`
(a mesh), `name`, `recenter` (true or false), `truth_yaw` (degrees). Paths are relative to the list.
"""

from __future__ import annotations

import csv
import glob
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dg.eval.protocol import Item
from dg.io.suggest import nearest

COLUMNS = ("image", "prompt", "elevation", "truth", "name", "recenter", "truth_yaw")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LISTS = (".csv", ".jsonl")
_SUFFIXES = ("_rgba", "_view")  # say what a picture is, not what it shows
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read(images: str | Path | None, elevation: float = 0.0, recenter: bool = True) -> list[Item]:
    """The items that `images=...` names.

    Args:
        images: a folder (its pictures, not those of folders in it), a pattern such as `shots/*.png`, a picture, or a
            .csv or .jsonl list.
        elevation: of pictures for which no list says another.

    Raises:
        FileNotFoundError: nothing given, or nothing there.
        ValueError: a mistake in a list; names file and line.
    """
    if images is None or str(images) == "":
        raise FileNotFoundError("give images=DIR, a pattern such as images='shots/*.png', or a CSV or JSONL list")
    path = Path(images).expanduser()
    if path.suffix.lower() in LISTS and path.is_file():
        return read_list(path, elevation, recenter)
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in PICTURES]
        reason = f"no picture in it ({', '.join(PICTURES)})"
    elif path.is_file():
        found, reason = [path] if path.suffix.lower() in PICTURES else [], "neither a picture nor a .csv or .jsonl list"
    else:
        hits = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        found, reason = [p for p in hits if p.suffix.lower() in PICTURES], "there is no such folder, file or match"
    if not found:
        raise FileNotFoundError(f"images={images}: {reason}")
    named = _unique([(_plain(p), p) for p in found])
    return [Item(name=name, image=p, elevation_deg=float(elevation), recenter=recenter) for name, p in named]


def read_list(path: Path, elevation: float = 0.0, recenter: bool = True) -> list[Item]:
    """The items of a CSV or JSONL file.

    Raises:
        ValueError: names file, line, the bad value and the mend.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _jsonl_rows(path)
    items: list[Item] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        item = _item(row, path.parent, where, elevation, recenter)
        if item.name in lines:
            raise ValueError(f"{where}: the name {item.name} is taken by line {lines[item.name]}; give a name column")
        lines[item.name] = line
        items.append(item)
    if not items:
        raise ValueError(f"{path}: holds no rows")
    return items


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for name in reader.fieldnames or ():
                _check_column(name, f"{path}, line 1")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise ValueError(f"{where}: more cells than the header has columns; quote cells that hold a comma")
                if any(value is None for value in row.values()):
                    raise ValueError(f"{where}: fewer cells than the header has columns")
                yield reader.line_num, {k: v.strip() for k, v in row.items() if v.strip()}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: cannot be read as CSV in UTF-8: {error}") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        where = f"{path}, line {line}"
        try:
            row = json.loads(raw.decode("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{where}: is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f'{where}: must be an object such as {{"image": "cat.png"}}')
        for name in row:
            _check_column(name, where)
        yield line, {k: v for k, v in row.items() if v is not None and v != ""}


def _check_column(name: str, where: str) -> None:
    if name not in COLUMNS:
        raise ValueError(f"{where}: there is no column {name!r}{nearest(name, COLUMNS)}")


def _item(row: Mapping[str, Any], base: Path, where: str, elevation: float, recenter: bool) -> Item:
    image, truth = (_file(row, key, base, where) for key in ("image", "truth"))
    prompt = _text(row, "prompt", where)
    if image is None and prompt is None:
        raise ValueError(f"{where}: needs an image or a prompt")
    name = _text(row, "name", where) or (_plain(image) if image else slug(prompt or ""))
    if "/" in name or "\\" in name or name in (".", ".."):
        raise ValueError(f"{where}: name={name} must not hold a path")
    degrees = _number(row, "elevation", where, elevation)
    if abs(degrees) > 90:
        raise ValueError(f"{where}: elevation={degrees:g} is outside -90..90 degrees; negative looks down from above")
    return Item(
        name=name,
        image=image,
        prompt=prompt,
        elevation_deg=degrees,
        recenter=_boolean(row, "recenter", where, recenter),
        truth=truth,
        truth_yaw_deg=_number(row, "truth_yaw", where, 0.0),
    )


def _text(row: Mapping[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: {key}={value} must be text")
    return value


def _file(row: Mapping[str, Any], key: str, base: Path, where: str) -> Path | None:
    value = _text(row, key, where)
    if value is None:
        return None
    path = base / Path(value).expanduser() if "\0" not in value else None
    if path is None or not path.is_file():
        raise ValueError(f"{where}: {key}={value!r}: there is no such file; paths are relative to the list")
    return path


def _number(row: Mapping[str, Any], key: str, where: str, default: float) -> float:
    value = row.get(key, default)
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: {key}={value} must be a number of degrees")
    return number


def _boolean(row: Mapping[str, Any], key: str, where: str, default: bool) -> bool:
    value = row.get(key, default)
    found = value if isinstance(value, bool) else _BOOLEANS.get(str(value).lower())
    if found is None:
        raise ValueError(f"{where}: {key}={value} must be true or false")
    return found


def _plain(path: Path) -> str:
    """A picture's stem without what only says that it is a picture."""
    stem = path.stem
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix) or stem
    return stem


def _unique(pairs: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Names told apart where two pictures have one: by the whole stem, the suffix, then a number."""
    taken: set[str] = set()
    out = []
    for name, path in pairs:
        choices = [name, path.stem, f"{path.stem}_{path.suffix[1:]}"]
        choices += [f"{name}_{i}" for i in range(2, len(pairs) + 2)]
        chosen = next(c for c in choices if c not in taken)
        taken.add(chosen)
        out.append((chosen, path))
    return out


def slug(prompt: str, limit: int = 60) -> str:
    """A prompt as a file name, as train.py names its runs."""
    kept = "".join(c if c.isalnum() or c in "-." else "_" for c in prompt)
    return "_".join(filter(None, kept.split("_")))[:limit].strip("_.") or "unnamed"
