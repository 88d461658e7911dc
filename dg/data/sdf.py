"""Solids as signed distance functions, with a colour for every part and paint on top: what the toy objects are made of.

Points are float32 [N, 3]. Distances are negative inside; those of `ellipsoid` and of blended solids are bounds near the
surface, which is all that an iso-surface needs. Formulas: Inigo Quilez, "Distance functions".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

Points = Float[np.ndarray, "N 3"]
Distance = Callable[[Points], Float[np.ndarray, " N"]]
Where = Callable[[Points], Bool[np.ndarray, " N"]]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    distance: Distance
    colour: str  # "#rrggbb", sRGB
    blend: float = 0.02  # radius of the fillet towards what is there already
    cut: bool = False  # takes away instead of adding


@dataclass(frozen=True)
class Paint:
    where: Where
    colour: str


@dataclass(frozen=True)
class Model:
    parts: tuple[Part, ...]
    paint: tuple[Paint, ...] = field(default=())

    def distance(self, p: Points) -> Float[np.ndarray, " N"]:
        total = np.full(len(p), 1e3, np.float32)
        for part in self.parts:
            d = part.distance(p)
            total = -_smooth_min(-total, d, part.blend) if part.cut else _smooth_min(total, d, part.blend)
        return total

    def colour(self, p: Points) -> Float[np.ndarray, "N 3"]:
        """The colour of the nearest part, under the paint; for points near the surface. sRGB in [0, 1]."""
        nearest, out = np.full(len(p), np.inf, np.float32), np.zeros((len(p), 3), np.float32)
        for part in self.parts:
            d = part.distance(p)
            closer = np.abs(d) < 0.5 * part.blend + 0.004 if part.cut else d < nearest
            out[closer] = rgb(part.colour)
            nearest = np.where(closer, d, nearest)
        for layer in self.paint:
            out[layer.where(p)] = rgb(layer.colour)
        return out


def rgb(colour: str) -> Float[np.ndarray, " 3"]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255


def sphere(centre: Vector, radius: float) -> Distance:
    return lambda p: _length(p - _vec(centre)) - radius


def ellipsoid(centre: Vector, radii: Vector) -> Distance:
    def distance(p: Points) -> np.ndarray:
        q = p - _vec(centre)
        near, far = _length(q / _vec(radii)), _length(q / _vec(radii) ** 2)
        return near * (near - 1) / np.maximum(far, 1e-6)

    return distance


def box(centre: Vector, half: Vector, rounding: float = 0.05) -> Distance:
    def distance(p: Points) -> np.ndarray:
        q = np.abs(p - _vec(centre)) - (_vec(half) - rounding)
        return _length(np.maximum(q, 0)) + np.minimum(q.max(1), 0) - rounding

    return distance


def cone(a: Vector, b: Vector, radius_a: float, radius_b: float, rounding: float = 0.02) -> Distance:
    """A cylinder or cut cone with flat, rounded ends between two points; exact for cylinders, a bound for cones."""
    axis = _vec(b) - _vec(a)
    length = float(np.linalg.norm(axis))
    axis = axis / length
    slant = length / np.hypot(length, radius_a - radius_b)

    def distance(p: Points) -> np.ndarray:
        along = (p - _vec(a)) @ axis
        across = _length(p - _vec(a) - along[:, None] * axis)
        radius = radius_a + (radius_b - radius_a) * np.clip(along / length, 0, 1)
        q = np.stack([(across - radius) * slant, np.abs(along - length / 2) - length / 2], 1) + rounding
        return _length(np.maximum(q, 0)) + np.minimum(q.max(1), 0) - rounding

    return distance


def capsule(a: Vector, b: Vector, radius_a: float, radius_b: float | None = None) -> Distance:
    """A rod with round ends, its radius changing evenly along it."""
    radius_b = radius_a if radius_b is None else radius_b
    axis = _vec(b) - _vec(a)

    def distance(p: Points) -> np.ndarray:
        t = np.clip((p - _vec(a)) @ axis / (axis @ axis), 0, 1)
        return _length(p - _vec(a) - t[:, None] * axis) - (radius_a + (radius_b - radius_a) * t)

    return distance


def torus(centre: Vector, ring: float, tube: float, axis: int = 1) -> Distance:
    """A ring around a coordinate axis (0 x, 1 y, 2 z)."""
    others = [i for i in range(3) if i != axis]

    def distance(p: Points) -> np.ndarray:
        q = p - _vec(centre)
        return np.hypot(_length(q[:, others]) - ring, q[:, axis]) - tube

    return distance


def turned(distance: Distance, degrees: float, axis: int, pivot: Vector = (0.0, 0.0, 0.0)) -> Distance:
    """The solid turned counter-clockwise about a line through `pivot` parallel to a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def moved(p: Points) -> np.ndarray:
        q = p - _vec(pivot)
        back = q.copy()
        back[:, i], back[:, j] = c * q[:, i] + s * q[:, j], -s * q[:, i] + c * q[:, j]
        return distance(back + _vec(pivot))

    return moved


def both(a: Distance, b: Distance) -> Distance:
    """What two solids have in common."""
    return lambda p: np.maximum(a(p), b(p))


def disc(x: float, y: float, radius: float, front: bool = True, stretch: float = 1.0) -> Where:
    """Paint: a round spot seen from the front (z > 0) or from behind; `stretch` makes it taller."""

    def where(p: Points) -> np.ndarray:
        inside = (p[:, 0] - x) ** 2 + ((p[:, 1] - y) / stretch) ** 2 < radius**2
        return inside & ((p[:, 2] > 0) == front)

    return where


def bar(x: float, y: float, half_x: float, half_y: float, front: bool = True) -> Where:
    """Paint: an upright rectangle seen from the front or from behind."""
    return lambda p: (np.abs(p[:, 0] - x) < half_x) & (np.abs(p[:, 1] - y) < half_y) & ((p[:, 2] > 0) == front)


def smile(x: float, y: float, radius: float, width: float, opening_deg: float = 60.0) -> Where:
    """Paint: the lower arc of a circle on the front."""

    def where(p: Points) -> np.ndarray:
        dx, dy = p[:, 0] - x, p[:, 1] - y
        on_arc = np.abs(np.hypot(dx, dy) - radius) < width
        return on_arc & (np.abs(np.degrees(np.arctan2(dx, -dy))) < opening_deg) & (p[:, 2] > 0)

    return where


def blob(centre: Vector, radius: float) -> Where:
    """Paint: everything within a ball."""
    return lambda p: _length(p - _vec(centre)) < radius


def _vec(v: Vector) -> np.ndarray:
    return np.asarray(v, np.float32)


def _length(v: np.ndarray) -> np.ndarray:
    return np.sqrt((v * v).sum(-1))


def _smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    if k <= 0:
        return np.minimum(a, b)
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * (k / 4)
