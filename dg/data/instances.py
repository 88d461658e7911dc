"""Random instances of training objects: how each is turned, stretched, recoloured, lit, framed, and seen from where.

Two framings occur in use and both are trained: an object of longest side 1 at radius 2 (fills about 0.55 of the frame;
benchmarks' front views), and a picture recentred so that the object fills 0.8 (`dg.data.image`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core import camera
from dg.data.pool import Look, extent
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


def first_views(views: Viewpoints) -> Viewpoints:
    """The references alone."""
    return Viewpoints(views.elevation[:, :1], views.azimuth[:, :1], views.radius, views.fovy)


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


@dataclass(frozen=True)
class Warps:
    """A smooth deformation per instance: a sum of K plane waves, the same on the object's left and right."""

    wave: Float[Tensor, "M K 3"]  # radians per unit
    phase: Float[Tensor, "M K"]
    shift: Float[Tensor, "M K 3"]  # units

    def __call__(self, points: Float[Tensor, "P 3"], owner: Int[Tensor, "P"]) -> Float[Tensor, "P 3"]:
        """Bends, tapers and bulges `points` (object's own axes, front at +z). What is symmetric in x stays so."""
        side = torch.cat([points[:, :1].abs(), points[:, 1:]], 1)
        angle = (self.wave[owner] * side[:, None]).sum(-1) + self.phase[owner]
        moved = (angle.sin()[..., None] * self.shift[owner]).sum(1)
        across = torch.tanh(points[:, :1] * 8)  # 0 in the plane of symmetry, so that nothing tears there
        return points + torch.cat([moved[:, :1] * across, moved[:, 1:]], 1)


def draw_warps(m: int, strength: float, generator: torch.Generator, waves: int = 4) -> Warps:
    """Half of the instances keep their shape; `strength` is the other half's largest shift by one wave, in units."""
    wave = torch.randn(m, waves, 3, generator=generator) * 2.5
    phase = torch.rand(m, waves, generator=generator) * 2 * math.pi
    size = strength * torch.rand(m, 1, 1, generator=generator) * (torch.rand(m, 1, 1, generator=generator) < 0.5)
    return Warps(wave, phase, torch.randn(m, waves, 3, generator=generator).clamp(-1, 1) * size)


def frame(
    points: Float[Tensor, "P 3"],
    owner: Int[Tensor, "P"],
    recentred: Tensor,
    fill: Float[Tensor, "M"],
    views: Viewpoints,
) -> Float[Tensor, "P 3"]:
    """Scales and shifts each instance: longest side 1 and centred, or so that the reference fills `fill` of the frame.

    Where a recentred object would reach too far (a car seen from its front), its depth is squeezed, by half at most,
    and then all of it is scaled down.
    """
    m = len(fill)
    low, high = extent(points, owner, m)
    longest = (high - low).amax(-1)
    p = (points - ((low + high) / 2)[owner]) / longest[owner, None]
    cameras = first_views(views).cameras(2)
    right, down, forward, eye = cameras.c2w[:, :3].unbind(-1)
    flat = torch.nn.functional.normalize(forward * forward.new_tensor([1, 0, 1]), dim=-1)
    tangent = torch.tan(torch.deg2rad(views.fovy) / 2)
    chosen = recentred.to(p.device)[owner, None]

    def ndc(q: Tensor) -> tuple[Tensor, Tensor]:
        offset = q - eye[owner]
        depth = (offset * forward[owner]).sum(-1).clamp_min(0.05) * tangent[owner]
        xy = torch.stack([(offset * right[owner]).sum(-1), (offset * down[owner]).sum(-1)], -1) / depth[:, None]
        return extent(xy, owner, m)

    def to_frame(q: Tensor) -> Tensor:
        for _ in range(4):
            a, b = ndc(q)
            middle = (a + b) / 2 * (views.radius * tangent)[:, None]
            shift = right * middle[:, :1] + down * middle[:, 1:]
            scale = 2 * fill / (b - a).amax(-1)
            q = torch.where(chosen, (q - shift[owner]) * scale.clamp(0.5, 2.0)[owner, None], q)
        return q

    def reach(q: Tensor) -> Tensor:
        return extent(q.norm(dim=-1, keepdim=True), owner, m)[1][:, 0]

    q = to_frame(p)
    squeeze = (1 - (REACH / reach(q)).clamp(0.5, 1))[owner, None]
    along = (q * flat[owner]).sum(-1, keepdim=True) * flat[owner]
    q = to_frame(torch.where(chosen, q - squeeze * along, q))
    return torch.where(chosen, q * (REACH / reach(q)).clamp_max(1)[owner, None], q)
