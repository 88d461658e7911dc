"""Compiled loops over slabs of work on a few threads, without numba's own thread pool.

That pool spins between regions, steals the cores that torch's needs, and dies in a forked child. Here a kernel works on
items first..last - 1 of its output and nothing else, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import torch


def compiled(function: Callable) -> Callable:
    """`numba.njit` that lets go of the interpreter lock, cached on disk where some folder can be written."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no cache folder: read-only install and no home directory
        return numba.njit(nogil=True, error_model="numpy")(function)


def in_slabs(kernel: Callable, items: int, *args: Any) -> None:
    """Calls kernel(first, last, *args) on ranges that together cover 0..items - 1, on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), items)
    if threads < 2:
        kernel(0, items, *args)
        return
    size = max(1, items // (8 * threads))  # small enough to even out, large enough to be worth a call
    kernel(0, 0, *args)  # compiles on one thread
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda first: kernel(first, min(first + size, items), *args), range(0, items, size)):
            pass  # the loop raises what a thread raised


def batched(device: torch.device) -> bool:
    """Whether what `device` holds is worked on there by torch in large batches, rather than here by compiled loops."""
    return device.type == "cuda"
