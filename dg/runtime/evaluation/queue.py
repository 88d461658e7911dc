"""Many workers, one list of cases: a case belongs to whoever holds its lock, and is done once its records are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dg.io.lock import try_lock

MAX_DEATHS = 3  # a case that ended this many processes (memory?) is a failure


@dataclass(frozen=True)
class Claim:
    """Attributes:
    index: of the case in the list.
    deaths: how many processes ended without a word while they worked at it.
    """

    index: int
    deaths: int


def claims(keys: Sequence[str], folder: Path, is_done: Callable[[str], bool]) -> Iterator[Claim]:
    """Yields, one at a time, the cases that are neither done nor in another worker's hands, until none is left.

    A case that another worker gave up (its process ended) comes round again. The lock is held until the caller asks for
    the next one.

    Args:
        keys: one per case.
        folder: where the locks lie; shared by all workers.
        is_done: asked anew under the lock, since another worker may just have finished.
    """
    while True:
        worked = False
        for index, key in enumerate(keys):
            if is_done(key):
                continue
            with try_lock(folder / f"{key}.lock") as mine:
                if not mine or is_done(key):
                    continue
                worked = True
                with _begun(folder / f"{key}.begun") as deaths:
                    yield Claim(index, deaths)
        if not worked:
            return


@contextmanager
def _begun(path: Path) -> Iterator[int]:
    """Leaves a mark that only a process which ends without a word leaves behind; yields how many there are already."""
    deaths = len(path.read_text().splitlines()) if path.is_file() else 0
    with path.open("a") as file:
        file.write("begun\n")
    try:
        yield deaths
    except BaseException:  # an error or Ctrl-C: no silent death
        path.write_text("begun\n" * deaths)
        raise
    path.unlink(missing_ok=True)
