"""Counter-based random numbers: the same seed, stream and step draw the same, on any device and after any resume."""

from __future__ import annotations

import zlib

import torch

_MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    """The finaliser of SplitMix64 (Steele et al. 2014): one 64-bit integer well mixed into another."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def key(seed: int, stream: str, step: int = 0) -> int:
    """The 63-bit number that belongs to (seed, stream, step)."""
    x = _mix(seed & _MASK)
    x = _mix(x ^ zlib.crc32(stream.encode()))
    return _mix(x ^ (step & _MASK)) >> 1


def generator(seed: int, stream: str, step: int = 0) -> torch.Generator:
    """A CPU generator for one purpose (`stream`) in one step. Draw on the CPU, then move: then devices agree.

    The generator starts from the counter alone and carries nothing over: a resumed run draws what the unbroken one did.
    """
    return torch.Generator().manual_seed(key(seed, stream, step))
