"""`silhouette`: the exact score of the input picture inflated into a solid.

It needs no training and works on any picture; its back shows the front's colours. The baseline that every learnt prior
has to beat.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dg.core.inflate import inflate
from dg.meshraster.protocol import MeshRasterizer
from dg.priors.oracle import MeshScore
from dg.types import Cameras, Mesh, Reference


class SilhouettePrior(MeshScore):
    """Args:
    max_depth: the solid is at most this many times as deep as the silhouette is wide or high, whichever is less.
    """

    def __init__(
        self,
        *,
        rasterizer: MeshRasterizer,
        max_depth: float = 1.0,
        ssaa: int = 2,
        image_size: int = 128,
        blur_px: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        unconditional_std: float | None = None,
    ) -> None:
        super().__init__(
            rasterizer=rasterizer,
            ssaa=ssaa,
            image_size=image_size,
            blur_px=blur_px,
            noise=noise,
            seed=seed,
            unconditional_std=unconditional_std,
        )
        self.max_depth = max_depth
        self._source: Reference | None = None

    def solid(self, reference: Reference | None) -> Mesh:
        """The inflated picture; computed once per reference."""
        if reference is None:
            raise ValueError("prior=silhouette needs input=PICTURE: it inflates that picture")
        if self._source is not reference:
            self.mesh = inflate(reference.rgba[0].cpu(), reference.cameras[:1].to("cpu"), max_depth=self.max_depth)
            self._source = reference
        return self.mesh

    def target(self, reference: Reference | None, cameras: Cameras, background: Tensor) -> Float[Tensor, "B 3 h w"]:
        self.solid(reference)
        return super().target(reference, cameras, background)
