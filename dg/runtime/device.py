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
    if _is_there("gsplat", "dg.raster.gsplat"):
        from dg.raster.gsplat import GsplatRasterizer

        return GsplatRasterizer()
    from dg.raster.dense import DenseRasterizer

    log.warning(
        "gsplat is not installed: splats are drawn by raster=dense, which is slow; `pip install gsplat` mends it"
    )
    return DenseRasterizer()


def mesh_rasterizer(device: str) -> MeshRasterizer:
    """nvdiffrast on a GPU where it is installed, the CPU rasteriser elsewhere."""
    found = resolve(device)
    if found.type == "cuda" and _is_there("nvdiffrast", "dg.meshraster.nvdiffrast"):
        from dg.meshraster.nvdiffrast import NvdiffrastMeshRasterizer

        return NvdiffrastMeshRasterizer(found)
    from dg.meshraster.cpu import CpuMeshRasterizer

    return CpuMeshRasterizer()


def _is_there(*modules: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in modules)
