"""What a message adds about a word that is none of the valid ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str], limit: int = 30) -> str:
    """'; did you mean X?', or what is valid, in the given order, if that is short; ready to be appended."""
    valid = list(dict.fromkeys(map(str, valid)))
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f" (valid: {', '.join(valid)})" if 0 < len(valid) <= limit else ""
