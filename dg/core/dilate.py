"""Filling the texels that no view gave a colour."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from dg.core.dilate_torch import nearest_known, nearest_points
from dg.core.gather_torch import eroded
from dg.core.slabs import batched


def dilate(
    texture: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w"],
    *,
    iterations: int = 32,
    rim: int = 3,
    rest: str = "nearest",
) -> Float[Tensor, "h w 3"]:
    """Copies the nearest known texel into every texel within `iterations` steps (4-connected) of the known ones.

    Args:
        mask: the texels that are known.
        rim: only known texels within so many steps of the unknown are looked at, which keeps the search small.
        rest: what lies farther away: "nearest" known texel too, "mean" colour of all, or "keep" (the release).

    An empty mask gives mid-grey ("keep": the texture as it is).
    """
    if rest not in ("nearest", "mean", "keep"):
        raise ValueError(f"rest is 'nearest', 'mean' or 'keep', not {rest!r}")
    if not mask.any():
        return texture if rest == "keep" else torch.full_like(texture, 0.5)
    if batched(texture.device):
        return _dilate_batched(texture, mask, iterations, rest)
    known = mask.detach().cpu().numpy()
    values = texture.detach().cpu().numpy().copy()
    near = ndimage.binary_dilation(known, iterations=iterations) if iterations > 0 else known
    if rest == "mean":
        values[~near] = values[known].mean(0)
    target = ~known if rest == "nearest" else near & ~known
    if target.any():
        # The border of the picture is no rim: outside of it nothing is unknown.
        source = known & ~ndimage.binary_erosion(known, iterations=rim, border_value=1) if rim > 0 else known
        rows, columns = np.nonzero(source)
        _, index = cKDTree(np.stack([rows, columns], 1)).query(np.argwhere(target))
        values[target] = values[rows[index], columns[index]]
    return torch.from_numpy(values).to(texture)


def _dilate_batched(
    texture: Float[Tensor, "h w 3"], known: Bool[Tensor, "h w"], iterations: int, rest: str
) -> Float[Tensor, "h w 3"]:
    near = ~eroded(~known, iterations)
    if rest == "mean":
        texture = torch.where(near[..., None], texture, texture[known].mean(0))
    target = ~known if rest == "nearest" else near & ~known
    copied = texture.flatten(0, 1)[nearest_known(known)]
    return torch.where(target[..., None], copied, texture)


def fill_from_surface(
    texture: Float[Tensor, "h w 3"],
    known: Bool[Tensor, "h w"],
    surface: Bool[Tensor, "h w"],
    points: Float[Tensor, "h w 3"],
    *,
    neighbours: int = 4,
    sources: int = 100_000,
) -> Float[Tensor, "h w 3"]:
    """Gives texels on the surface that are not known the mean of those known texels that are nearest in space.

    In the texture the nearest known texel may belong to another part of the object; in space it is around the corner.

    Args:
        surface: the texels inside charts; `points` holds their positions.
        sources: about so many known texels are searched (every k-th of them).
    """
    source, target = known & surface, surface & ~known
    if not source.any() or not target.any():
        return texture
    index = source.flatten().nonzero()[:, 0]
    index = index[:: max(1, len(index) // sources)]
    k = min(neighbours, len(index))
    if batched(texture.device):
        distance, nearest = nearest_points(points[target].float(), points.flatten(0, 1)[index].float(), k)
    else:
        tree = cKDTree(points.flatten(0, 1)[index].double().numpy())
        found = tree.query(points[target].double().numpy(), k=k)
        distance, nearest = (torch.from_numpy(x.reshape(-1, k)) for x in found)
    weight = (1 / (distance + 1e-6)).to(texture)[..., None]
    colours = texture.flatten(0, 1)[index[nearest]]
    out = texture.clone()
    out[target] = (colours * weight).sum(1) / weight.sum(1)
    return out
