"""From Gaussians to a closed, textured mesh. A plain function; nothing here is learnt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.backproject import backproject, bake_views, straight_colours
from dg.core.camera import clip_from_world, spherical
from dg.core.carve import hull_distance, seen_empty, solid_field
from dg.core.clean import decimate, merge_close_vertices, remove_small_components, taubin_smooth, topology
from dg.core.density import Grid, density_grid
from dg.core.levelchoice import choose_level, max_along_rays
from dg.core.manifold import part_copies
from dg.core.meshes import signed_volume
from dg.core.surface import fill_cavities, marching_cubes
from dg.core.uv import unwrap
from dg.meshraster.protocol import MeshRasterizer
from dg.raster.protocol import Rasterizer
from dg.stages.mesh_options import MeshOptions, MeshReport
from dg.types import Cameras, Fragments, Gaussians, Mesh, Reference

__all__ = ["MeshOptions", "MeshReport", "extract"]

log = logging.getLogger(__name__)

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_LEVEL_VIEWS = 12
_LEVEL_SIZE = 160
_CARVE_SIZE = 256  # contours are found to a quarter of a pixel; more pixels change nothing and cost time
_REFERENCE_IOU = 0.85  # a reference that agrees less would smear over the wrong parts
_REFERENCE_PRIORITY = 3e4  # against sharpness 8 and a preferred front it wins at angles of less than some 65 degrees


class _Clock:
    """Seconds per step; tells the caller which one begins."""

    def __init__(self, progress: Callable[[str], None] | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(step)
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 3)


def extract(
    gaussians: Gaussians,
    raster: Rasterizer,
    mesh_raster: MeshRasterizer,
    options: MeshOptions | None = None,
    *,
    reference: Reference | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Mesh, MeshReport]:
    """The textured mesh (on the CPU) and what there is to say about it.

    Args:
        gaussians: on the device where `raster` works; `mesh_raster` gets its inputs there too.
        reference: the input picture; used if `options.bake_reference`.
        progress: called with the name of each step when it begins.

    Raises:
        ValueError: if there is no surface; the message says how dense and opaque the Gaussians are.
    """
    options = options or MeshOptions()
    clock = _Clock(progress)
    gaussians = Gaussians(*(x.detach() for x in vars(gaussians).values()))
    device = gaussians.means.device
    if len(gaussians) == 0:
        raise ValueError("there are no Gaussians to make a mesh of")

    def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Fragments:
        found = mesh_raster(clip.to(device), faces.to(device), size)
        return Fragments(found.face_id.cpu(), found.bary.cpu(), found.bary_dxy.cpu())

    cameras = bake_views(options.radius, options.fovy_deg, options.render_size)
    with clock("render"):
        rgb, alpha, depth = _pictures(gaussians, raster, cameras)
    with clock("density"):
        grid = density_grid(gaussians, options.resolution, culling=options.culling)
    with clock("level"):
        level, iou, density = _level(grid, alpha, cameras, options)
    with clock("surface"):
        surface = _surface(grid, level, alpha, depth, cameras, options)
    with clock("clean"):
        mesh = _cleaned(surface, options)
    with clock("unwrap"):
        mesh = unwrap(mesh, resolution=options.texture_size)
    with clock("bake"):
        views = rgb, alpha, cameras, _priority(cameras, options)
        if options.bake_reference and reference is not None:
            views = _with_reference(mesh, *views, reference, rasterize)
        rgb, opacity, seen_from, priority = views
        baked = backproject(
            mesh, rgb, opacity, seen_from, rasterize, size=options.texture_size, options=options.bake, priority=priority
        )
        mesh = replace(mesh, texture=baked.texture)
    with clock("check"):
        small, seen, _ = _shrunk(cameras, alpha, depth, _CARVE_SIZE)
        pick = list(range(0, len(cameras), 2))
        silhouette = _silhouette_iou(mesh, seen[pick], small[pick], rasterize)
        shape = topology(mesh)
    report = MeshReport(
        level=level,
        level_iou=iou,
        silhouette_iou=silhouette,
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        components=shape.components,
        closed=shape.closed,
        volume=float(signed_volume(mesh.vertices.double(), mesh.faces)),
        texels_seen=baked.share_seen,
        density=density,
        seconds=clock.seconds,
    )
    return mesh, report


@torch.no_grad()
def _pictures(
    gaussians: Gaussians, raster: Rasterizer, cameras: Cameras
) -> tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W"], Float[Tensor, "V H W"]]:
    """Straight colours, alpha and the surface's depth, on the CPU; one view at a time to bound the memory."""
    device = gaussians.means.device
    white = torch.ones(3, device=device)
    views = []
    for v in range(len(cameras)):
        render = raster(gaussians, cameras[[v]].to(device), white)
        views.append([x.detach().float().cpu() for x in (render.rgb, render.alpha[..., 0], render.depth[..., 0])])
    rgb, alpha, depth = (torch.cat(x) for x in zip(*views, strict=True))
    return straight_colours(rgb, alpha), alpha, depth / alpha.clamp_min(1e-6)


def _level(
    grid: Grid, alpha: Float[Tensor, "V H W"], cameras: Cameras, options: MeshOptions
) -> tuple[float, float, dict[str, float]]:
    """(level, soft IoU, quantiles of the density). A fixed level above the whole field is lowered, with a warning."""
    pick = list(range(0, len(cameras), -(-len(cameras) // _LEVEL_VIEWS)))
    side = min(_LEVEL_SIZE, options.render_size)
    small = F.interpolate(alpha[pick][:, None], (side, side), mode="area")[:, 0]
    peak = max_along_rays(grid, cameras[pick].resized(side, side))
    choice = choose_level(peak, small)
    met = peak[small >= 0.5].double()
    marks = torch.tensor(_QUANTILES, dtype=torch.float64)
    density = {f"q{100 * q:g}": float(x) for q, x in zip(_QUANTILES, met.quantile(marks), strict=True)}
    if options.level == "auto":
        return choice.level, choice.iou, density
    level = float(options.level)
    if level >= float(grid.values.max()):
        log.warning(
            "mesh.level=%g is above the density's peak %.3g; using %.3g, where the silhouettes agree best",
            level,
            float(grid.values.max()),
            choice.level,
        )
        return choice.level, choice.iou, density
    return level, float(choice.ious[(choice.levels.log() - torch.tensor(level).log()).abs().argmin()]), density


def _surface(grid: Grid, level: float, alpha: Tensor, depth: Tensor, cameras: Cameras, options: MeshOptions) -> Mesh:
    def filled(values: Tensor, at: float) -> Tensor:
        return fill_cavities(values, at, options.fill_leak) if options.fill else values

    if not options.carve:
        return marching_cubes(replace(grid, values=filled(grid.values, level)), level)
    cameras, alpha, depth = _shrunk(cameras, alpha, depth, _CARVE_SIZE)
    level = options.carve_level * level
    hull = hull_distance(grid, alpha, cameras, level=options.carve_alpha, votes=options.carve_votes)
    empty = seen_empty(grid, depth, alpha, cameras, margin=0.0, level=options.carve_alpha)
    # First the cavities: views through a porous wall see parts of the inside as empty, and would break it up.
    solid = solid_field(replace(grid, values=filled(grid.values, level)), level, hull, empty, votes=options.carve_votes)
    return marching_cubes(replace(grid, values=filled(solid, 0.0)), 0.0)


def _shrunk(
    cameras: Cameras, alpha: Tensor, depth: Tensor, size: int
) -> tuple[Cameras, Float[Tensor, "V h w"], Float[Tensor, "V h w"]]:
    """The same views at no more than `size` pixels; depth is averaged with alpha as its weight."""
    if cameras.height <= size:
        return cameras, alpha, depth
    both = torch.stack([alpha, alpha * depth], 1)
    both = F.interpolate(both, (size, size), mode="area")
    return cameras.resized(size, size), both[:, 0], both[:, 1] / both[:, 0].clamp_min(1e-6)


def _cleaned(mesh: Mesh, options: MeshOptions) -> Mesh:
    if options.merge > 0:
        diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
        mesh = merge_close_vertices(mesh, options.merge * diagonal)
    mesh = remove_small_components(
        mesh,
        min_volume=options.min_component_volume,
        min_diameter=options.min_component_diameter,
        min_faces=options.min_component_faces,
    )
    mesh = decimate(taubin_smooth(mesh, options.smooth), options.max_faces)
    # collapses can pinch thin bridges off
    return part_copies(remove_small_components(mesh, min_volume=options.min_component_volume))


def _priority(cameras: Cameras, options: MeshOptions) -> Float[Tensor, " V"]:
    """Factors on the views' weights in the texture; views are `bake_views`'s."""
    level = spherical(cameras)[0].abs() < 1
    priority = torch.where(level, options.prefer_level, 1.0)
    priority[0] *= options.prefer_front
    return priority


def _with_reference(
    mesh: Mesh,
    rgb: Tensor,
    alpha: Tensor,
    cameras: Cameras,
    priority: Float[Tensor, " V"],
    reference: Reference,
    rasterize: Callable[[Tensor, Tensor, tuple[int, int]], Fragments],
) -> tuple[Tensor, Tensor, Cameras, Tensor]:
    """The baked views with the reference's in front of them, unless it does not fit the mesh."""
    size = cameras.height
    rgba = reference.rgba.detach().cpu().float().permute(0, 3, 1, 2)
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    premultiplied = F.interpolate(premultiplied, (size, size), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    mask = premultiplied[..., 3]
    views = reference.cameras.to("cpu").resized(size, size)
    iou = _silhouette_iou(mesh, mask, views, rasterize)
    if iou < _REFERENCE_IOU:
        log.warning("the reference is not baked: its silhouette and the mesh's agree only to an IoU of %.2f", iou)
        return rgb, alpha, cameras, priority
    colours = (premultiplied[..., :3] / mask[..., None].clamp_min(1e-3)).clamp(0, 1)
    both = replace(cameras, c2w=torch.cat([views.c2w, cameras.c2w]), K=torch.cat([views.K, cameras.K]))
    priority = torch.cat([torch.full((len(views),), _REFERENCE_PRIORITY), priority])
    return torch.cat([colours, rgb]), torch.cat([mask, alpha]), both, priority


def _silhouette_iou(
    mesh: Mesh,
    alpha: Float[Tensor, "V H W"],
    cameras: Cameras,
    rasterize: Callable[[Tensor, Tensor, tuple[int, int]], Fragments],
) -> float:
    """IoU of the mesh's silhouettes with alpha >= 0.5, over all views together."""
    both = either = 0
    for v in range(len(cameras)):
        camera = cameras[[v]]
        inside = (
            rasterize(clip_from_world(mesh.vertices, camera), mesh.faces, (camera.height, camera.width)).face_id > 0
        )
        both += int((inside[0] & (alpha[v] >= 0.5)).sum())
        either += int((inside[0] | (alpha[v] >= 0.5)).sum())
    return both / max(either, 1)
