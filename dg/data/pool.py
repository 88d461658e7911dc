"""Many small textured meshes in a few arrays on one device, and the rendering of random instances of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dg.data.library import TexturedObject
from dg.meshraster.protocol import MeshRasterizer

TEXTURE = 128


@dataclass(frozen=True)
class ObjectPool:
    """N objects, one after another."""

    vertices: Float[Tensor, "P 3"]
    uv: Float[Tensor, "P 2"]
    faces: Int[Tensor, "F 3"]  # int64, within the object
    first_vertex: Int[Tensor, "N+1"]
    first_face: Int[Tensor, "N+1"]
    textures: UInt8[Tensor, "N h w 3"]

    def __len__(self) -> int:
        return len(self.textures)

    @staticmethod
    def of(objects: Sequence[TexturedObject], device: torch.device | str = "cpu") -> ObjectPool:
        """Textures are brought to 128 x 128 texels: uv doesn't mind."""
        from PIL import Image

        def squared(texture: np.ndarray) -> np.ndarray:
            if texture.shape[:2] == (TEXTURE, TEXTURE):
                return texture
            return np.asarray(Image.fromarray(texture).resize((TEXTURE, TEXTURE), Image.Resampling.BILINEAR))

        def starts(counts: list[int]) -> Tensor:
            return torch.tensor(np.concatenate([[0], np.cumsum(counts)]), device=device)

        stack = lambda arrays: torch.from_numpy(np.concatenate(arrays)).to(device)  # noqa: E731
        return ObjectPool(
            stack([o.vertices for o in objects]).float(),
            stack([o.uv for o in objects]).float(),
            stack([o.faces for o in objects]).long(),
            starts([len(o.vertices) for o in objects]),
            starts([len(o.faces) for o in objects]),
            torch.from_numpy(np.stack([squared(o.texture) for o in objects])).to(device),
        )


@dataclass(frozen=True)
class Packed:
    """The meshes of M instances (an object may occur often), one after another."""

    vertex: Int[Tensor, "P"]  # into the pool
    face: Int[Tensor, "F"]  # into the pool
    of_vertex: Int[Tensor, "P"]  # instance of each vertex
    of_face: Int[Tensor, "F"]
    first_vertex: Int[Tensor, "M+1"]
    first_face: Int[Tensor, "M+1"]


def pack(pool: ObjectPool, objects: Int[Tensor, "M"]) -> Packed:
    def expand(first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        counts = first[objects + 1] - first[objects]
        starts = F.pad(counts.cumsum(0), (1, 0))
        owner = torch.repeat_interleave(torch.arange(len(objects), device=counts.device), counts)
        local = torch.arange(len(owner), device=counts.device) - starts[owner]
        return first[objects][owner] + local, owner, starts

    vertex, of_vertex, first_vertex = expand(pool.first_vertex)
    face, of_face, first_face = expand(pool.first_face)
    return Packed(vertex, face, of_vertex, of_face, first_vertex, first_face)


def extent(points: Float[Tensor, "P d"], owner: Int[Tensor, "P"], n: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest coordinates per instance, each [n d]."""
    index = owner[:, None].expand_as(points)
    empty = points.new_zeros(n, points.shape[1])
    low = empty.scatter_reduce(0, index, points, "amin", include_self=False)
    return low, empty.scatter_reduce(0, index, points, "amax", include_self=False)


@dataclass(frozen=True)
class Look:
    """Per instance: how its texture is recoloured and lit. Colour becomes clamp(matrix @ rgb + shift)."""

    matrix: Float[Tensor, "M 3 3"]
    shift: Float[Tensor, "M 3"]
    light: Float[Tensor, "M 3"]  # unit vector towards the light, world axes
    ambient: Float[Tensor, "M"]  # 1 = unlit

    def __getitem__(self, index: slice | Tensor) -> Look:
        return Look(self.matrix[index], self.shift[index], self.light[index], self.ambient[index])


@torch.no_grad()
def render(
    pool: ObjectPool,
    packed: Packed,
    objects: Int[Tensor, "M"],
    world: Float[Tensor, "P 3"],
    clip_from_world: Float[Tensor, "M V 4 4"],
    eye: Float[Tensor, "M V 3"],
    look: Look,
    rasterizer: MeshRasterizer,
    size: int,
) -> UInt8[Tensor, "M V 4 size size"]:
    """V views of M instances: premultiplied RGBA, box-filtered from twice the size. Both sides of a surface are lit."""
    m, views = clip_from_world.shape[:2]
    faces = pool.faces[packed.face] + packed.first_vertex[packed.of_face][:, None]  # into `world`
    homogeneous = F.pad(world, (0, 1), value=1.0)
    out = torch.empty(m, views, 4, size, size, dtype=torch.uint8, device=world.device)
    for v in range(views):
        matrix = clip_from_world[:, v][packed.of_vertex]
        clip = (matrix @ homogeneous[:, :, None])[..., 0]
        face_id, bary = _rasterize(rasterizer, clip, faces, packed, 2 * size)
        hit = face_id > 0
        face, (u, w) = face_id[hit].long() - 1, bary[hit].unbind(-1)
        pixels = torch.zeros(m, 2 * size, 2 * size, 4, device=world.device)
        colour = _shade(pool, packed, objects, world, faces, face, u, w, eye[:, v], look)
        pixels[hit] = F.pad(colour, (0, 1), value=1.0)
        small = pixels.reshape(m, size, 2, size, 2, 4).mean((2, 4)).permute(0, 3, 1, 2)
        out[:, v] = (small * 255 + 0.5).to(torch.uint8)
    return out


def _shade(
    pool: ObjectPool,
    packed: Packed,
    objects: Tensor,
    world: Tensor,
    faces: Tensor,
    face: Tensor,
    u: Tensor,
    w: Tensor,
    eye: Tensor,
    look: Look,
) -> Float[Tensor, "n 3"]:
    """Colours at barycentrics (u, w) of `face`."""
    instance = packed.of_face[face]
    corner = faces[face]
    weight = torch.stack([u, w, 1 - u - w], -1)[:, :, None]
    uv = (pool.uv[packed.vertex[corner]] * weight).sum(1)
    colour = sample(pool.textures, objects[instance], uv)
    colour = (look.matrix[instance] @ colour[:, :, None])[..., 0] + look.shift[instance]
    a, b, c = world[corner].unbind(1)
    normal = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    towards = eye[instance] - (a + b + c) / 3
    normal = torch.where((normal * towards).sum(-1, keepdim=True) < 0, -normal, normal)
    lambert = (normal * look.light[instance]).sum(-1).clamp_min(0)
    ambient = look.ambient[instance]
    return colour.clamp(0, 1) * (ambient + (1 - ambient) * lambert)[:, None]


def _rasterize(
    rasterizer: MeshRasterizer, clip: Float[Tensor, "P 4"], faces: Int[Tensor, "F 3"], packed: Packed, side: int
) -> tuple[Int[Tensor, "M h w"], Float[Tensor, "M h w 2"]]:
    """One picture per instance; face ids count in the whole. In one call where the rasteriser can, else in a loop."""
    starts = packed.first_face
    if hasattr(rasterizer, "ranges"):
        ranges = torch.stack([starts[:-1], starts[1:] - starts[:-1]], -1)
        fragments = rasterizer.ranges(clip, faces, ranges, (side, side))
        return fragments.face_id, fragments.bary
    ids, barys = [], []
    for i in range(len(starts) - 1):
        f0, f1, v0, v1 = (int(x) for x in (*starts[i : i + 2], *packed.first_vertex[i : i + 2]))
        fragments = rasterizer(clip[None, v0:v1], faces[f0:f1] - v0, (side, side))
        ids.append(torch.where(fragments.face_id > 0, fragments.face_id + f0, 0))
        barys.append(fragments.bary)
    return torch.cat(ids), torch.cat(barys)


def sample(
    textures: UInt8[Tensor, "N h w 3"], which: Int[Tensor, "n"], uv: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 3"]:
    """Bilinear, clamped at the edges; uv = 0 is the outer edge of the first texel. Colours in [0, 1]."""
    _, h, w, _ = textures.shape
    x = (uv[:, 0] * w - 0.5).clamp(0, w - 1)
    y = (uv[:, 1] * h - 0.5).clamp(0, h - 1)
    x0, y0 = x.floor().long().clamp_max(w - 2), y.floor().long().clamp_max(h - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    at = lambda dy, dx: textures[which, y0 + dy, x0 + dx].float()  # noqa: E731
    top = at(0, 0) * (1 - fx) + at(0, 1) * fx
    bottom = at(1, 0) * (1 - fx) + at(1, 1) * fx
    return (top * (1 - fy) + bottom * fy) / 255
