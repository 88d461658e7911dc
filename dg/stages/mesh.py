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
from dg.core.clean import decimate, merge_close_vertices, remove_small_components, taubin_smooth, topology
from dg.core.density import density_grid
from dg.core.manifold import part_copies
from dg.core.meshes import signed_volume
from dg.core.uv import unwrap
from dg.meshraster.protocol import MeshRasterizer
from dg.raster.protocol import Rasterizer
from dg.stages.mesh_density import CARVE_SIZE, carved_surface, chosen_level, shrunk
from dg.stages.mesh_options import MeshOptions, MeshReport
from dg.stages.mesh_tsdf import fused_surface
from dg.types import Cameras, Gaussians, Mesh, Reference

__all__ = ["MeshOptions", "MeshReport", "extract"]

log = logging.getLogger(__name__)

_GPU_VIEWS_AT_ONCE = 8
_REFERENCE_IOU = 0.85  # a reference that agrees less would smear over the wrong parts
_REFERENCE_PRIORITY = 3e4  # against sharpness 8 and a preferred front it wins at angles of less than some 65 degrees


class _Clock:
    """Seconds per step; tells the caller which one begins."""

    def __init__(self, progress: Callable[[str], None] | None, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._progress, self._device = progress, device

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(step)
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
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

    Where the Gaussians are on a GPU, pictures, lattice and texture stay there from beginning to end; the surface alone
    is made, cleaned and unwrapped on the CPU.

    Args:
        gaussians: on the device where `raster` works; `mesh_raster` gets its inputs there too.
        reference: the input picture; used if `options.bake_reference`.
        progress: called with the name of each step when it begins.

    Raises:
        ValueError: if there is no surface; the message says how dense and opaque the Gaussians are.
    """
    options = options or MeshOptions()
    gaussians = Gaussians(*(x.detach() for x in vars(gaussians).values()))
    device = gaussians.means.device
    clock = _Clock(progress, device)
    if len(gaussians) == 0:
        raise ValueError("there are no Gaussians to make a mesh of")

    cameras = bake_views(options.radius, options.fovy_deg, options.render_size).to(device)
    with clock("render"):
        rgb, alpha, depth = _pictures(gaussians, raster, cameras)
    if options.tsdf is not None:
        density = {}
        with clock("fusion"):
            surface, level, iou = fused_surface(
                gaussians,
                lambda splats, around: _pictures(splats, raster, around),
                options.tsdf,
                radius=options.radius,
                fovy_deg=options.fovy_deg,
                resolution=options.resolution,
                fill_leak=options.fill_leak if options.fill else None,
            )
    else:
        with clock("density"):
            grid = density_grid(gaussians, options.resolution, culling=options.culling)
        with clock("level"):
            level, iou, density = chosen_level(grid, alpha, cameras, options)
        with clock("surface"):
            surface = carved_surface(grid, level, alpha, depth, cameras, options)
    with clock("clean"):
        mesh = _cleaned(surface, options)
    with clock("unwrap"):
        mesh = unwrap(mesh, resolution=options.texture_size).to(device)
    with clock("bake"):
        views = rgb, alpha, cameras, _priority(cameras, options)
        if options.bake_reference and reference is not None:
            views = _with_reference(mesh, *views, reference, mesh_raster)
        rgb, opacity, seen_from, priority = views
        how = {"size": options.texture_size, "options": options.bake, "priority": priority}
        baked = backproject(mesh, rgb, opacity, seen_from, mesh_raster, **how)
        mesh, share_seen = replace(mesh, texture=baked.texture), baked.share_seen
    with clock("check"):
        small, seen, _ = shrunk(cameras, alpha, depth, CARVE_SIZE)
        pick = list(range(0, len(cameras), 2))
        silhouette = _silhouette_iou(mesh, seen[pick], small[pick], mesh_raster)
        mesh = mesh.to("cpu")
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
        texels_seen=share_seen,
        density=density,
        seconds=clock.seconds,
    )
    return mesh, report


@torch.no_grad()
def _pictures(
    gaussians: Gaussians, raster: Rasterizer, cameras: Cameras
) -> tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W"], Float[Tensor, "V H W"]]:
    """Straight colours, alpha and the surface's depth; a few views at a time to bound the memory."""
    white = torch.ones(3, device=gaussians.means.device)
    at_once = _GPU_VIEWS_AT_ONCE if gaussians.means.is_cuda else 1
    views = []
    for v in range(0, len(cameras), at_once):
        render = raster(gaussians, cameras[v : v + at_once], white)
        views.append([x.detach().float() for x in (render.rgb, render.alpha[..., 0], render.depth[..., 0])])
    rgb, alpha, depth = (torch.cat(x) for x in zip(*views, strict=True))
    return straight_colours(rgb, alpha), alpha, depth / alpha.clamp_min(1e-6)


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
    rasterize: MeshRasterizer,
) -> tuple[Tensor, Tensor, Cameras, Tensor]:
    """The baked views with the reference's in front of them, unless it does not fit the mesh."""
    size = cameras.height
    rgba = reference.rgba.detach().to(rgb).permute(0, 3, 1, 2)
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    premultiplied = F.interpolate(premultiplied, (size, size), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    mask = premultiplied[..., 3]
    views = reference.cameras.to(rgb.device).resized(size, size)
    iou = _silhouette_iou(mesh, mask, views, rasterize)
    if iou < _REFERENCE_IOU:
        log.warning("the reference is not baked: its silhouette and the mesh's agree only to an IoU of %.2f", iou)
        return rgb, alpha, cameras, priority
    colours = (premultiplied[..., :3] / mask[..., None].clamp_min(1e-3)).clamp(0, 1)
    both = replace(cameras, c2w=torch.cat([views.c2w, cameras.c2w]), K=torch.cat([views.K, cameras.K]))
    priority = torch.cat([priority.new_full((len(views),), _REFERENCE_PRIORITY), priority])
    return torch.cat([colours, rgb]), torch.cat([mask, alpha]), both, priority


def _silhouette_iou(
    mesh: Mesh,
    alpha: Float[Tensor, "V H W"],
    cameras: Cameras,
    rasterize: MeshRasterizer,
) -> float:
    """IoU of the mesh's silhouettes with alpha >= 0.5, over all views together."""
    size = cameras.height, cameras.width
    both = either = torch.zeros((), dtype=torch.int64, device=alpha.device)
    for v in range(len(cameras)):
        inside = rasterize(clip_from_world(mesh.vertices, cameras[[v]]), mesh.faces, size).face_id[0] > 0
        both = both + (inside & (alpha[v] >= 0.5)).sum()
        either = either + (inside | (alpha[v] >= 0.5)).sum()
    return int(both) / max(int(either), 1)
