"""Compiled kernels without numba's own thread pool, which spins, steals torch's cores and dies in a forked child.

Kernels run on one thread and release the interpreter lock; callers give independent pieces to `side_by_side`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from numba import njit


def compiled(**options: Any) -> Callable:
    """`numba.njit` with division as numpy has it, cached on disk where some folder can be written."""

    def decorate(function: Callable) -> Callable:
        try:
            return njit(cache=True, nogil=True, error_model="numpy", **options)(function)
        except RuntimeError:  # no cache folder: read-only install and no home directory
            return njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


def side_by_side(work: Callable[[Any], None], pieces: Iterable[Any]) -> None:
    """Calls `work` on every piece, on as many threads as torch uses. Pieces must not write to the same memory."""
    pieces = list(pieces)
    threads = min(torch.get_num_threads(), len(pieces))
    if threads < 2:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, pieces):  # the loop raises what a thread raised
            pass
