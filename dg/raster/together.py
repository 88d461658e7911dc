"""Several groups of views of the same Gaussians in one step: the known view and the novel ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dg.raster.protocol import Rasterizer
from dg.types import Cameras, Gaussians, Render


@dataclass(frozen=True)
class View:
    """V cameras of one picture size, as `Rasterizer` takes them."""

    cameras: Cameras
    background: Float[Tensor, "3"] | Float[Tensor, "V 3"]
    absgrad: bool = False


def render_together(raster: Rasterizer, gaussians: Callable[[], Gaussians], views: Sequence[View]) -> list[Render]:
    """One render for each of `views`, in one call where the rasteriser can (`together`), else one after the other.

    Args:
        gaussians: makes them; asked once for each call, so that no graph of autograd is shared between two calls.
    """
    if hasattr(raster, "together"):
        return raster.together(gaussians(), views)
    options = [{"absgrad": True} if view.absgrad else {} for view in views]
    return [raster(gaussians(), view.cameras, view.background, **how) for view, how in zip(views, options, strict=True)]
