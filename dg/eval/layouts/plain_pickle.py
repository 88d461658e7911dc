"""Numbers out of a pickle without running what it says: only NumPy arrays and plain containers are let through."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _NumbersOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module in _MODULES and name == "_reconstruct":
            return _reconstruct
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What NumPy's own function of that name does for arrays: an empty one that the state then fills."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it holds something else than plain arrays")
    return np.ndarray.__new__(np.ndarray, shape, "b")


def read_numbers(path: Path) -> Any:
    """Lists, tuples, numbers, text and NumPy arrays of a pickle.

    Raises:
        ValueError: it is damaged or asks for anything else, which is refused, not run.
    """
    try:
        with path.open("rb") as file:
            return _NumbersOnly(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: is no pickle of plain numbers and arrays ({error}); it was not run") from None
