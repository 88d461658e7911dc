"""Gaussians that start on the points of a file: what another method made of the picture or the prompt, or a scan."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.gaussians import BALL_RADIUS, RECENTRED_LENGTH, RawGaussians, framed_radius, from_points
from dg.core.surface_points import draw_on_surface
from dg.io.points import Points, read_points
from dg.meshraster.texture import sample
from dg.types import Mesh, Reference

LEAST = 4  # points: a Gaussian is as large as its three nearest are far
_GREY = 0.5


def point_cloud(
    generator: torch.Generator,
    reference: Reference | None = None,
    *,
    file: str,
    num_points: int | None = None,
    up: Literal["y", "z"] = "y",
    azimuth_deg: float = 0.0,
    fit: bool = True,
    grow: float = 0.01,
    grow_colour_noise: float = 0.2,
    opacity: float = 0.1,
    sh_degree: int = 0,
) -> RawGaussians:
    """One Gaussian per point, as large as its neighbours are far, in the point's colour (grey without one).

    Args:
        file: see `dg.io.points.read_points`; on a mesh `num_points` (or 5000) points are drawn, evenly by area.
        num_points: how many Gaussians; null takes the file's points. More points are thinned at random. Fewer are
            topped up as in GaussianDreamer (arXiv 2310.08529): at random within `grow` of random points, in their
            colours plus `grow_colour_noise` times U[0, 1).
        up: the file's axis that points up; z is turned by -90 degrees about x (Shap-E, Point-E and Blender).
        azimuth_deg: turns the object about the upright axis, until its front faces +z.
        fit: places the object as `placed` says; otherwise positions stay as in the file.
        grow: world units.

    Raises:
        FileNotFoundError, ValueError: the file cannot be used; one line that says why.
    """
    points = _of(read_points(file), num_points, generator)
    if len(points.xyz) < LEAST:
        raise ValueError(f"{file} holds {len(points.xyz)} points; at least {LEAST} are needed")
    xyz = turned_points(points.xyz, up, azimuth_deg)
    if fit:
        if not float((xyz.amax(0) - xyz.amin(0)).max()) > 0:
            raise ValueError(f"{file}: all of its points lie in one place")
        xyz = placed(xyz, reference)
    rgb = torch.full_like(xyz, _GREY) if points.rgb is None else points.rgb
    if num_points is not None:
        xyz, rgb = counted(xyz, rgb, num_points, generator, grow, grow_colour_noise)
    return from_points(xyz, rgb, opacity=opacity, sh_degree=sh_degree)


def _of(found: Points | Mesh, num_points: int | None, generator: torch.Generator) -> Points:
    if isinstance(found, Points):
        return found
    face, weights = draw_on_surface(found, num_points or 5000, generator)
    xyz = (weights[..., None] * found.vertices.double()[found.faces[face]]).sum(1).float()
    if found.texture is None:
        return Points(xyz, None)
    faces_uv = found.faces if found.faces_uv is None else found.faces_uv
    uv = (weights[..., None] * found.uv.double()[faces_uv[face]]).sum(1).float()
    return Points(xyz, sample(found.texture, uv[None, None])[0, 0])


def turned_points(xyz: Float[Tensor, "N 3"], up: Literal["y", "z"], azimuth_deg: float) -> Float[Tensor, "N 3"]:
    """To y up, then about y so that what faced azimuth 0 faces `azimuth_deg`."""
    x, y, z = xyz.unbind(-1)
    if up == "z":
        y, z = z, -y
    a = math.radians(azimuth_deg)
    return torch.stack([math.cos(a) * x + math.sin(a) * z, y, math.cos(a) * z - math.sin(a) * x], -1)


def placed(xyz: Float[Tensor, "N 3"], reference: Reference | None) -> Float[Tensor, "N 3"]:
    """Centred and scaled: the middle of the points' box comes to the origin.

    With a reference, the longer side of the box that the points fill in the reference's picture (without perspective)
    gets the length of the silhouette's longer side; without one, the farthest point lies at the radius of
    DreamGaussian's starting ball, 0.5.
    """
    centred = xyz - (xyz.amax(0) + xyz.amin(0)) / 2
    if reference is None:
        return centred * (BALL_RADIUS / centred.norm(dim=1).max())
    across = centred @ reference.cameras.c2w[0, :3, :2].to(centred)
    longest = float((across.amax(0) - across.amin(0)).max())
    wanted = framed_radius(reference) * RECENTRED_LENGTH / BALL_RADIUS
    return centred * (wanted / max(longest, 1e-12))


def counted(
    xyz: Float[Tensor, "N 3"],
    rgb: Float[Tensor, "N 3"],
    count: int,
    generator: torch.Generator,
    grow: float,
    colour_noise: float,
) -> tuple[Float[Tensor, "M 3"], Float[Tensor, "M 3"]]:
    """Exactly `count` points: thinned at random, or topped up within `grow` of random ones."""
    if len(xyz) >= count:
        keep = torch.randperm(len(xyz), generator=generator)[:count].sort().values
        return xyz[keep], rgb[keep]
    parent = torch.randint(len(xyz), (count - len(xyz),), generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(len(parent), 3, generator=generator), dim=-1)
    radius = grow * torch.rand(len(parent), 1, generator=generator) ** (1 / 3)  # uniform in a ball
    noise = colour_noise * torch.rand(len(parent), 3, generator=generator)
    added = xyz[parent] + radius * direction, (rgb[parent] + noise).clamp(0, 1)
    return torch.cat([xyz, added[0]]), torch.cat([rgb, added[1]])
