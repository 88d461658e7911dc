"""The text beside a picture: `NAME_caption.txt` belongs to `NAME_rgba.png`, as in DreamGaussian's data folder."""

from __future__ import annotations

from pathlib import Path

SUFFIX = "_rgba.png"


def caption_for(path: str | Path) -> str | None:
    """The caption of a picture, or None where its name does not end in `_rgba.png` or there is no caption.

    The original derives the name by replacement and, where nothing is replaced, opens the picture as text.

    Raises:
        ValueError: the caption file is not UTF-8 text.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        return None
    file = path.with_name(path.name.removesuffix(SUFFIX) + "_caption.txt")
    if not file.is_file():
        return None
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split()) or None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
