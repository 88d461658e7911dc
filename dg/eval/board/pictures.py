"""Pictures inside the page: the views of one case as one strip, small and as a data URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

QUALITY = 82  # of WebP
BYTES_PER_VIEW = 3000  # what a view of 192 pixels takes at most, mostly; for planning only


@dataclass(frozen=True)
class Strip:
    """`views` square pictures side by side."""

    uri: str
    views: int


@dataclass(frozen=True)
class Plan:
    """How many views of how many pixels a strip holds, so that all of them stay within the budget."""

    views: int = 16
    side: int = 192

    @classmethod
    def within(cls, budget_mb: float, strips: int) -> Plan:
        views = int(budget_mb * 2**20 / BYTES_PER_VIEW / max(strips, 1))
        return cls(max(1, min(16, views)), 192 if views >= 1 else 96)


def strip(folder: Path, names: Sequence[str], plan: Plan) -> Strip | None:
    """The views, evenly chosen, each scaled down to fit a white square; None where none of the files can be read.

    Args:
        folder: what the names are relative to.
    """
    if not names:
        return None
    count = min(plan.views, len(names))
    chosen = [folder / names[i * len(names) // count] for i in range(count)]
    found = tuple((path, path.stat().st_mtime_ns) for path in chosen if path.is_file())
    return _strip(found, plan.side)


@lru_cache(maxsize=2048)
def _strip(found: tuple[tuple[Path, int], ...], side: int) -> Strip | None:
    """Kept, as boards are written again and again; a file that changed has another time."""
    tiles = [tile for tile in (_tile(path, side) for path, _ in found) if tile is not None]
    if not tiles:
        return None
    side = max(tile.width for tile in tiles)
    sheet = Image.new("RGB", (side * len(tiles), side), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i * side, 0))
    data = io.BytesIO()
    sheet.save(data, "WEBP", quality=QUALITY, method=4)
    return Strip("data:image/webp;base64," + base64.b64encode(data.getvalue()).decode(), len(tiles))


def _tile(path: Path, side: int) -> Image.Image | None:
    """A picture on white, in the middle of a square of `side` pixels, or of its own size if that is smaller."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGBA")
    except (OSError, UnidentifiedImageError):
        return None
    side = min(side, max(image.size))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.convert("RGB")
