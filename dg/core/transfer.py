"""From the CPU to a GPU without waiting for it.

A plain copy from pageable memory stops the host until the GPU has caught up, which costs a step more than the copy: the
kernels of an eager network are launched ahead of the GPU, or not fast enough. On a CPU nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from dg.types import Cameras


def upload(value: Tensor, device: torch.device | str) -> Tensor:
    """`value.to(device)`; from a CPU to a GPU through pinned memory, queued behind the kernels launched so far.

    The allocator of pinned memory keeps the copy until the GPU has read it.
    """
    device = torch.device(device)
    if value.device.type != "cpu" or device.type != "cuda":
        return value.to(device)
    return value.detach().pin_memory().to(device, non_blocking=True)


def upload_cameras(cameras: Cameras, device: torch.device | str) -> Cameras:
    return replace(cameras, c2w=upload(cameras.c2w, device), K=upload(cameras.K, device))


def constant(values: Sequence[float], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A short tensor of numbers on the device and with the dtype of `like`, made once; not to be written to."""
    return _constant(tuple(values), dtype or like.dtype, like.device)


@lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return upload(torch.tensor(values, dtype=dtype), device)
