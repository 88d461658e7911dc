"""Pictures of an object onto its mesh's texture.

Two ways: "gather" asks each texel which views see it and takes their colours, weighted by how squarely they see it;
"splat" is DreamGaussian's (arXiv 2309.16653, section 3.3, and its release as facts): pixels are scattered into the
texture, and the first view that reaches a texel wins. The mesh's own silhouette, depth and normals come from a mesh
rasteriser that the caller passes in, so nothing here knows which one it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dg.core.camera import FOVY_DEG, clip_from_world, orbit
from dg.core.dilate import dilate, fill_from_surface
from dg.core.gather import add_view
from dg.core.gridput import grid_put_linear, grid_put_mip
from dg.core.meshes import vertex_normals
from dg.types import Cameras, Fragments, Mesh

__all__ = ["BakeOptions", "backproject", "bake_views", "dilate", "grid_put_linear", "grid_put_mip", "straight_colours"]

MeshRasterize = Callable[[Tensor, Tensor, tuple[int, int]], Fragments]  # `dg.meshraster.protocol`, a layer above

_RING_DEG = (0, 45, -45, 90, -90, 135, -135, 180)
_POLES_DEG = (-89.9, 89.9)


@dataclass(frozen=True)
class BakeOptions:
    """How colours get from views into a texture.

    Attributes:
        method: "gather" or "splat".
        sharpness: gather weighs a view by its viewcos to this power; large values approach "the squarest view wins".
        min_viewcos: below this a view counts only for texels that no other view sees (splat: not at all).
        min_alpha: pixels that are less opaque, or within `erode_px` of such, count only where nothing else does.
        erode_px: see above.
        depth_slack: world units by which a texel may lie behind the depth picture and still count as seen.
    """

    method: str = "gather"
    sharpness: float = 8.0
    min_viewcos: float = 0.2
    min_alpha: float = 0.9
    erode_px: int = 2
    depth_slack: float = 0.006


@dataclass(frozen=True)
class Baked:
    texture: Float[Tensor, "h w 3"]
    seen: Float[Tensor, "h w"]  # 1 where a view gave the texel its colour, 0 where it was filled in
    surface: Float[Tensor, "h w"]  # 1 where the texel lies on the surface, 0 between the charts

    @property
    def share_seen(self) -> float:
        """Of the texels on the surface."""
        return float((self.seen * self.surface).sum() / self.surface.sum().clamp_min(1))


def bake_views(radius: float = 2.0, fovy_deg: float = FOVY_DEG, size: int = 512) -> Cameras:
    """The release's 26 views in its order: three rings of eight, the front first, then from above and from below."""
    poses = [(e, a) for e in (0, -45, 45) for a in _RING_DEG] + [(e, 0) for e in _POLES_DEG]
    elevation, azimuth = (list(map(float, x)) for x in zip(*poses, strict=True))
    return orbit(elevation, azimuth, radius, fovy_deg=fovy_deg, height=size)


def straight_colours(
    rgb: Float[Tensor, "V H W 3"], alpha: Float[Tensor, "V H W"], background: float = 1.0, floor: float = 0.2
) -> Float[Tensor, "V H W 3"]:
    """Takes a plain background out of composited colours; below the alpha `floor` the division is limited to it."""
    a = alpha[..., None].clamp_min(floor)
    return ((rgb - background * (1 - a)) / a).clamp(0, 1)


def backproject(
    mesh: Mesh,
    rgb: Float[Tensor, "V H W 3"],
    alpha: Float[Tensor, "V H W"],
    cameras: Cameras,
    rasterize: MeshRasterize,
    *,
    size: int = 1024,
    options: BakeOptions | None = None,
    priority: Float[Tensor, " V"] | None = None,
) -> Baked:
    """The texture [size size 3] of a mesh with uv coordinates, seen in V views; deterministic (splat on a CPU).

    Works where the mesh is: pictures, cameras and what `rasterize` returns are on the same device.

    Args:
        rgb: straight colours (`straight_colours`); gather uses `alpha` to tell where they are reliable.
        priority: factors on the views' weights (gather), e.g. for a photograph among renders. Splat goes by the order.

    Raises:
        ValueError: for a mesh without uv coordinates, or an unknown method.
    """
    options = options or BakeOptions()
    if mesh.uv is None:
        raise ValueError("the mesh has no uv coordinates; make them with dg.core.uv.unwrap")
    if options.method not in ("gather", "splat"):
        raise ValueError(f"method is 'gather' or 'splat', not {options.method!r}")
    # summed on the CPU: a GPU adds in any order
    normals = vertex_normals(mesh.vertices.cpu(), mesh.faces.cpu()).to(mesh.vertices)
    # The texture is a picture too: texel centres at +0.5, row 0 at v = 0 (clip y = -1), every face at depth 1.
    flat = torch.cat([mesh.uv * 2 - 1, torch.zeros_like(mesh.uv[:, :1]), torch.ones_like(mesh.uv[:, :1])], -1)
    faces_uv = mesh.faces if mesh.faces_uv is None else mesh.faces_uv
    texels, corners, weights = _covered(rasterize(flat[None], faces_uv, (size, size)), mesh.faces)
    device = mesh.vertices.device
    surface = torch.zeros(size * size, dtype=torch.bool, device=device)
    surface[texels] = True
    surface = surface.view(size, size)
    if options.method == "splat":
        texture, known = _splat(mesh, normals, rgb, cameras, rasterize, size)
        return Baked(dilate(texture, known, rest="keep"), known.float(), surface.float())
    points = (mesh.vertices[corners] * weights).sum(1)
    normal = torch.nn.functional.normalize((normals[corners] * weights).sum(1), dim=-1)
    priority = (torch.ones(len(cameras)) if priority is None else priority).to(device)
    colour, seen = _gather(mesh, points, normal, rgb, alpha, cameras, rasterize, options, priority)
    texture, known, position = (torch.zeros(size * size, *shape, device=device) for shape in ((3,), (), (3,)))
    texture[texels], known[texels], position[texels] = colour, seen.float(), points.float()
    texture, known, position = (x.view(size, size, *x.shape[1:]) for x in (texture, known, position))
    texture = fill_from_surface(texture, known > 0, surface, position)
    return Baked(dilate(texture, surface if seen.any() else known > 0), known, surface.float())


def _splat(
    mesh: Mesh, normals: Tensor, rgb: Tensor, cameras: Cameras, rasterize: MeshRasterize, size: int
) -> tuple[Float[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
    faces_uv = mesh.faces if mesh.faces_uv is None else mesh.faces_uv
    total, count = rgb.new_zeros(size, size, 3), rgb.new_zeros(size, size)
    for v in range(len(cameras)):
        camera = cameras[[v]]
        fragments = rasterize(clip_from_world(mesh.vertices, camera), mesh.faces, (camera.height, camera.width))
        pixels, corners, weights = _covered(fragments, mesh.faces)
        normal = torch.nn.functional.normalize((normals[corners] * weights).sum(1), dim=-1)
        squarely = -(normal @ camera.c2w[0, :3, 2]) > 0.5
        uv = (mesh.uv[_covered(fragments, faces_uv)[1]] * weights).sum(1).clamp(0, 1)[squarely]
        values = rgb[v].reshape(-1, 3)[pixels[squarely]]
        part, weight = grid_put_mip(uv.flip(1) * 2 - 1, values, (size, size), min_resolution=min(256, size // 2))
        open_ = count < 0.1
        total = torch.where(open_[..., None], total + part, total)
        count = torch.where(open_, count + weight, count)
    known = count > 0
    return torch.where(known[..., None], total / count.clamp_min(1e-12)[..., None], total), known


def _gather(
    mesh: Mesh,
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    rgb: Tensor,
    alpha: Tensor,
    cameras: Cameras,
    rasterize: MeshRasterize,
    options: BakeOptions,
    priority: Tensor,
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
    """Colours of points on the surface, and which of them some view sees."""
    good, spare = (torch.zeros(len(points), 4, device=points.device) for _ in range(2))
    points, normals = points.double(), normals.double()
    for v in range(len(cameras)):
        camera = cameras[[v]]
        clip = clip_from_world(mesh.vertices, camera)
        fragments = rasterize(clip, mesh.faces, (camera.height, camera.width))
        covered, seen_corners, seen_weights = _covered(fragments, mesh.faces)
        depth = torch.zeros(camera.height * camera.width, device=points.device)
        depth[covered] = (clip[0, :, 3][seen_corners] * seen_weights[..., 0]).sum(1)
        picture = rgb[v], depth.view(camera.height, camera.width), alpha[v]
        add_view(points, normals, camera, *picture, options, priority[v], good, spare)
    best = torch.where(good[:, 3:] > 0, good, spare)
    return best[:, :3] / best[:, 3:].clamp_min(1e-30), best[:, 3] > 0


def _covered(fragments: Fragments, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of one view: covered pixels [n] (flattened), their faces' vertices [n 3], and the barycentric weights [n 3 1]."""
    face = fragments.face_id[0].reshape(-1)
    pixels = face.nonzero()[:, 0]
    bary = fragments.bary[0].reshape(-1, 2)[pixels]
    return pixels, faces[face[pixels].long() - 1], torch.cat([bary, 1 - bary.sum(-1, keepdim=True)], -1)[..., None]
