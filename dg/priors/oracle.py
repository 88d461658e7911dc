"""`oracle`: the exact score of a known mesh, seen from the asked view on the asked background.

The upper bound of every table, and with `silhouette` the way to test the whole pipeline without weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dg.data.known import known_mesh
from dg.meshraster.mips import mip_levels
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours
from dg.priors.exact import ExactScore
from dg.types import Cameras, Mesh, Reference


class MeshScore(ExactScore):
    """The exact score of `mesh`."""

    def __init__(
        self,
        *,
        rasterizer: MeshRasterizer,
        mesh: Mesh | None = None,
        ssaa: int = 2,
        image_size: int = 128,
        blur_px: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        unconditional_std: float | None = None,
    ) -> None:
        super().__init__(
            image_size=image_size, blur_px=blur_px, noise=noise, seed=seed, unconditional_std=unconditional_std
        )
        self.rasterizer = rasterizer
        self.ssaa = ssaa
        self.mesh = mesh
        self._levels: list[Tensor] | None = None

    def target(self, reference: Reference | None, cameras: Cameras, background: Tensor) -> Float[Tensor, "B 3 h w"]:
        if self.mesh.vertices.device != cameras.c2w.device:
            self.mesh = self.mesh.to(cameras.c2w.device)
        with torch.no_grad():
            views = cameras.resized(self.image_size, self.image_size)
            rgb, _ = render_colours(self.mesh, views, self.rasterizer, background, ssaa=self.ssaa, mips=self._mips())
        return rgb.permute(0, 3, 1, 2)

    def _mips(self) -> list[Tensor] | None:
        """The texture's mip levels, kept as long as the mesh stays the same."""
        if self.mesh.texture is None:
            return None
        if self._levels is None or self._levels[0] is not self.mesh.texture:
            self._levels = mip_levels(self.mesh.texture)
        return self._levels


class OraclePrior(MeshScore):
    """Args:
    mesh: the true object, a file or `object:NAME` (`dg.data.known`), standing as the reference shows it (front at +z,
        y up, world units).
    """

    knows_object = True  # whatever the reference: it can tell where a picture was seen from

    def __init__(
        self,
        *,
        mesh: str | Path,
        rasterizer: MeshRasterizer,
        ssaa: int = 2,
        image_size: int = 128,
        blur_px: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        unconditional_std: float | None = None,
    ) -> None:
        super().__init__(
            rasterizer=rasterizer,
            mesh=known_mesh(mesh),
            ssaa=ssaa,
            image_size=image_size,
            blur_px=blur_px,
            noise=noise,
            seed=seed,
            unconditional_std=unconditional_std,
        )
