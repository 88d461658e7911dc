"""What a method made, ready to be looked at: a mesh, splats or pictures, brought into our frame and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import orbit
from dg.core.gaussians import activate
from dg.eval.placement import Box, box, framed, resized, seen_through, turned, used
from dg.eval.protocol import Renders, Result
from dg.eval.truth import Truth
from dg.io.mesh import load_mesh
from dg.io.ply import read_ply
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours
from dg.raster.protocol import Rasterizer
from dg.types import Cameras, Gaussians, Mesh

Picture = tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W 1"] | None]  # rgb on the background, and alpha

STAGES = ("mesh", "coarse", "splats", "renders")


@dataclass(frozen=True)
class Subject:
    """Attributes:
    stage: "mesh", "splats" or "renders".
    draw: (cameras, grey value behind) -> pictures.
    given: pictures of the views, where there is nothing that could be drawn from elsewhere.
    """

    stage: str
    draw: Callable[[Cameras, float], Picture]
    mesh: Mesh | None = None
    path: Path | None = None
    given: Renders | None = None


def subject_of(result: Result, truth: Truth, raster: MeshRasterizer, splat_raster: Rasterizer | None) -> Subject:
    """The mesh if there is one, else the splats, else the pictures.

    Raises:
        ValueError, FileNotFoundError: the result is empty, damaged or absent, or has the wrong number of pictures.
    """
    if result.mesh is not None:
        return _of_mesh(result, truth, raster)
    if result.splats is not None:
        return _of_splats(result, truth, splat_raster)
    if result.renders is not None:
        return _of_renders(result.renders, truth)
    raise ValueError("the result holds neither a mesh nor splats nor renders")


def target_box(truth: Truth) -> Box | None:
    """Where results are brought to; None where they stay as they are.

    Without a truth that has a size it is the cube of side 1 around the origin.
    """
    if truth.protocol.normalise == "none":
        return None
    if truth.box is not None:
        return truth.box
    return None if truth.item.truth_views is not None else Box(torch.zeros(3), 1.0)


def _of_mesh(result: Result, truth: Truth, raster: MeshRasterizer) -> Subject:
    mesh = load_mesh(result.mesh)
    if result.axes is not None:
        mesh = turned(mesh, result.axes)
    target = target_box(truth)
    if target is not None:
        mesh = resized(mesh, target)
    ssaa = truth.protocol.views.ssaa

    def draw(cameras: Cameras, background: float) -> Picture:
        return render_colours(mesh, cameras, raster, torch.full((3,), background), ssaa=ssaa)

    return Subject("mesh", draw, mesh, result.mesh)


def _of_splats(result: Result, truth: Truth, raster: Rasterizer | None) -> Subject:
    if raster is None:
        raise ValueError(f"{result.splats}: splats need a rasteriser of Gaussians")
    gaussians = activate(read_ply(result.splats))
    axes = torch.eye(3) if result.axes is None else result.axes.float()
    shift = torch.zeros(3)
    target = target_box(truth)
    if target is not None:
        now = box(_solid(gaussians) @ axes.T)
        axes = axes * (target.longest / max(now.longest, 1e-12))
        shift = target.centre - now.centre * (target.longest / max(now.longest, 1e-12))

    def draw(cameras: Cameras, background: float) -> Picture:
        with torch.no_grad():
            seen = raster(gaussians, seen_through(cameras, axes, shift), torch.full((3,), background))
        return seen.rgb.clamp(0, 1), seen.alpha

    return Subject("splats", draw, path=result.splats)


def _solid(gaussians: Gaussians) -> Float[Tensor, "P 3"]:
    """Centres of what is at least half opaque: faint Gaussians float far around the object."""
    solid = gaussians.means[gaussians.opacities > 0.5]
    return solid if len(solid) > 1 else gaussians.means


def _of_renders(renders: Renders, truth: Truth) -> Subject:
    cameras = truth.cameras
    if len(renders.rgb) != len(cameras):
        raise ValueError(f"{len(renders.rgb)} renders, but the protocol has {len(cameras)} views")
    if not torch.isfinite(renders.rgb).all():
        raise ValueError("the renders hold values that are not finite")
    renders = Renders(*(None if x is None else _at_size(x, cameras) for x in (renders.rgb, renders.alpha)))

    def draw(wanted: Cameras, background: float) -> Picture:
        index = [_matching(cameras, one) for one in wanted.c2w]
        if None in index:
            raise LookupError("there are only pictures, and none from there")
        rgb, alpha = renders.rgb[index], None if renders.alpha is None else renders.alpha[index]
        behind = truth.protocol.views.background
        if background != behind:
            if alpha is None:
                raise LookupError("the pictures have another background and no alpha")
            rgb = (rgb + (1 - alpha) * (background - behind)).clamp(0, 1)
        size = replace(cameras, width=wanted.width, height=wanted.height)
        return _at_size(rgb, size), None if alpha is None else _at_size(alpha, size)

    return Subject("renders", draw, given=renders)


def _at_size(pictures: Float[Tensor, "V H W C"], cameras: Cameras) -> Float[Tensor, "V h w C"]:
    if pictures.shape[1:3] == (cameras.height, cameras.width):
        return pictures
    return torch.nn.functional.interpolate(
        pictures.movedim(-1, 1), (cameras.height, cameras.width), mode="bilinear", antialias=True
    ).movedim(1, -1)


def _matching(cameras: Cameras, c2w: Float[Tensor, "4 4"]) -> int | None:
    """The view that looks the same way, to within two degrees; distances may differ with the lens."""
    cosine = cameras.c2w[:, :3, 2] @ c2w[:3, 2]
    best = int(cosine.argmax())
    return best if float(cosine[best]) > 0.99939 else None


def front_camera(truth: Truth, mesh: Mesh | None) -> Cameras:
    """Whence the input was taken. Where framing and size are free on both sides, the object fills the picture as it
    does in the recentred input."""
    camera = truth.input_camera(truth.protocol.views.size)
    free = truth.protocol.normalise == "extent" and truth.item.recenter and mesh is not None
    return framed(used(mesh), camera) if free else camera


def front_and_back(truth: Truth) -> Cameras:
    """Level views of the front and the back, from as far away as the input's."""
    item, size = truth.item, truth.protocol.views.size
    target = truth.shift.tolist()
    return orbit(0.0, [0.0, 180.0], item.radius, fovy_deg=item.fovy_deg, height=size, target=target)
