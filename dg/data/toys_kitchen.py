"""Toy objects from the kitchen."""

from __future__ import annotations

import numpy as np

from dg.data.sdf import Model, Paint, Part, blob, both, cone, ellipsoid, sphere, torus

_WHITE = "#fbf8f0"


def mug() -> Model:
    """A yellow mug with a heart, a blue rim, cocoa inside and its handle on the right: the object with a hole."""
    yellow, blue, cocoa = "#f5bf3b", "#2f6fb5", "#6b3f26"
    parts = (
        Part(cone((0, -0.5, 0), (0, 0.5, 0), 0.42, 0.46, 0.05), yellow),
        Part(lambda p: _handle(p), blue, 0.05),
        Part(cone((0, -0.3, 0), (0, 0.7, 0), 0.36, 0.4, 0.02), "#fff4d6", 0.03, cut=True),
        Part(cone((0, -0.4, 0), (0, 0.3, 0), 0.38, 0.4, 0.0), cocoa, 0.01),
        Part(sphere((-0.13, 0.31, 0.1), 0.1), _WHITE, 0.01),
        Part(sphere((0.1, 0.31, -0.08), 0.09), "#f8c8d4", 0.01),
    )

    def outer(p: np.ndarray) -> np.ndarray:
        return (np.hypot(p[:, 0], p[:, 2]) > 0.41) & (_handle(p) > 0.01)

    def heart(p: np.ndarray) -> np.ndarray:
        x, y = p[:, 0] / 0.21, (p[:, 1] - 0.02) / 0.21
        return ((x * x + y * y - 1) ** 3 - x * x * y**3 < 0) & (p[:, 2] > 0)

    paint = (
        Paint(lambda p: outer(p) & (p[:, 1] > 0.38), blue),
        Paint(lambda p: outer(p) & (np.abs(p[:, 1] + 0.4) < 0.035), blue),
        Paint(lambda p: outer(p) & heart(p), "#e23d4b"),
        Paint(lambda p: outer(p) & (p[:, 2] < 0) & (_star(p[:, 0], p[:, 1], 0.2) < 0), "#3fa66b"),
    )
    return Model(parts, paint)


def _handle(p: np.ndarray) -> np.ndarray:
    ring = torus((0.5, 0.0, 0), 0.25, 0.07, 2)
    return both(ring, lambda q: 0.36 - q[:, 0])(p)


def _star(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Negative inside a five-pointed star."""
    angle = np.arctan2(x, y) % (2 * np.pi / 5)
    angle = np.abs(angle - np.pi / 5)
    return np.hypot(x, y) - radius * 0.4 / np.cos(np.pi / 5 - angle) ** 3.2


def cake() -> Model:
    """Two tiers with icing that drips, candles, cherries, and a slice missing at the front right."""
    pink, cream, sponge = "#f59ab5", "#fff1d8", "#e2a75a"
    parts = [
        Part(cone((0, -0.5, 0), (0, -0.43, 0), 0.7, 0.74, 0.03), "#6cc3d5"),
        Part(cone((0, -0.45, 0), (0, -0.02, 0), 0.6, 0.6, 0.06), cream, 0.01),
        Part(cone((0, -0.05, 0), (0, 0.3, 0), 0.38, 0.38, 0.06), cream, 0.02),
    ]
    wedge = both(lambda p: 0.12 - p[:, 0], lambda p: 0.1 - p[:, 2])
    parts.append(Part(both(wedge, lambda p: -0.42 - p[:, 1]), sponge, 0.02, cut=True))
    for x, z, colour in ((-0.17, 0.14, "#3d6fd1"), (0.02, -0.17, "#57b947"), (-0.2, -0.16, "#e8413b")):
        parts.append(Part(cone((x, 0.25, z), (x, 0.58, z), 0.04, 0.04), colour, 0.01))
        parts.append(Part(ellipsoid((x, 0.65, z), (0.045, 0.085, 0.045)), "#ffb02e", 0.01))
    for degrees in range(90, 360, 45):
        a = np.radians(degrees + 20)
        parts.append(Part(sphere((0.49 * np.sin(a), 0.02, 0.49 * np.cos(a)), 0.07), "#d3202f", 0.01))

    def tier(p: np.ndarray, top: float, depth: float, count: int, radius: float) -> np.ndarray:
        angle = np.arctan2(p[:, 0], p[:, 2])
        edge = top - depth * (0.65 + 0.35 * np.sin(count * angle) + 0.15 * np.sin(3 * angle))
        distance = np.hypot(p[:, 0], p[:, 2])
        return (p[:, 1] > edge) & (p[:, 1] < top + 0.02) & (distance < radius + 0.02) & _skin(p)

    def _skin(p: np.ndarray) -> np.ndarray:
        return (parts[1].distance(p) > -0.012) & (parts[1].distance(p) < 0.03) | (np.abs(parts[2].distance(p)) < 0.012)

    def crumbs(p: np.ndarray) -> np.ndarray:
        depth = np.minimum(parts[1].distance(p), parts[2].distance(p))
        return (depth < -0.02) & (wedge(p) < 0.03) & (p[:, 1] > -0.42)

    def jam(p: np.ndarray) -> np.ndarray:
        return crumbs(p) & ((np.abs(p[:, 1] + 0.22) < 0.03) | (np.abs(p[:, 1] - 0.12) < 0.025))

    flames = [Paint(blob((x, 0.69, z), 0.045), "#fff3b0") for x, z in ((-0.17, 0.17), (0.02, -0.14), (-0.2, -0.13))]
    paint = (
        Paint(lambda p: tier(p, -0.02, 0.2, 11, 0.6), pink),
        Paint(lambda p: tier(p, 0.3, 0.16, 8, 0.38) & (np.hypot(p[:, 0], p[:, 2]) < 0.4), pink),
        Paint(crumbs, sponge),
        Paint(jam, "#d3202f"),
        Paint(lambda p: (wedge(p) < 0.02) & (p[:, 1] < -0.405), "#6cc3d5"),
        *flames,
    )
    return Model(tuple(parts), paint)
