"""Triangles to pixels on an NVIDIA GPU, through nvdiffrast (Laine et al. 2020). Optional: on no package registry."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.types import Fragments

INSTALL = "pip install git+https://github.com/NVlabs/nvdiffrast.git --no-build-isolation"


class NvdiffrastMeshRasterizer:
    """A `MeshRasterizer`. Draws both sides of every face; inputs and outputs live on the GPU.

    Raises:
        ImportError: nvdiffrast is not installed; the message has the command.
        RuntimeError: there is no CUDA device.
    """

    def __init__(self, device: str | torch.device = "cuda") -> None:
        try:
            import nvdiffrast.torch as dr
        except ImportError as error:
            raise ImportError(f"meshraster=nvdiffrast needs nvdiffrast: {INSTALL}\nor use meshraster=torch.") from error
        if not torch.cuda.is_available():
            raise RuntimeError("meshraster=nvdiffrast needs a CUDA device; use meshraster=cpu.")
        self._dr: Any = dr
        self._context = dr.RasterizeCudaContext(device=torch.device(device))

    def __call__(self, clip: Float[Tensor, "V P 4"], faces: Int[Tensor, "F 3"], size: tuple[int, int]) -> Fragments:
        if len(faces) == 0:  # which nvdiffrast refuses
            empty = clip.new_zeros(len(clip), *size, 7, dtype=torch.float32)
            return Fragments(empty[..., 0].int(), empty[..., 1:3], empty[..., 3:])
        out, derivatives = self._dr.rasterize(
            self._context, clip.float().contiguous(), faces.int().contiguous(), size, grad_db=False
        )
        return Fragments(out[..., 3].int(), out[..., :2], derivatives)

    def ranges(
        self, clip: Float[Tensor, "P 4"], faces: Int[Tensor, "F 3"], ranges: Int[Tensor, "V 2"], size: tuple[int, int]
    ) -> Fragments:
        """Many different meshes at once: view v draws faces[start : start + count] of (start, count) = ranges[v].

        `face_id` counts in the whole of `faces`. No derivatives of the barycentrics (`bary_dxy` is empty).
        """
        out, _ = self._dr.rasterize(
            self._context, clip.float().contiguous(), faces.int().contiguous(), size, ranges=ranges.int().cpu()
        )
        return Fragments(out[..., 3].int(), out[..., :2], out.new_zeros(*out.shape[:3], 0))
