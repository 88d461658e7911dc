"""`input`, `elevation`, `azimuth`: one picture or several, and where each was seen from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dg.runtime.errors import UserError

AUTO = "auto"


@dataclass(frozen=True)
class Picture:
    path: str
    elevation_deg: float | None  # None: to be searched for
    azimuth_deg: float


def paths(config: Mapping[str, Any]) -> list[str]:
    """`input=a.png` is read as `input=[a.png]`, null as none."""
    given = config["input"]
    return [] if given is None else [str(p) for p in given] if isinstance(given, list) else [given]


def elevation(config: Mapping[str, Any]) -> float:
    """Of the first picture, or of the views where there is none; 0 where it is to be searched for."""
    given = config["elevation"]
    first = given[0] if isinstance(given, list) else given
    return 0.0 if first == AUTO else float(first)


def pictures(config: Mapping[str, Any]) -> list[Picture]:
    """
    Raises:
        UserError: lists of unequal length, something that is no angle, several pictures without azimuths of their own.
    """
    files = paths(config)
    count = max(len(files), 1)
    if config["input"] is not None and not files:
        raise UserError("input=[] names no picture")
    if config["elevation"] == AUTO:
        if count > 1:
            raise UserError("elevation=auto is for one picture; for several give elevation=[..]")
        if not files:
            raise UserError("elevation=auto needs a picture: input=photo.png")
        elevations: list[float | None] = [None]
    else:
        elevations = list(_angles(config, "elevation", count))
        if wrong := [e for e in elevations if e is not None and abs(e) > 90]:
            raise UserError(f"elevation={wrong[0]:g} is outside -90..90 degrees; negative looks down from above")
    azimuths = _angles(config, "azimuth", count)
    if count > 1 and len({a % 360 for a in azimuths}) == 1 and len(set(elevations)) == 1:
        raise UserError(f"input names {count} pictures seen from one place; give azimuth=[0,90,..], one for each")
    return [Picture(*both) for both in zip(files, elevations, azimuths, strict=False)]


def _angles(config: Mapping[str, Any], key: str, count: int) -> list[float]:
    """A number serves all pictures; a list has one for each."""
    given = config[key]
    found = given if isinstance(given, list) else [given] * count
    for value in found:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{key}={given}: {value} is no number of degrees")
    if len(found) != count:
        names = "1 picture" if count == 1 else f"{count} pictures"
        raise UserError(
            f"{key}=[{','.join(f'{v:g}' for v in found)}] has {len(found)} entries for {names}; give one each"
        )
    return [float(v) for v in found]


def missing(config: Mapping[str, Any]) -> list[Path]:
    return [Path(p) for p in paths(config) if not Path(p).is_file()]
