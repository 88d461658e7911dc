"""What the readers say when something is not there or not what it should be: one line with the mend."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def given_folder(root: str | Path | None, key: str, what: str, origin: str) -> Path:
    """The folder that the user gave, checked.

    Args:
        key: the option that gives it, for the message.
        what: what should lie there; `origin`: where to get it.

    Raises:
        FileNotFoundError: none was given, or it is not there.
    """
    if root is None or str(root) == "":
        raise FileNotFoundError(f"give {key}=DIR, a folder with {what} ({origin})")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{key}={path}: there is no such folder; it should hold {what} ({origin})")
    return path


def one_of(candidates: Iterable[Path], what: str, origin: str) -> Path:
    """The first path that exists.

    Raises:
        FileNotFoundError: none does; names them all.
    """
    tried = list(candidates)
    for path in tried:
        if path.exists():
            return path
    raise FileNotFoundError(f"{what} is missing: there is no {' or '.join(map(str, tried))} ({origin})")


def all_there(paths: Iterable[Path], what: str, origin: str) -> tuple[Path, ...]:
    """Every path, checked.

    Raises:
        FileNotFoundError: names the first that is missing and how many are.
    """
    paths = tuple(paths)
    missing = [p for p in paths if not p.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{what}: {missing[0]}{more} missing ({origin})")
    return paths
