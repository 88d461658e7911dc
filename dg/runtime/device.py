"""Where the run computes: device, threads, and the rasterisers that fit."""

from __future__ import annotations

import importlib.util

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
    """nvdiffrast on a GPU where it is installed, the CPU rasteriser elsewhere."""
    found = resolve(device)
    if found.type == "cuda" and importlib.util.find_spec("nvdiffrast") is not None:
        from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer

        return NvdiffrastMeshRasterizer(found)
    from dg.meshraster.cpu import CpuMeshRasterizer

    return CpuMeshRasterizer()
