"""Four panels from a report: milliseconds against Gaussians, resolution, views and objects, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, LEFT, TOP, BELOW, RIGHT = 560, 400, 74, 52, 58, 24
MEASURED, FLOOR, GRID, TEXT = (31, 95, 166), (200, 90, 30), (222, 222, 222), (40, 40, 40)
LABELS = {"gaussians": "Gaussians", "size": "pixels a side"}


@dataclass(frozen=True)
class Panel:
    title: str
    label: str  # of the horizontal axis
    measured: list[tuple[float, float]]  # (x, ms)
    floor: list[tuple[float, float]]


def panels(parts: Sequence[dict[str, Any]]) -> list[Panel]:
    """Of a report's parts those where one size varies and the others stay."""
    splats = [p for p in parts if p["part"] == "splats, both ways"]
    single = [p for p in splats if p["views"] == 1]
    usual = _commonest([p["gaussians"] for p in single]), _commonest([p["size"] for p in single])
    small = _commonest([p["size"] for p in splats if p["views"] > 1])
    steps = [p for p in parts if p["part"] == "prior's share of a step"]
    return [
        _panel(f"splats, both ways, {usual[1]} px", "gaussians", [p for p in single if p["size"] == usual[1]]),
        _panel(f"splats, both ways, {usual[0]} Gaussians", "size", [p for p in single if p["gaussians"] == usual[0]]),
        _panel(f"splats in one call, {small} px", "views", [p for p in splats if p["size"] == small]),
        _panel("UNet with guidance and encoder both ways, one batch", "objects", steps),
    ]


def _commonest(values: list[int]) -> int:
    return max(set(values), key=lambda v: (values.count(v), v)) if values else 0


def _panel(title: str, key: str, parts: Sequence[dict[str, Any]]) -> Panel:
    latest = {p[key]: p for p in parts}  # the same size measured twice: the later one
    points = [latest[x] for x in sorted(latest)]
    least = [(p[key], p["floor_ms"]) for p in points if p.get("floor_ms")]
    return Panel(title, LABELS.get(key, key), [(p[key], 1e3 * p["median_s"]) for p in points], least)


def draw(report: dict[str, Any], path: Path) -> bool:
    """Writes the picture; False where the report has nothing to draw."""
    shown = [p for p in panels(report["parts"]) if p.measured]
    if not shown:
        return False
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new("RGB", (columns * WIDTH, rows * HEIGHT + 30), "white")
    pen = ImageDraw.Draw(sheet)
    note = (
        f"{report['device']}, torch {report['torch']}, revision {report['revision']}: median ms (blue), floor (orange)"
    )
    pen.text((12, 8), note, fill=TEXT, font=_font(13))
    for k, panel in enumerate(shown):
        _draw_panel(pen, panel, (k % columns) * WIDTH, 30 + (k // columns) * HEIGHT)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return True


def _draw_panel(pen: ImageDraw.ImageDraw, panel: Panel, left: int, top: int) -> None:
    both = panel.measured + panel.floor
    across = _range([x for x, _ in both])
    up = _decades([y for _, y in both])
    box = left + LEFT, top + TOP, left + WIDTH - RIGHT, top + HEIGHT - BELOW

    def at(x: float, y: float) -> tuple[float, float]:
        u = (math.log(x) - math.log(across[0])) / (math.log(across[1]) - math.log(across[0]))
        v = (math.log(y) - math.log(up[0])) / (math.log(up[1]) - math.log(up[0]))
        return box[0] + u * (box[2] - box[0]), box[3] - v * (box[3] - box[1])

    pen.text((left + LEFT, top + 22), panel.title, fill=TEXT, font=_font(15))
    for y in _powers(up):
        pen.line([at(across[0], y), at(across[1], y)], fill=GRID)
        pen.text((box[0] - 8, at(across[0], y)[1]), f"{y:g}", fill=TEXT, font=_font(12), anchor="rm")
    for x, _ in panel.measured:
        pen.line([at(x, up[0]), at(x, up[1])], fill=GRID)
        pen.text((at(x, up[0])[0], box[3] + 8), f"{x:g}", fill=TEXT, font=_font(12), anchor="ma")
    pen.text(((box[0] + box[2]) / 2, box[3] + 30), panel.label, fill=TEXT, font=_font(13), anchor="ma")
    pen.text((left + 14, box[1] - 20), "ms", fill=TEXT, font=_font(13))
    pen.rectangle(box, outline=(150, 150, 150))
    for points, colour in ((panel.floor, FLOOR), (panel.measured, MEASURED)):
        dots = [at(x, y) for x, y in points]
        if len(dots) > 1:
            pen.line(dots, fill=colour, width=2)
        for x, y in dots:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    for (x, y), (_, value) in zip([at(*p) for p in panel.measured], panel.measured, strict=True):
        pen.text((x, y - 8), f"{value:.3g}", fill=MEASURED, font=_font(12), anchor="mb")


def _range(values: list[float]) -> tuple[float, float]:
    """With a margin, and never empty."""
    return min(values) / 1.25, max(values) * 1.25


def _decades(values: list[float]) -> tuple[float, float]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(2 * max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _powers(limits: tuple[float, float]) -> list[float]:
    low, high = (round(math.log10(v)) for v in limits)
    return [10.0**k for k in range(low, high + 1)]


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
