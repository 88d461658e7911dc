"""What an item's results are measured against, made once per process: true pictures, points, volume, visibility."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dg.core.camera import orbit, project
from dg.core.picture import over
from dg.data.image import load_reference
from dg.eval.placement import Box, box, turned, used, yaw_matrix
from dg.eval.protocol import Item, Protocol, TruthDepth, TruthViews
from dg.eval.shape import Samples, sample_surface
from dg.eval.visible import unprojected, visible_samples
from dg.eval.volume import Inside
from dg.io.files import sha256
from dg.io.images import read_png
from dg.io.mesh import load_mesh
from dg.meshraster.protocol import MeshRasterizer
from dg.meshraster.render import render_colours, render_mesh
from dg.types import Cameras, Mesh

_KEPT = 12  # truths that stay in memory; one takes about 25 MB
_DEPTH_PX = 512  # side of the depth map that decides what the input shows
_DEPTH_SLACK = 0.01  # of the truth's longest side: what lies less far behind the visible surface belongs to it


class Truth:
    """An item's truth under a protocol. Everything is computed when first asked for, and kept.

    Attributes:
        mesh: in our frame, or None; under normalise="extent" it is centred unless given views fix its place.
        shift: by how much it was moved for that.
        cameras: the views on which pictures are compared.
    """

    def __init__(self, item: Item, protocol: Protocol, raster: MeshRasterizer) -> None:
        self.item, self.protocol, self._raster = item, protocol, raster
        self.mesh, self.shift = _placed(item, protocol)
        self.cameras = protocol.views.cameras() if item.truth_views is None else item.truth_views.cameras

    @cached_property
    def box(self) -> Box | None:
        return None if self.mesh is None else box(used(self.mesh))

    @cached_property
    def pictures(self) -> tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W 1"]] | None:
        """rgb on the protocol's background, and alpha; None where neither a mesh nor views are given."""
        views = self.protocol.views
        if self.item.truth_views is not None:
            return _given(self.item.truth_views, views.background)
        if self.mesh is None:
            return None
        background = torch.full((3,), views.background)
        return render_colours(self.mesh, self.cameras, self._raster, background, ssaa=views.ssaa)

    @cached_property
    def samples(self) -> Samples:
        return self.sampled(self._known, self.item.truth_depth)

    def sampled(self, mesh: Mesh, depth: TruthDepth | None = None) -> Samples:
        """Points of a surface as the protocol wants them: all over it, or what its views see of it.

        Args:
            depth: given depths of that very surface.
        """
        if self.protocol.surface == "all":
            return sample_surface(mesh, self.protocol.points)
        given = self.item.truth_depth
        return visible_samples(mesh, self.cameras if given is None else given.cameras, self._raster, depth)

    def input_camera(self, size: int) -> Cameras:
        """Whence the input was taken. Where neither framing nor size are fixed: as far away as the truth is large."""
        item = self.item
        where: dict[str, Any] = {"radius": item.radius, "target": self.shift.tolist()}
        if item.recenter and self.protocol.normalise == "extent" and self.box is not None:
            where = {"radius": item.radius * self.box.longest, "target": self.box.centre.tolist()}
        return orbit(item.elevation_deg, 0.0, fovy_deg=item.fovy_deg, height=size, **where)

    @cached_property
    def inside(self) -> Inside:
        return Inside.of(self._known, self._raster)

    @cached_property
    def pixels(self) -> tuple[Bool[Tensor, "V H W"], Bool[Tensor, "V H W"]]:
        """(visible, hidden): pixels of the views whose surface the input picture shows, and does not show."""
        depth = render_mesh(self._known, self.cameras, self._raster, torch.ones(3)).depth[..., 0]
        covered = depth > 0
        shown = torch.zeros_like(covered)
        shown[covered] = self._shown(unprojected(depth, covered, self.cameras))
        return covered & shown, covered & ~shown

    @cached_property
    def shown_samples(self) -> Bool[np.ndarray, " N"]:
        """Which of the samples the input picture shows."""
        return self._shown(torch.from_numpy(self.samples.points).float()).numpy()

    @property
    def _known(self) -> Mesh:
        if self.mesh is None:
            raise ValueError(f"{self.item.name} has no true mesh")
        return self.mesh

    @cached_property
    def _input_view(self) -> tuple[Cameras, Float[Tensor, "S S"]]:
        camera = self.input_camera(_DEPTH_PX)
        depth = render_mesh(self._known, camera, self._raster, torch.ones(3)).depth[0, ..., 0]
        return camera, torch.where(depth > 0, depth, torch.inf)

    def _shown(self, points: Float[Tensor, "P 3"]) -> Bool[Tensor, P]:
        camera, depth = self._input_view
        pixel, z = project(points, camera)
        column, row = pixel[0].floor().long().unbind(-1)
        within = (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
        # the deepest of the neighbours: a slanted surface changes its depth within a pixel
        finite = torch.where(depth.isinf(), -torch.inf, depth)[None, None]
        depth = torch.nn.functional.max_pool2d(finite, 3, stride=1, padding=1)[0, 0]
        nearest = depth[row.clamp(0, camera.height - 1), column.clamp(0, camera.width - 1)]
        return within & (z[0] <= nearest + _DEPTH_SLACK * self.box.longest)


def truth_of(item: Item, protocol: Protocol, raster: MeshRasterizer) -> Truth:
    """The item's truth, from memory if these files have been asked for under the same protocol before."""
    key = (_content(item), _circumstances(item, protocol), type(raster))
    if key not in _truths:
        _truths[key] = Truth(item, protocol, raster)
        while len(_truths) > _KEPT:
            _truths.popitem(last=False)
    _truths.move_to_end(key)
    return _truths[key]


_truths: OrderedDict[Any, Truth] = OrderedDict()


def forget() -> None:
    """Drops the truths in memory."""
    _truths.clear()


def input_of(item: Item, size: int) -> Float[Tensor, "S S 4"]:
    """The input picture as methods get it (background removed, recentred if the item says so), `size` pixels a side."""
    return _input(item.image, sha256(item.image), item.recenter, size)


def whole_input(item: Item) -> Float[Tensor, "S S 3"]:
    """The input picture on white, framed as its file has it, 512 pixels a side."""
    return over(_input(item.image, sha256(item.image), False, 512))


@lru_cache(maxsize=64)
def _input(path: Path, _content: str, recenter: bool, size: int) -> Float[Tensor, "S S 4"]:
    return load_reference(path, recenter=recenter, size=size).rgba[0]


def _placed(item: Item, protocol: Protocol) -> tuple[Mesh | None, Float[Tensor, 3]]:
    """The true mesh where it is measured, and by how much it was moved for that."""
    shift = torch.zeros(3)
    if item.truth is None:
        return None, shift
    mesh = load_mesh(item.truth)
    if item.truth_yaw_deg:
        mesh = turned(mesh, yaw_matrix(item.truth_yaw_deg))
    if protocol.normalise == "extent" and item.truth_views is None:
        shift = -box(used(mesh)).centre
        mesh = replace(mesh, vertices=mesh.vertices + shift)
    return mesh, shift


def _given(views: TruthViews, background: float) -> tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W 1"]]:
    """Raises ValueError where pictures have no alpha, differ in size from their cameras, or in number."""
    if len(views.pictures) != len(views.cameras):
        raise ValueError(f"{len(views.pictures)} true views but {len(views.cameras)} cameras")
    rgba = []
    for path in views.pictures:
        picture = read_png(path)
        if picture.shape[-1] != 4:
            raise ValueError(f"{path} has no alpha; true views need it")
        if tuple(picture.shape[:2]) != (views.cameras.height, views.cameras.width):
            size = f"{views.cameras.width} x {views.cameras.height}"
            raise ValueError(f"{path} is {picture.shape[1]} x {picture.shape[0]}, its camera {size}")
        rgba.append(picture)
    stacked = torch.stack(rgba)
    return over(stacked, background), stacked[..., 3:]


def _content(item: Item) -> tuple[Any, ...]:
    """What the files hold. Their names count too: an OBJ's pictures lie beside it."""
    files = [item.image, item.truth]
    cameras = []
    for given in (item.truth_views, item.truth_depth):
        if given is not None:
            files += given.pictures
            cameras += [given.cameras.c2w.numpy().tobytes(), given.cameras.K.numpy().tobytes(), given.cameras.height]
    return (*(None if path is None else (str(path.resolve()), sha256(path)) for path in files), *cameras)


def _circumstances(item: Item, protocol: Protocol) -> tuple[Any, ...]:
    depth = item.truth_depth
    lens = (item.elevation_deg, item.radius, item.fovy_deg, item.recenter, item.truth_yaw_deg)
    rules = (protocol.views, protocol.normalise, protocol.surface, protocol.points, protocol.volume_resolution)
    return (*lens, *rules, None if depth is None else (depth.near, depth.far, depth.valid))
