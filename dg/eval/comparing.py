"""Which scores may be compared: those whose protocols have one content (`Protocol.content`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dg.eval.protocol import content_hash


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs between the contents of two protocols, one line each; [] if their scores may be compared."""
    found = []
    for key in sorted(set(a) | set(b)):
        x, y = a.get(key), b.get(key)
        if x == y:
            continue
        if isinstance(x, dict) and isinstance(y, dict):
            found += [f"{key}.{line}" for line in differences(x, y)]
        elif key == "objects":
            found.append(_different_objects(x or [], y or []))
        else:
            found.append(f"{key}: {_short(x)} against {_short(y)}")
    return found


def _different_objects(x: list[Any], y: list[Any]) -> str:
    named = [{o if isinstance(o, str) else o["name"]: o for o in objects} for objects in (x, y)]
    lost, extra = sorted(set(named[0]) - set(named[1])), sorted(set(named[1]) - set(named[0]))
    if lost or extra:
        return f"objects: only here {_short(lost)}, only there {_short(extra)}"
    changed = [name for name in named[0] if named[0][name] != named[1][name]]
    return f"objects: other files or settings of {_short(changed)}" if changed else "objects: in another order"


def _short(value: Any, limit: int = 80) -> str:
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def refuse(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Stands between scores of two protocols (`Protocol.content`) that must not be compared.

    Raises:
        ValueError: they differ; names what does.
    """
    if content_hash(a) == content_hash(b):
        return
    what = "; ".join(differences(a, b))
    names = f"{a.get('name')} {content_hash(a)} and {b.get('name')} {content_hash(b)}"
    raise ValueError(f"scores of {names} must not be compared, their protocols differ: {what}")
