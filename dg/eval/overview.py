"""overview.png: what went in and what came out from four sides. One look tells whether a run worked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_MARGIN = 8
_INK, _FAINT, _LINE = (30, 30, 30), (110, 110, 110), (200, 200, 200)


@dataclass(frozen=True)
class Row:
    """One line of the grid: a label, a fact below it, and one picture [H W 3] per column."""

    label: str
    fact: str
    pictures: Sequence[Float[Tensor, "H W 3"]]


def overview(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    source: Float[Tensor, "h w 3"] | None = None,
    tile: int = 256,
) -> Float[Tensor, "H W 3"]:
    """The labelled grid: the source at the left, then a row of `len(columns)` pictures for each of `rows`.

    Args:
        title: a line across the top.
        source: the input picture; without one the grid begins with the rows.
        tile: side of one square cell in pixels; pictures are scaled to fit it.
    """
    text, small = ImageFont.load_default(max(11, tile // 14)), ImageFont.load_default(max(10, tile // 18))
    line = int(max(11, tile // 14) * 1.5)
    lead = tile + _MARGIN if source is not None else 0
    head = 2 * line + _MARGIN
    step = tile + 2 * line + _MARGIN
    width = _MARGIN + lead + len(columns) * (tile + _MARGIN)
    height = head + max(len(rows), 1) * step
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), _fitted(title, text, width - 2 * _MARGIN), fill=_INK, font=text)
    if source is not None:
        draw.text((_MARGIN, head), "input", fill=_INK, font=text)
        _paste(sheet, draw, source, _MARGIN, head + 2 * line, tile)
    for i, row in enumerate(rows):
        top = head + i * step
        for j, (name, picture) in enumerate(zip(columns, row.pictures, strict=True)):
            left = _MARGIN + lead + j * (tile + _MARGIN)
            if j == 0:
                name = f" · {name}"
                name = _fitted(row.label, text, tile - text.getlength(name)) + name
            draw.text((left, top), name, fill=_INK, font=text)
            if j == 0:
                draw.text((left, top + line), row.fact, fill=_FAINT, font=small)
            _paste(sheet, draw, picture, left, top + 2 * line, tile)
    return torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Tensor, left: int, top: int, tile: int) -> None:
    image = Image.fromarray((picture.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    scale = tile / max(image.size)
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    sheet.paste(image, (left + (tile - image.width) // 2, top + (tile - image.height) // 2))
    draw.rectangle((left, top, left + tile - 1, top + tile - 1), outline=_LINE)
