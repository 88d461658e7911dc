"""Training pictures of `zero123_mini`: a bank of rendered instances on the training device, and random batches from it.

An instance (`dg.data.instances`) is seen once as reference and a few times as target. All draws come from counter-based
generators, so that a bank is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dg.core import camera, rng
from dg.data import instances as draw
from dg.data import pool as objects_pool
from dg.data.instances import Viewpoints, first_views
from dg.data.pool import Look, ObjectPool, Packed
from dg.meshraster.protocol import MeshRasterizer
from dg.types import Cameras


@dataclass(frozen=True)
class Batch:
    """R references with K targets each. Pictures are premultiplied RGBA in [0, 1]."""

    reference: Float[Tensor, "R 4 h w"]
    targets: Float[Tensor, "RK 4 h w"]
    reference_cameras: Cameras  # R
    cameras: Cameras  # R K, grouped by reference


def move(x: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for what it is doing: a plain copy would hold the training up."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


class ViewBank:
    """Rendered instances, kept as bytes on the pool's device; `refresh` replaces some, `batch` draws from them.

    Args:
        pool: the objects; `groups` are ranges (start, stop, weight) of it that are drawn by weight.
        size: pictures' side.
        instances, targets: how many instances, and how many targets each has besides the reference.
        chunk: instances rendered at once.
        warp: how far half of the instances are deformed, in units (`dg.data.instances.draw_warps`); 0 is not at all.
    """

    def __init__(
        self,
        pool: ObjectPool,
        groups: Sequence[tuple[int, int, float]],
        rasterizer: MeshRasterizer,
        *,
        size: int = 64,
        instances: int = 16384,
        targets: int = 7,
        chunk: int = 512,
        seed: int = 0,
        warp: float = 0.0,
    ) -> None:
        self.warp = warp
        self.pool, self.groups, self.rasterizer = pool, list(groups), rasterizer
        self.size, self.instances, self.targets, self.chunk, self.seed = size, instances, targets, chunk, seed
        self.device = pool.vertices.device
        shape = (instances, 1 + targets)
        self.pictures = torch.zeros(*shape, 4, size, size, dtype=torch.uint8, device=self.device)
        zero = torch.zeros(shape, device=self.device)
        self.views = Viewpoints(zero, zero.clone(), zero[:, 0].clone(), zero[:, 0].clone())
        self.rendered = 0  # chunks so far: the counter of the generators

    @property
    def full(self) -> int:
        """How many chunks make a whole bank."""
        return -(-self.instances // self.chunk)

    def refresh(self, count: int | None = None) -> None:
        """Renders the next `count` instances (all by default) anew, in chunks, round and round."""
        for _ in range(self.full if count is None else -(-count // self.chunk)):
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
        weight = torch.tensor([w for *_, w in self.groups], dtype=torch.float32)  # 0 and 1 may come as whole numbers
        group = torch.multinomial(weight, m, True, generator=generator)
        start, stop = (torch.tensor([g[i] for g in self.groups])[group] for i in (0, 1))
        return (start + (torch.rand(m, generator=generator) * (stop - start)).long()).clamp_max(stop - 1)

    @torch.no_grad()
    def _render(self, m: int, generator: torch.Generator) -> tuple[UInt8[Tensor, "M V 4 h w"], Viewpoints]:
        which = self._draw_objects(m, generator)
        linear, recentred = draw.draw_shapes(m, generator)
        fill = 0.8 + (torch.rand(m, generator=generator) - 0.5) * 0.1
        scale = torch.exp((torch.rand(m, generator=generator) - 0.5) * 0.5) ** (
            torch.rand(m, generator=generator) < 0.4
        )
        views, look = draw.draw_viewpoints(m, self.targets, generator), draw.draw_look(m, generator)
        move = self._move
        which, linear, fill = move(which), move(linear), move(fill)
        views = Viewpoints(*map(move, (views.elevation, views.azimuth, views.radius, views.fovy)))
        look = Look(*map(move, (look.matrix, look.shift, look.light, look.ambient)))
        packed = objects_pool.pack(self.pool, which)
        points = self.pool.vertices[packed.vertex]
        if self.warp:
            warps = draw.draw_warps(m, self.warp, generator)
            points = draw.Warps(*map(move, vars(warps).values()))(points, packed.of_vertex)
        world = self._world(points, packed, linear, recentred, fill, move(scale), views)
        cameras = views.cameras(self.size)
        shape = (m, 1 + self.targets)
        matrix = (camera.clip_from_view(cameras) @ cameras.w2c).reshape(*shape, 4, 4)
        eye = cameras.position.reshape(*shape, 3)
        return objects_pool.render(
            self.pool, packed, which, world, matrix, eye, look, self.rasterizer, self.size
        ), views

    def _world(
        self,
        points: Tensor,
        packed: Packed,
        linear: Tensor,
        recentred: Tensor,
        fill: Tensor,
        scale: Tensor,
        views: Viewpoints,
    ) -> Tensor:
        points = (linear[packed.of_vertex] @ points[:, :, None])[..., 0]
        world = draw.frame(points, packed.of_vertex, recentred, fill, views)
        plain = torch.where(recentred.to(scale.device), torch.ones_like(scale), scale)
        return world * plain[packed.of_vertex, None]

    def batch(self, references: int, targets: int, generator: torch.Generator, own: bool = True) -> Batch:
        """`targets` of the views of each of `references` random instances; with `own`, the reference may be one."""
        row = torch.randint(self.instances, (references,), generator=generator)
        order = torch.rand(references, 1 + self.targets, generator=generator)
        order[:, 0] -= 0.55 if own else 2.0  # rarely first: repeating the reference teaches little
        column = order.argsort(1, descending=True)[:, :targets]
        row, column = self._move(row), self._move(column)
        chosen = self.pictures[row[:, None], column].flatten(0, 1)
        views = self.views[row]
        picked = Viewpoints(
            views.elevation.gather(1, column), views.azimuth.gather(1, column), views.radius, views.fovy
        )
        return Batch(
            self.pictures[row, 0].float() / 255,
            chosen.float() / 255,
            first_views(views).cameras(self.size),
            picked.cameras(self.size),
        )


def composite(premultiplied: Float[Tensor, "B 4 h w"], background: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 h w"]:
    return premultiplied[:, :3] + (1 - premultiplied[:, 3:]) * background[:, :, None, None]


def training_pool(
    library: str | None, procedural: int, device: torch.device | str, seed: int = 0, library_share: float = 0.65
) -> tuple[ObjectPool, list[tuple[int, int, float]]]:
    """The objects that may be trained on (permissive licence, not held out), then `procedural` random ones; and groups.

    Args:
        library: the library's folder; None trains on procedural objects alone.
        library_share: the weight of the library's objects in `ViewBank`'s draws, 0 to 1.

    Raises:
        ValueError: the share is out of range, or leaves nothing to draw from.
    """
    from dg.data import library as shelf
    from dg.data.procedural import invent

    if not 0 <= library_share <= 1:
        raise ValueError(f"library_share={library_share} must be from 0 to 1")
    entries = [] if library is None else shelf.index(library)
    entries = [e for e in entries if shelf.permissive(e) and not shelf.held_out(e)]
    objects = [] if library is None else list(shelf.read(library, entries))
    n = len(objects)
    objects += invent([rng.key(seed, "procedural", i) for i in range(procedural)])
    groups = [(0, n, library_share), (n, len(objects), 1 - library_share)]
    groups = [(start, stop, weight) for start, stop, weight in groups if stop > start and weight > 0]
    if not groups:
        raise ValueError(
            f"library_share={library_share} of {n} library objects and {procedural} procedural ones leaves none to "
            "train on; set library, procedural or library_share otherwise"
        )
    return ObjectPool.of(objects, device), groups


def make_bank(
    device: torch.device,
    *,
    library: str | None,
    procedural: int,
    rasterizer: MeshRasterizer,
    instances: int = 16384,
    targets: int = 7,
    chunk: int = 512,
    seed: int = 0,
    library_share: float = 0.65,
    warp: float = 0.0,
) -> ViewBank:
    """The bank of one training (see `training_pool` and `ViewBank`), not rendered yet."""
    pool, groups = training_pool(library, procedural, device, seed, library_share)
    return ViewBank(pool, groups, rasterizer, instances=instances, targets=targets, chunk=chunk, seed=seed, warp=warp)


def held_out_pool(library: str, device: torch.device | str) -> tuple[ObjectPool, list[tuple[int, int, float]]]:
    """The library's objects that no training sees."""
    from dg.data import library as shelf

    entries = [e for e in shelf.index(library) if shelf.permissive(e) and shelf.held_out(e)]
    return ObjectPool.of(list(shelf.read(library, entries)), device), [(0, len(entries), 1.0)]
