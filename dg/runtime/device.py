"""Where the run computes: device, threads, and the rasterisers that fit."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from dg.meshraster.protocol import MeshRasterizer
from dg.raster.protocol import Rasterizer
from dg.runtime.errors import UserError
from dg.runtime.logging import log


def resolve(device: str) -> torch.device:
    """auto is the GPU if there is one.

    Raises:
        UserError: a GPU is asked for and there is none, or the name means nothing.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"device={device} is not auto, cpu, cuda or cuda:N") from None
    if found.type == "cuda" and (not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()):
        raise UserError(
            f"device={device}: torch {torch.__version__} sees no such GPU here; use device=auto or device=cpu"
        )
    return found


def take_gpu(worker: int) -> None:
    """Several workers of one machine get its GPUs in turn: this process sees none but its own from now on.

    Without effect where it sees one GPU at most (a scheduler has assigned it), or has already begun to use one.
    """
    if torch.cuda.is_initialized():
        return
    count = torch.cuda.device_count()  # asks the driver's library, which does not begin to use anything
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[worker % count]


def same_gpu(device: str) -> Callable[[], None] | None:
    """What a new thread calls to work on the GPU of this one, since every thread has its own; None on a CPU."""
    if resolve(device).type != "cuda":
        return None
    current = torch.cuda.current_device()
    return lambda: torch.cuda.set_device(current)


def set_threads(threads: int | None) -> int:
    """Limits torch and numba alike; None leaves both as they are. Returns torch's number."""
    if threads is not None:
        import numba

        torch.set_num_threads(threads)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return torch.get_num_threads()


def rasterizer(device: str) -> Rasterizer:
    """gsplat on a GPU, or the slow reference where gsplat is not installed; the CPU kernel elsewhere."""
    if resolve(device).type == "cpu":
        from dg.raster.numba_cpu import NumbaRasterizer

        return NumbaRasterizer()
    from dg.raster.dense import DenseRasterizer
    from dg.raster.gsplat import GsplatRasterizer

    try:
        return GsplatRasterizer()
    except (ImportError, RuntimeError) as error:  # not installed, or without kernels and without a compiler
        reason = str(error).splitlines()[0]
        log.warning("splats are drawn by raster=dense, which is slow: %s", reason)
    return DenseRasterizer()


def mesh_rasterizer(device: str) -> MeshRasterizer:
    """nvdiffrast on a GPU, or plain torch where that is not installed or does not work; the CPU kernel elsewhere."""
    found = resolve(device)
    if found.type == "cpu":
        from dg.meshraster.cpu import CpuMeshRasterizer

        return CpuMeshRasterizer()
    from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer
    from dg.meshraster.torch_rows import TorchMeshRasterizer

    try:
        return NvdiffrastMeshRasterizer(found)
    except (ImportError, RuntimeError, OSError) as error:  # absent, or built for another torch
        log.info("meshes are drawn by meshraster=torch: %s", str(error).splitlines()[0])
    return TorchMeshRasterizer()
