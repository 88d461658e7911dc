"""One picture that shows what preparing did: input, result on white, result on a checkerboard, a row per file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dg.data.decode import read_picture

CELL, GAP, LABEL = 192, 8, 20  # pixels
COLUMNS = ("input", "on white", "on checkerboard")
ROWS_AT_MOST = 200  # a sheet beyond this opens in no viewer


def checkerboard(size: int, square: int = 16) -> Float[ndarray, "S S 3"]:
    y, x = np.mgrid[0:size, 0:size] // square
    return np.repeat(np.where((x + y) % 2, 0.55, 0.8)[..., None], 3, -1)


def on(rgba: Image.Image, background: Float[ndarray, "S S 3"]) -> Image.Image:
    """A picture with alpha, scaled into a cell, over a background."""
    size = len(background)
    small = ImageOps.contain(rgba.convert("RGBA"), (size, size), Image.Resampling.BOX)
    base = Image.fromarray(np.round(background * 255).astype(np.uint8))
    base.paste(small, ((size - small.width) // 2, (size - small.height) // 2), small)
    return base


def thumbnail(path: Path, size: int = CELL) -> Image.Image:
    """The input as a viewer shows it: transparency over white."""
    return on(Image.fromarray(read_picture(path, enough_px=2 * size)), np.ones((size, size, 3)))


def contact_sheet(pairs: list[tuple[Path, Path]]) -> Image.Image:
    """A labelled row for each (input, result) of the first 200; results are files with alpha."""
    pairs = pairs[:ROWS_AT_MOST]
    font = ImageFont.load_default(13)
    width = len(COLUMNS) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, LABEL + len(pairs) * (CELL + GAP + LABEL)), (245, 245, 245))
    draw = ImageDraw.Draw(sheet)
    for i, title in enumerate(COLUMNS):
        draw.text((GAP + i * (CELL + GAP), 2), title, (90, 90, 90), font)
    for row, (source, result) in enumerate(pairs):
        top = LABEL + row * (CELL + GAP + LABEL)
        with Image.open(result) as image:
            rgba = image.convert("RGBA")
        cells = (thumbnail(source), on(rgba, np.ones((CELL, CELL, 3))), on(rgba, checkerboard(CELL)))
        for i, cell in enumerate(cells):
            sheet.paste(cell, (GAP + i * (CELL + GAP), top))
        draw.text((GAP, top + CELL + 3), f"{source.name} -> {result.name}", (20, 20, 20), font)
    return sheet
