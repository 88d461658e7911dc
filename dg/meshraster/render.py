"""Pictures of a textured mesh: rasterise, look the texture up, composite, average down."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import clip_from_world
from dg.core.meshes import vertex_normals
from dg.meshraster.interpolate import interpolate, interpolate_dxy
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.texture import sample
from dg.types import Cameras, Fragments, Mesh

GREY = 0.5  # the albedo of a mesh without a texture


@dataclass(frozen=True)
class MeshRender:
    """V views of a mesh. Everything but `fragments` has the asked size."""

    rgb: Float[Tensor, "V H W 3"]  # unlit albedo, composited on the background
    alpha: Float[Tensor, "V H W 1"]  # coverage; strictly 0 or 1 without ssaa
    depth: Float[Tensor, "V H W 1"]  # view depth, 0 where empty
    normal: Float[Tensor, "V H W 3"]  # world space, unit length, 0 where empty
    viewcos: Float[Tensor, "V H W 1"]  # camera-space z of the normal: 1 faces the picture plane, negative faces away
    fragments: Fragments  # at ssaa times the size


def render_mesh(
    mesh: Mesh,
    cameras: Cameras,
    rasterizer: MeshRasterizer,
    background: Float[Tensor, " 3"] | Float[Tensor, "V 3"],
    *,
    ssaa: int = 1,
    texture: Float[Tensor, "h w 3"] | None = None,
) -> MeshRender:
    """Renders the unlit albedo; differentiable in the texture, and in the vertices as far as the rasteriser is.

    Args:
        ssaa: renders at this many times the size and averages. Colours are composited before they are averaged, so
            silhouettes come out antialiased; depth, normal and viewcos are means over the covered samples only.
        texture: looked up instead of `mesh.texture`, e.g. the one that is being optimised. Values are used as colours.

    Raises:
        ValueError: ssaa < 1, or a texture for a mesh without uv coordinates.
    """
    if ssaa < 1 or int(ssaa) != ssaa:
        raise ValueError(f"ssaa must be a whole number of at least 1, got {ssaa}")
    background = background.to(mesh.vertices).expand(len(cameras), 3)
    if len(cameras) > 1 and ssaa > 1:  # one at a time, as the temporaries of one view are large already
        views = [
            render_mesh(mesh, cameras[[v]], rasterizer, background[v], ssaa=ssaa, texture=texture)
            for v in range(len(cameras))
        ]
        return _concatenate(views)
    height, width = cameras.height * int(ssaa), cameras.width * int(ssaa)
    large = cameras.resized(height, width)
    clip = clip_from_world(mesh.vertices, large).contiguous()
    fragments = rasterizer(clip, mesh.faces, (height, width))
    mask = fragments.face_id > 0
    alpha = mask[..., None].to(mesh.vertices.dtype)

    depth = interpolate(clip[..., 3:], fragments, mesh.faces)
    normal = interpolate(vertex_normals(mesh.vertices, mesh.faces), fragments, mesh.faces)
    normal = normal / normal.square().sum(-1, keepdim=True).clamp_min(1e-20).sqrt()
    viewcos = -torch.einsum("vhwc,vc->vhw", normal, cameras.c2w[:, :3, 2])[..., None]  # OpenCV's z looks away from us
    behind = background[:, None, None]
    rgb = behind + alpha * (_albedo(mesh, fragments, mask, texture) - behind)

    if ssaa > 1:
        covered = _shrink(alpha, ssaa)
        mean = lambda x: _shrink(x, ssaa) / covered.clamp_min(1e-8)  # noqa: E731
        rgb, alpha, depth, normal, viewcos = _shrink(rgb, ssaa), covered, mean(depth), mean(normal), mean(viewcos)
        normal = normal / normal.square().sum(-1, keepdim=True).clamp_min(1e-20).sqrt()
    return MeshRender(rgb, alpha, depth, normal, viewcos, fragments)


def _albedo(mesh: Mesh, fragments: Fragments, mask: Tensor, texture: Tensor | None) -> Float[Tensor, "V H W 3"]:
    texture = mesh.texture if texture is None else texture
    if texture is None:
        return torch.full((*mask.shape, 3), GREY, dtype=mesh.vertices.dtype, device=mask.device)
    if mesh.uv is None:
        raise ValueError("a textured mesh needs uv coordinates; make them with dg.core.uv.unwrap")
    faces_uv = mesh.faces if mesh.faces_uv is None else mesh.faces_uv
    uv = interpolate(mesh.uv, fragments, faces_uv)
    return sample(texture, uv, interpolate_dxy(mesh.uv, fragments, faces_uv), mask)


def _concatenate(views: list[MeshRender]) -> MeshRender:
    joined = {f.name: torch.cat([getattr(v, f.name) for v in views]) for f in fields(MeshRender)[:-1]}
    parts = [torch.cat([getattr(v.fragments, f.name) for v in views]) for f in fields(Fragments)]
    return MeshRender(**joined, fragments=Fragments(*parts))


def _shrink(image: Float[Tensor, "V sH sW C"], factor: int) -> Float[Tensor, "V H W C"]:
    return F.avg_pool2d(image.permute(0, 3, 1, 2), int(factor)).permute(0, 2, 3, 1)
