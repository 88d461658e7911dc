"""Training pictures of `zero123_mini`: a bank of rendered instances on the training device, and random batches from it.

An instance is an object, randomly turned, mirrored, stretched, recoloured and lit, framed as an input picture would be, seen
once as reference and a few times as target. Two framings occur in use and both are trained: an object of longest side 1
at radius 2 (fills about 0.55 of the frame; benchmarks' front views), and a picture recentred so that the object fills 0.8
(`dg.data.image`). All draws come from counter-based generators, so that a bank is a function of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dg.core import camera, rng
from dg.data import pool as objects_pool
from dg.data.pool import Look, ObjectPool, Packed
from dg.meshraster.protocol import MeshRasterizer
from dg.types import Cameras

REACH = 0.95  # no point of a recentred object is further from the origin: Gaussians and meshes live in [-1, 1]^3


@dataclass(frozen=True)
class Viewpoints:
    """M instances with V views each; view 0 is the reference. Degrees; the canonical elevation sign."""

    elevation: Float[Tensor, "M V"]
    azimuth: Float[Tensor, "M V"]
    radius: Float[Tensor, "M"]
    fovy: Float[Tensor, "M"]

    def __getitem__(self, index: Tensor | slice) -> Viewpoints:
        return Viewpoints(self.elevation[index], self.azimuth[index], self.radius[index], self.fovy[index])

    def cameras(self, size: int) -> Cameras:
        """All M V views, one instance after another."""
        v = self.elevation.shape[1]
        eye = camera.eye(self.elevation.reshape(-1), self.azimuth.reshape(-1), self.radius.repeat_interleave(v))
        focal = size / (2 * torch.tan(torch.deg2rad(self.fovy) / 2)).repeat_interleave(v)
        K = torch.zeros(len(eye), 3, 3, device=eye.device)
        K[:, 0, 0] = K[:, 1, 1] = focal
        K[:, :2, 2] = size / 2
        K[:, 2, 2] = 1
        return Cameras(camera.look_at(eye, torch.zeros_like(eye)), K, size, size)


@dataclass(frozen=True)
class Batch:
    """R references with K targets each. Pictures are premultiplied RGBA in [0, 1]."""

    reference: Float[Tensor, "R 4 h w"]
    targets: Float[Tensor, "RK 4 h w"]
    reference_cameras: Cameras  # R
    cameras: Cameras  # R K, grouped by reference


def draw_viewpoints(m: int, targets: int, generator: torch.Generator) -> Viewpoints:
    """References mostly near level, targets mostly within 45 degrees of it, all around."""
    u = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    near = (torch.randn(m, generator=generator) * 9 - 5).clamp(-30, 15)
    reference = torch.where(u(m) < 0.25, u(m) * 90 - 60, near)
    reference = torch.where(u(m) < 0.2, torch.zeros(m), reference)  # exactly level: the default of the command line
    wide = torch.rad2deg(torch.asin((u(m, targets) * 2 - 1) * math.sin(math.radians(80))))
    level = u(m, targets) * 90 - 45
    elevation = torch.where(u(m, targets) < 0.15, wide, level)
    azimuth = u(m, targets) * 360 - 180
    odd = (u(m) < 0.2).float()  # few other lenses: the canonical camera is the one in use
    radius = 2 + odd * (u(m) - 0.5) * 0.3
    fovy = camera.FOVY_DEG + odd * (u(m) - 0.5) * 6
    return Viewpoints(
        torch.cat([reference[:, None], elevation], 1), torch.cat([torch.zeros(m, 1), azimuth], 1), radius, fovy
    )


def draw_look(m: int, generator: torch.Generator) -> Look:
    """Half keep their colours nearly; the others get another hue, saturation, brightness. A quarter is softly lit."""
    u = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    strong = (u(m) < 0.4).float()
    angle = strong * u(m) * 2 * math.pi + (1 - strong) * (u(m) - 0.5) * 0.3
    matrix = hue_matrix(angle, 1 + (u(m) - 0.5) * (0.3 + 0.9 * strong))
    gain = torch.exp((u(m) - 0.5) * (0.4 + 0.6 * strong))
    shift = (u(m, 1) - 0.5) * 0.12 * strong[:, None] + (u(m, 3) - 0.5) * 0.08
    light = torch.nn.functional.normalize(torch.randn(m, 3, generator=generator) + torch.tensor([0, 0.7, 0.5]), dim=-1)
    ambient = torch.where(u(m) < 0.3, 0.35 + 0.5 * u(m), torch.ones(m))
    return Look(matrix * gain[:, None, None], shift, light, ambient)


def hue_matrix(angle: Float[Tensor, "M"], saturation: Float[Tensor, "M"]) -> Float[Tensor, "M 3 3"]:
    """Rotation about the grey axis, with the distance from it scaled."""
    axis = torch.full((3,), 1 / math.sqrt(3))
    along = torch.outer(axis, axis)
    x = axis[0]
    cross = torch.tensor([[0, -x, x], [x, 0, -x], [-x, x, 0]])
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return along + saturation[:, None, None] * (c * (torch.eye(3) - along) + s * cross)


def draw_shapes(m: int, generator: torch.Generator) -> tuple[Float[Tensor, "M 3 3"], Tensor]:
    """Linear maps (stretch, mirror, turn about y), and which instances are framed as recentred pictures [M]."""
    u = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    stretch = torch.exp(torch.randn(m, 3, generator=generator) * 0.12)
    stretch[:, 0] *= torch.where(u(m) < 0.5, -1.0, 1.0)
    turned = u(m) * 360
    turned = torch.where(u(m) < 0.4, torch.round(turned / 90) * 90 + torch.randn(m, generator=generator) * 5, turned)
    a = torch.deg2rad(turned)
    zero, one = torch.zeros(m), torch.ones(m)
    turn = torch.stack([a.cos(), zero, a.sin(), zero, one, zero, -a.sin(), zero, a.cos()], -1).reshape(m, 3, 3)
    return turn * stretch[:, None, :], u(m) < 0.6


def frame(
    points: Float[Tensor, "P 3"], owner: Int[Tensor, "P"], recentred: Tensor, fill: Float[Tensor, "M"], views: Viewpoints
) -> Float[Tensor, "P 3"]:
    """Scales and shifts each instance: longest side 1 and centred, or so that the reference fills `fill` of the frame.

    Where a recentred object would reach too far (a car seen from its front), its depth is squeezed, by half at most, and
    then all of it is scaled down.
    """
    m = len(fill)
    low, high = objects_pool.extent(points, owner, m)
    longest = (high - low).amax(-1)
    p = (points - ((low + high) / 2)[owner]) / longest[owner, None]
    cameras = views[:].cameras(2) if views.elevation.shape[1] == 1 else _first(views).cameras(2)
    right, down, forward, eye = cameras.c2w[:, :3].unbind(-1)
    flat = torch.nn.functional.normalize(forward * forward.new_tensor([1, 0, 1]), dim=-1)
    tangent = torch.tan(torch.deg2rad(views.fovy) / 2)
    chosen = recentred.to(p.device)[owner, None]

    def ndc(q: Tensor) -> tuple[Tensor, Tensor]:
        offset = q - eye[owner]
        depth = (offset * forward[owner]).sum(-1).clamp_min(0.05) * tangent[owner]
        xy = torch.stack([(offset * right[owner]).sum(-1), (offset * down[owner]).sum(-1)], -1) / depth[:, None]
        return objects_pool.extent(xy, owner, m)

    def to_frame(q: Tensor) -> Tensor:
        for _ in range(4):
            a, b = ndc(q)
            middle = (a + b) / 2 * (views.radius * tangent)[:, None]
            shift = right * middle[:, :1] + down * middle[:, 1:]
            scale = 2 * fill / (b - a).amax(-1)
            q = torch.where(chosen, (q - shift[owner]) * scale.clamp(0.5, 2.0)[owner, None], q)
        return q

    def reach(q: Tensor) -> Tensor:
        return objects_pool.extent(q.norm(dim=-1, keepdim=True), owner, m)[1][:, 0]

    q = to_frame(p)
    squeeze = (1 - (REACH / reach(q)).clamp(0.5, 1))[owner, None]
    along = (q * flat[owner]).sum(-1, keepdim=True) * flat[owner]
    q = to_frame(torch.where(chosen, q - squeeze * along, q))
    return torch.where(chosen, q * (REACH / reach(q)).clamp_max(1)[owner, None], q)


def _first(views: Viewpoints) -> Viewpoints:
    return Viewpoints(views.elevation[:, :1], views.azimuth[:, :1], views.radius, views.fovy)


def move(x: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for what it is doing: a plain copy would hold the training up."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


class ViewBank:
    """Rendered instances, kept as bytes on the pool's device; `refresh` replaces some, `batch` draws from them.

    Args:
        pool: the objects; `groups` are ranges (start, stop, weight) of it that are drawn by weight.
        size: pictures' side. instances, targets: how many instances, and how many targets each has besides the reference.
        chunk: instances rendered at once.
    """

    def __init__(
        self, pool: ObjectPool, groups: Sequence[tuple[int, int, float]], rasterizer: MeshRasterizer, *, size: int = 64,
        instances: int = 16384, targets: int = 7, chunk: int = 512, seed: int = 0,
    ) -> None:  # fmt: skip
        self.pool, self.groups, self.rasterizer = pool, list(groups), rasterizer
        self.size, self.instances, self.targets, self.chunk, self.seed = size, instances, targets, chunk, seed
        self.device = pool.vertices.device
        shape = (instances, 1 + targets)
        self.pictures = torch.zeros(*shape, 4, size, size, dtype=torch.uint8, device=self.device)
        zero = torch.zeros(shape, device=self.device)
        self.views = Viewpoints(zero, zero.clone(), zero[:, 0].clone(), zero[:, 0].clone())
        self.rendered = 0  # chunks so far: the counter of the generators

    def refresh(self, count: int | None = None) -> None:
        """Renders the next `count` instances (all by default) anew, in chunks, round and round."""
        chunks = -(-(self.instances if count is None else count) // self.chunk)
        for _ in range(chunks):
            start = (self.rendered * self.chunk) % self.instances
            rows = slice(start, min(start + self.chunk, self.instances))
            pictures, views = self._render(rows.stop - rows.start, rng.generator(self.seed, "views", self.rendered))
            self.pictures[rows] = pictures
            for name in ("elevation", "azimuth", "radius", "fovy"):
                getattr(self.views, name)[rows] = getattr(views, name)
            self.rendered += 1

    def _move(self, x: Tensor) -> Tensor:
        return move(x, self.device)

    def _draw_objects(self, m: int, generator: torch.Generator) -> Int[Tensor, "M"]:
        weight = torch.tensor([w for *_, w in self.groups])
        group = torch.multinomial(weight, m, True, generator=generator)
        start, stop = (torch.tensor([g[i] for g in self.groups])[group] for i in (0, 1))
        return (start + (torch.rand(m, generator=generator) * (stop - start)).long()).clamp_max(stop - 1)

    @torch.no_grad()
    def _render(self, m: int, generator: torch.Generator) -> tuple[UInt8[Tensor, "M V 4 h w"], Viewpoints]:
        which = self._draw_objects(m, generator)
        linear, recentred = draw_shapes(m, generator)
        fill = 0.8 + (torch.rand(m, generator=generator) - 0.5) * 0.1
        scale = torch.exp((torch.rand(m, generator=generator) - 0.5) * 0.5) ** (torch.rand(m, generator=generator) < 0.4)
        views, look = draw_viewpoints(m, self.targets, generator), draw_look(m, generator)
        move = self._move
        which, linear, fill = move(which), move(linear), move(fill)
        views = Viewpoints(*map(move, (views.elevation, views.azimuth, views.radius, views.fovy)))
        look = Look(*map(move, (look.matrix, look.shift, look.light, look.ambient)))
        packed = objects_pool.pack(self.pool, which)
        world = self._world(packed, linear, recentred, fill, move(scale), views)
        cameras = views.cameras(self.size)
        shape = (m, 1 + self.targets)
        matrix = (camera.clip_from_view(cameras) @ cameras.w2c).reshape(*shape, 4, 4)
        eye = cameras.position.reshape(*shape, 3)
        return objects_pool.render(
            self.pool, packed, which, world, matrix, eye, look, self.rasterizer, self.size
        ), views

    def _world(self, packed: Packed, linear: Tensor, recentred: Tensor, fill: Tensor, scale: Tensor, views: Viewpoints) -> Tensor:  # fmt: skip
        points = (linear[packed.of_vertex] @ self.pool.vertices[packed.vertex][:, :, None])[..., 0]
        world = frame(points, packed.of_vertex, recentred, fill, views)
        plain = torch.where(recentred.to(scale.device), torch.ones_like(scale), scale)
        return world * plain[packed.of_vertex, None]

    def batch(self, references: int, targets: int, generator: torch.Generator) -> Batch:
        """`targets` of the views of each of `references` random instances; now and then the reference is a target."""
        row = torch.randint(self.instances, (references,), generator=generator)
        order = torch.rand(references, 1 + self.targets, generator=generator)
        order[:, 0] -= 0.55  # rarely among the first: a target that repeats the reference teaches little
        column = order.argsort(1, descending=True)[:, :targets]
        row, column = self._move(row), self._move(column)
        chosen = self.pictures[row[:, None], column].flatten(0, 1)
        views = self.views[row]
        picked = Viewpoints(
            views.elevation.gather(1, column), views.azimuth.gather(1, column), views.radius, views.fovy
        )
        return Batch(
            self.pictures[row, 0].float() / 255, chosen.float() / 255, _first(views).cameras(self.size), picked.cameras(self.size)
        )  # fmt: skip


def composite(premultiplied: Float[Tensor, "B 4 h w"], background: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 h w"]:
    return premultiplied[:, :3] + (1 - premultiplied[:, 3:]) * background[:, :, None, None]


def training_pool(
    library: str | None, procedural: int, device: torch.device | str, seed: int = 0, library_share: float = 0.65
) -> tuple[ObjectPool, list[tuple[int, int, float]]]:
    """The objects that may be trained on (permissive licence, not held out), then `procedural` random ones; and groups.

    Args:
        library: the library's folder; None trains on procedural objects alone.
        library_share: the weight of the library's objects in `ViewBank`'s draws.
    """
    from dg.data import library as shelf
    from dg.data.procedural import invent

    entries = [] if library is None else shelf.index(library)
    entries = [e for e in entries if shelf.permissive(e) and not shelf.held_out(e)]
    objects = [] if library is None else list(shelf.read(library, entries))
    n = len(objects)
    objects += invent([rng.key(seed, "procedural", i) for i in range(procedural)])
    groups = [(0, n, library_share), (n, len(objects), 1 - library_share)]
    return ObjectPool.of(objects, device), [g for g in groups if g[1] > g[0]]


def held_out_pool(library: str, device: torch.device | str) -> tuple[ObjectPool, list[tuple[int, int, float]]]:
    """The library's objects that no training sees."""
    from dg.data import library as shelf

    entries = [e for e in shelf.index(library) if shelf.permissive(e) and shelf.held_out(e)]
    return ObjectPool.of(list(shelf.read(library, entries)), device), [(0, len(entries), 1.0)]
