"""Runs compiled kernels on several threads that share one work counter.

Why not numba's prange: its OpenMP pool spins between regions and so steals the cores that torch's own pool needs, dies
in a forked child, and splits work evenly where tiles are uneven. Here a thread takes the next item when it is done with
the last; who computes an item never changes what is computed, so the results do not depend on the number of threads,
which is torch's (`torch.set_num_threads`, OMP_NUM_THREADS), at most MAX_THREADS.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

log = logging.getLogger(__name__)

# Sums may be reordered and fused so that loops vectorise; NaN and infinity keep their meaning.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
COMPILE_NOTICE_S = 1.5
MAX_THREADS = 16  # starting a thread's share costs some 20 microseconds of the caller's time

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()
_noticed = threading.Event()
_ready: set[int] = set()  # kernels that are compiled; they live as long as their modules


def _stamp() -> str:
    """Changes with any source that kernels are compiled from.

    Numba throws a cached kernel away when its own file changes, but not when a constant or a kernel that it uses from
    another file does. So the stamp becomes part of the kernels' names, under which they are cached.
    """
    here = Path(__file__).parent
    total = 0
    for path in (here.parent / "core" / "splat.py", *sorted(here.glob("_*.py"))):
        try:
            total = zlib.crc32(path.read_bytes(), total)
        except OSError:  # not a plain folder; then nothing is cached there either
            continue
    return f"{total:08x}"


STAMP = _stamp()


def compiled(**options: Any) -> Callable:
    """`numba.njit` without the interpreter lock, cached on disk where some folder can be written."""

    def decorate(function: Callable) -> Callable:
        function.__qualname__ = f"{function.__qualname__}_{STAMP}"
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
        except RuntimeError:  # no cache folder: read-only install and no home directory
            return numba.njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


@intrinsic
def take(typingctx, counter):
    """Atomically returns counter[0] and adds 1 to it (int64 array)."""
    if not (isinstance(counter, types.Array) and counter.dtype == types.int64):
        return None

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), codegen


def run(kernel: Callable, items: int, *args: Any) -> None:
    """Calls `kernel(counter, items, *args)` on every thread at once; the kernel takes items until none is left."""
    if items <= 0:
        return
    if id(kernel) not in _ready:
        _first_call(kernel, *args)
        _ready.add(id(kernel))
    counter = np.zeros(1, np.int64)
    threads = min(torch.get_num_threads(), MAX_THREADS, items)
    others = [_executor(threads - 1).submit(kernel, counter, items, *args) for _ in range(threads - 1)]
    kernel(counter, items, *args)
    for other in others:
        other.result()


def _first_call(kernel: Callable, *args: Any) -> None:
    """Compiles or loads on one thread, and says so if it takes a while (from the disk's cache it does not)."""

    def notice() -> None:
        if not _noticed.is_set():
            _noticed.set()
            log.warning("compiling the CPU rasteriser, once: some 10 s")

    timer = threading.Timer(COMPILE_NOTICE_S, notice)
    timer.daemon = True
    timer.start()
    try:
        kernel(np.zeros(1, np.int64), 0, *args)
    finally:
        timer.cancel()


def _executor(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < size:
            _pool, _pool_size = ThreadPoolExecutor(size, "dg-raster"), size
        return _pool


def _forget_pool() -> None:
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_pool)
