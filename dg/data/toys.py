"""The toy objects as models of coloured solids (`dg.data.sdf`); one function each, all with their front at +z."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dg.data.sdf import (
    Model,
    Paint,
    Part,
    bar,
    blob,
    box,
    capsule,
    cone,
    disc,
    ellipsoid,
    smile,
    sphere,
    torus,
    turned,
)
from dg.data.toys_kitchen import cake, mug
from dg.data.toys_outdoors import cactus, mushroom_house, rocket, sailboat

_BLACK, _WHITE = "#20242c", "#fbf8f0"


def robot() -> Model:
    """Teal, with a red bulb on its head, a panel of buttons, a key in its back and its left arm raised."""
    teal, grey, orange, dark = "#2f9ea8", "#aab4bd", "#f08a2c", "#35525e"
    parts = (
        Part(box((0, -0.05, 0), (0.36, 0.34, 0.25), 0.09), teal),
        Part(box((0, 0.55, 0), (0.31, 0.23, 0.24), 0.08), "#7fd0cf", 0.01),
        Part(cone((0, 0.25, 0), (0, 0.35, 0), 0.12, 0.12), grey),
        Part(capsule((0.1, 0.75, 0), (0.13, 0.93, 0), 0.028), grey),
        Part(sphere((0.135, 0.98, 0), 0.075), "#e8413b", 0.01),
        Part(cone((-0.36, 0.56, 0), (-0.29, 0.56, 0), 0.1, 0.1), orange, 0.01),
        Part(cone((0.29, 0.56, 0), (0.36, 0.56, 0), 0.1, 0.1), orange, 0.01),
        Part(capsule((-0.38, 0.14, 0), (-0.56, -0.14, 0.04), 0.075), grey),
        Part(sphere((-0.58, -0.2, 0.05), 0.115), orange, 0.01),
        Part(capsule((0.38, 0.14, 0), (0.6, 0.22, 0), 0.075), grey),
        Part(capsule((0.6, 0.22, 0), (0.68, 0.5, 0.06), 0.07), grey, 0.03),
        Part(sphere((0.69, 0.57, 0.07), 0.115), orange, 0.01),
        Part(cone((-0.17, -0.36, 0), (-0.17, -0.66, 0), 0.1, 0.1), dark),
        Part(cone((0.17, -0.36, 0), (0.17, -0.66, 0), 0.1, 0.1), dark),
        Part(box((-0.18, -0.72, 0.05), (0.15, 0.09, 0.22), 0.06), orange, 0.01),
        Part(box((0.18, -0.72, 0.05), (0.15, 0.09, 0.22), 0.06), orange, 0.01),
        Part(cone((0, 0.02, -0.2), (0, 0.02, -0.36), 0.04, 0.04), grey),
        Part(torus((-0.09, 0.02, -0.38), 0.075, 0.035, 2), "#f2c43a", 0.01),
        Part(torus((0.09, 0.02, -0.38), 0.075, 0.035, 2), "#f2c43a", 0.01),
    )
    paint = (
        Paint(bar(0, 0.56, 0.25, 0.15), dark),
        Paint(disc(-0.12, 0.59, 0.085), _WHITE),
        Paint(disc(0.12, 0.59, 0.085), _WHITE),
        Paint(disc(-0.105, 0.58, 0.045), _BLACK),
        Paint(disc(0.135, 0.58, 0.045), _BLACK),
        Paint(smile(0, 0.52, 0.07, 0.012), "#8df0c8"),
        Paint(bar(0, 0.0, 0.24, 0.17), "#f4efe0"),
        Paint(disc(-0.14, 0.07, 0.05), "#e8413b"),
        Paint(disc(0.0, 0.07, 0.05), "#f2c43a"),
        Paint(disc(0.14, 0.07, 0.05), "#57b947"),
        Paint(bar(-0.06, -0.07, 0.12, 0.05), "#3d6fd1"),
        Paint(bar(0.14, -0.07, 0.04, 0.05), _BLACK),
        Paint(bar(0, -0.27, 0.3, 0.025), "#f2c43a"),
        Paint(bar(0, -0.27, 0.3, 0.025, front=False), "#f2c43a"),
        Paint(bar(0, 0.55, 0.16, 0.1, front=False), "#d9dee2"),
    )
    return Model(parts, paint)


def teddy() -> Model:
    """Brown with a cream belly, a striped scarf, a patch on its back, and one paw up."""
    brown, cream = "#a9683a", "#f0d6a8"
    parts = (
        Part(ellipsoid((0, -0.2, 0), (0.38, 0.42, 0.33)), brown),
        Part(ellipsoid((0, 0.42, 0.02), (0.37, 0.33, 0.32)), brown, 0.05),
        Part(ellipsoid((-0.27, 0.7, 0), (0.14, 0.14, 0.085)), brown, 0.04),
        Part(ellipsoid((0.27, 0.7, 0), (0.14, 0.14, 0.085)), brown, 0.04),
        Part(ellipsoid((0, 0.33, 0.28), (0.17, 0.13, 0.13)), cream, 0.03),
        Part(ellipsoid((0, 0.385, 0.4), (0.065, 0.048, 0.04)), _BLACK, 0.005),
        Part(capsule((-0.32, 0.02, 0.05), (-0.56, -0.2, 0.14), 0.115, 0.125), brown, 0.06),
        Part(capsule((0.32, 0.02, 0.03), (0.62, 0.3, 0.1), 0.115, 0.125), brown, 0.06),
        Part(capsule((-0.2, -0.5, 0.1), (-0.3, -0.58, 0.4), 0.16, 0.15), brown, 0.06),
        Part(capsule((0.2, -0.5, 0.1), (0.3, -0.58, 0.4), 0.16, 0.15), brown, 0.06),
        Part(sphere((0, -0.42, -0.33), 0.1), cream, 0.04),
        Part(turned(torus((0, 0.13, 0.0), 0.255, 0.075), 6, 0), "#d8353f", 0.01),
        Part(box((0.14, -0.08, 0.31), (0.07, 0.2, 0.04), 0.035), "#d8353f", 0.02),
    )
    paint = (
        Paint(
            lambda p: ((p[:, 0] / 0.24) ** 2 + ((p[:, 1] + 0.23) / 0.27) ** 2 < 1) & (p[:, 2] > 0.22) & _plain(p), cream
        ),
        Paint(disc(-0.27, 0.7, 0.08), cream),
        Paint(disc(0.27, 0.7, 0.08), cream),
        Paint(disc(-0.15, 0.5, 0.055, stretch=1.2), _BLACK),
        Paint(disc(0.15, 0.5, 0.055, stretch=1.2), _BLACK),
        Paint(disc(-0.135, 0.525, 0.018), _WHITE),
        Paint(disc(0.165, 0.525, 0.018), _WHITE),
        Paint(smile(0, 0.33, 0.06, 0.012), _BLACK),
        Paint(lambda p: ((p[:, 0] + 0.32) ** 2 + (p[:, 1] + 0.59) ** 2 < 0.009) & (p[:, 2] > 0.42), cream),
        Paint(lambda p: ((p[:, 0] - 0.32) ** 2 + (p[:, 1] + 0.59) ** 2 < 0.009) & (p[:, 2] > 0.42), cream),
        Paint(lambda p: _scarf(p) & (np.sin(24 * np.arctan2(p[:, 0], p[:, 2])) > 0.3) & (p[:, 1] > 0.04), "#fbe9c8"),
        Paint(lambda p: _tail(p) & (np.sin(45 * p[:, 1]) > 0.3), "#fbe9c8"),
        Paint(bar(-0.12, -0.12, 0.11, 0.11, front=False), "#4f86c6"),
    )
    return Model(parts, paint)


def _scarf(p: np.ndarray) -> np.ndarray:
    return turned(torus((0, 0.13, 0.0), 0.255, 0.075), 6, 0)(p) < 0.012


def _tail(p: np.ndarray) -> np.ndarray:
    return box((0.14, -0.08, 0.31), (0.07, 0.2, 0.04), 0.035)(p) < 0.006


def _plain(p: np.ndarray) -> np.ndarray:
    return ~_scarf(p) & ~_tail(p)


def snowman() -> Model:
    """Three balls with a top hat, a carrot, coal buttons, a green scarf, a broom on one side and a waving arm."""
    snow, wood, green = "#f4f7fb", "#7a4a2a", "#2f9b57"
    parts = (
        Part(ellipsoid((0, -0.55, 0), (0.44, 0.4, 0.44)), snow),
        Part(sphere((0, 0.02, 0), 0.32), snow, 0.03),
        Part(sphere((0, 0.47, 0), 0.25), snow, 0.03),
        Part(cone((0, 0.63, -0.02), (0, 0.68, -0.03), 0.3, 0.3), _BLACK, 0.01),
        Part(cone((0, 0.66, -0.03), (0.02, 0.98, -0.06), 0.19, 0.21), _BLACK, 0.02),
        Part(cone((0.0, 0.685, -0.03), (0.004, 0.76, -0.037), 0.2, 0.205, 0.01), "#d8353f", 0.005),
        Part(capsule((0, 0.47, 0.22), (0.03, 0.44, 0.48), 0.06, 0.015), "#f0842c", 0.01),
        Part(torus((0, 0.27, 0), 0.215, 0.075), green, 0.01),
        Part(box((-0.13, 0.08, 0.3), (0.07, 0.17, 0.04), 0.035), green, 0.02),
        Part(capsule((0.28, 0.1, 0), (0.66, 0.36, 0.02), 0.04), wood),
        Part(capsule((0.56, 0.29, 0.015), (0.6, 0.48, 0.02), 0.032), wood),
        Part(capsule((-0.28, 0.08, 0), (-0.56, -0.08, 0.12), 0.04), wood),
        Part(capsule((-0.58, 0.3, 0.12), (-0.56, -0.5, 0.12), 0.035), "#c08a4e", 0.01),
        Part(cone((-0.56, -0.44, 0.12), (-0.55, -0.86, 0.12), 0.07, 0.17), "#e8b33f", 0.02),
        Part(sphere((0, 0.1, 0.315), 0.042), _BLACK, 0.005),
        Part(sphere((0, -0.04, 0.32), 0.042), _BLACK, 0.005),
        Part(sphere((0, -0.42, 0.42), 0.046), _BLACK, 0.005),
        Part(sphere((0, -0.58, 0.44), 0.046), _BLACK, 0.005),
    )
    paint = (
        Paint(blob((-0.09, 0.54, 0.22), 0.042), _BLACK),
        Paint(blob((0.09, 0.54, 0.22), 0.042), _BLACK),
        Paint(lambda p: smile(0, 0.45, 0.12, 0.016, 50)(p) & (p[:, 1] > 0.3) & (p[:, 2] > 0.16), _BLACK),
        Paint(
            lambda p: (
                (torus((0, 0.27, 0), 0.215, 0.075)(p) < 0.012) & (np.sin(18 * np.arctan2(p[:, 0], p[:, 2])) > 0.4)
            ),
            "#f2d24b",
        ),
        Paint(
            lambda p: (box((-0.13, 0.08, 0.3), (0.07, 0.17, 0.04), 0.035)(p) < 0.006) & (np.sin(48 * p[:, 1]) > 0.4),
            "#f2d24b",
        ),
        Paint(lambda p: (np.abs(p[:, 1] + 0.52) < 0.02) & (p[:, 0] < -0.44) & (p[:, 2] > 0), "#d8353f"),
    )
    return Model(parts, paint)


def car() -> Model:
    """A red car seen from its front, with a surfboard on the roof and a number on one door."""
    red, glass, tyre = "#dd3b36", "#9fd4ee", "#2b2d33"
    wheels = [(x, z) for x in (-0.37, 0.37) for z in (-0.5, 0.52)]
    parts = [
        Part(box((0, -0.12, 0), (0.4, 0.2, 0.88), 0.14), red),
        Part(box((0, 0.18, -0.12), (0.33, 0.22, 0.48), 0.14), red, 0.12),
        Part(box((0, -0.25, 0.86), (0.38, 0.06, 0.07), 0.05), "#c9ced6", 0.01),
        Part(box((0, -0.25, -0.86), (0.38, 0.06, 0.07), 0.05), "#c9ced6", 0.01),
        Part(capsule((0.1, 0.45, -0.6), (0.06, 0.45, 0.42), 0.075), "#f5bf3b", 0.01),
    ]
    for x, z in wheels:
        side = 0.1 if x > 0 else -0.1
        parts.append(Part(cone((x - side, -0.3, z), (x + side, -0.3, z), 0.2, 0.2, 0.05), tyre, 0.01))
        parts.append(Part(cone((x, -0.3, z), (x + side * 1.15, -0.3, z), 0.1, 0.1), "#e7e9ec", 0.005))

    def cabin(p: np.ndarray) -> np.ndarray:
        return (p[:, 1] > 0.13) & (p[:, 1] < 0.31)

    paint = (
        Paint(lambda p: cabin(p) & (p[:, 2] > 0.2) & (np.abs(p[:, 0]) < 0.26), glass),
        Paint(lambda p: cabin(p) & (p[:, 2] < -0.5) & (np.abs(p[:, 0]) < 0.24), glass),
        Paint(lambda p: cabin(p) & (np.abs(p[:, 0]) > 0.28) & (np.abs(np.abs(p[:, 2] + 0.12) - 0.18) < 0.14), glass),
        Paint(lambda p: ((np.abs(p[:, 0]) - 0.27) ** 2 + (p[:, 1] + 0.04) ** 2 < 0.0064) & (p[:, 2] > 0.7), "#fff3b0"),
        Paint(
            lambda p: (np.abs(np.abs(p[:, 0]) - 0.27) < 0.07) & (np.abs(p[:, 1] + 0.06) < 0.05) & (p[:, 2] < -0.7),
            "#ffb02e",
        ),
        Paint(lambda p: (np.abs(p[:, 0]) < 0.15) & (np.abs(p[:, 1] + 0.08) < 0.07) & (p[:, 2] > 0.75), tyre),
        Paint(lambda p: (np.abs(p[:, 0]) < 0.12) & (np.abs(p[:, 1] + 0.08) < 0.06) & (p[:, 2] < -0.75), _WHITE),
        Paint(
            lambda p: (np.abs(p[:, 0] + 0.2) < 0.045) & (p[:, 1] > -0.05) & (p[:, 2] > 0.3) & (p[:, 1] < 0.12), _WHITE
        ),
        Paint(lambda p: (p[:, 0] > 0.3) & ((p[:, 2] + 0.1) ** 2 + (p[:, 1] + 0.09) ** 2 < 0.012), _WHITE),
        Paint(lambda p: (p[:, 0] > 0.3) & (np.abs(p[:, 2] + 0.1) < 0.02) & (np.abs(p[:, 1] + 0.09) < 0.07), _BLACK),
        Paint(lambda p: (p[:, 0] < -0.3) & (np.abs(p[:, 1] + 0.09) < 0.03) & (np.abs(p[:, 2]) < 0.3), "#f5bf3b"),
        Paint(lambda p: (p[:, 1] > 0.36) & (np.abs(p[:, 0] - 0.08) < 0.03) & (p[:, 2] > -0.55), "#2f6fb5"),
    )
    return Model(tuple(parts), paint)


TOYS: dict[str, Callable[[], Model]] = {
    f.__name__: f for f in (robot, teddy, snowman, mug, car, cake, rocket, mushroom_house, sailboat, cactus)
}
