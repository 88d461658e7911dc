"""More toy objects: what stands, floats or flies outdoors."""

from __future__ import annotations

import numpy as np

from dg.data.sdf import (
    Model,
    Paint,
    Part,
    bar,
    blob,
    both,
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

_BLACK, _WHITE = "#20242c", "#fbf8f0"


def rocket() -> Model:
    """White and red with a round window, three fins, a hatch on the back and fire below."""
    white, red, blue = "#f3f1ea", "#dc3c37", "#3572c6"

    def fin(degrees: float):
        blade = both(box((0, -0.5, 0.36), (0.035, 0.26, 0.24), 0.03), lambda p: (p[:, 1] + 0.5 + p[:, 2] - 0.42) * 0.7)
        return turned(blade, degrees, 1)

    parts = (
        Part(ellipsoid((0, 0.1, 0), (0.3, 0.85, 0.3)), white),
        Part(fin(60), red, 0.03),
        Part(fin(180), red, 0.03),
        Part(fin(300), red, 0.03),
        Part(cone((0, -0.72, 0), (0, -0.55, 0), 0.2, 0.16), "#777f8a", 0.01),
        Part(capsule((0, -0.72, 0), (0.02, -0.95, 0), 0.14, 0.035), "#ff9a2e", 0.01),
        Part(turned(torus((0, 0.28, 0.27), 0.13, 0.035, 2), 8, 0, (0, 0.28, 0.27)), "#f2c43a", 0.01),
        Part(sphere((0, 0.92, 0), 0.05), "#f2c43a", 0.02),
    )

    def flame(p: np.ndarray) -> np.ndarray:
        return (np.hypot(p[:, 0], p[:, 2]) < 0.16) & (p[:, 1] < -0.74)

    paint = (
        Paint(lambda p: (p[:, 1] > 0.55) & (p[:, 1] < 0.9), red),
        Paint(lambda p: (np.abs(p[:, 1] + 0.12) < 0.04) & (np.hypot(p[:, 0], p[:, 2]) < 0.31), blue),
        Paint(lambda p: (np.abs(p[:, 1] + 0.24) < 0.02) & (np.hypot(p[:, 0], p[:, 2]) < 0.31), blue),
        Paint(disc(0, 0.28, 0.125), "#8fd3f4"),
        Paint(disc(-0.04, 0.32, 0.03), _WHITE),
        Paint(bar(0.06, 0.2, 0.13, 0.2, front=False), "#9aa3ad"),
        Paint(lambda p: (p[:, 2] < 0) & ((p[:, 0] - 0.13) ** 2 + (p[:, 1] - 0.2) ** 2 < 0.0008), red),
        Paint(lambda p: flame(p) & (np.sin(5 * np.arctan2(p[:, 0], p[:, 2])) * 0.05 + p[:, 1] < -0.84), "#ffd94a"),
    )
    return Model(parts, paint)


def mushroom_house() -> Model:
    """A toadstool with a door, a window on each side, a chimney, and a garden with a fence post and flowers."""
    stem, red = "#f6e6c4", "#d5342f"
    parts = (
        Part(cone((0, -0.72, 0), (0, -0.62, 0), 0.62, 0.58, 0.04), "#6fb54a"),
        Part(cone((0, -0.68, 0), (0, 0.22, 0), 0.38, 0.3, 0.05), stem, 0.05),
        Part(_cap, red, 0.03),
        Part(cone((0.3, 0.3, -0.12), (0.3, 0.78, -0.12), 0.09, 0.085), "#9b6a4a", 0.01),
        Part(cone((0.3, 0.76, -0.12), (0.3, 0.83, -0.12), 0.115, 0.115), "#7a4f36", 0.01),
        Part(turned(torus((0, -0.36, 0.345), 0.17, 0.028, 2), -4, 0, (0, -0.36, 0.34)), "#7a4f36", 0.01),
        Part(box((0, -0.6, 0.45), (0.15, 0.05, 0.12), 0.03), "#b9b3a8", 0.01),
        Part(sphere((-0.4, -0.57, 0.25), 0.1), "#3f9a4a", 0.03),
        Part(sphere((-0.46, -0.54, 0.08), 0.13), "#3f9a4a", 0.03),
        Part(capsule((0.42, -0.65, 0.28), (0.42, -0.46, 0.28), 0.04), "#b98a57", 0.01),
        Part(sphere((0.42, -0.41, 0.28), 0.075), "#f2c43a", 0.01),
    )
    spots = [(0.0, 0.45, 0.8, 0.22), (-0.6, 0.45, 0.5, 0.17), (0.6, 0.35, 0.6, 0.18), (-0.2, 0.85, 0.35, 0.14)]
    spots += [(0.3, 0.8, 0.45, 0.13), (-0.9, 0.25, -0.15, 0.2), (-0.3, 0.6, -0.7, 0.2), (0.5, 0.3, -0.75, 0.18)]
    spots += [(0.9, 0.3, 0.0, 0.17), (0.0, 1.0, -0.1, 0.15), (-0.85, 0.2, 0.5, 0.11), (-0.7, 0.2, -0.65, 0.13)]
    directions, angles = np.array(spots, np.float32)[:, :3], np.array(spots, np.float32)[:, 3]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def spot(p: np.ndarray) -> np.ndarray:
        """Round on the cap seen as a sphere."""
        q = (p - np.array([0, 0.14, 0], np.float32)) / np.array([0.7, 0.56, 0.7], np.float32)
        q /= np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-6)
        return (q @ directions.T > np.cos(angles)).any(1) & (np.abs(_cap(p)) < 0.02) & (p[:, 1] > 0.17)

    def window(x: float) -> Paint:
        side = np.sign(x)
        return Paint(
            lambda p: (p[:, 0] * side > 0.2) & (p[:, 2] ** 2 + (p[:, 1] + 0.2) ** 2 < 0.012) & _wall(p), "#8fd3f4"
        )

    paint = (
        Paint(lambda p: (_cap(p) < 0.01) & (p[:, 1] < 0.14), "#f3dcc0"),
        Paint(spot, _WHITE),
        Paint(
            lambda p: (np.abs(p[:, 0]) < 0.16) & (p[:, 1] < -0.36) & (p[:, 1] > -0.6) & (p[:, 2] > 0.2) & _wall(p),
            "#8a4b2a",
        ),
        Paint(lambda p: disc(0, -0.36, 0.16)(p) & _wall(p), "#8a4b2a"),
        Paint(lambda p: disc(0, -0.33, 0.06)(p) & _wall(p), "#ffe08a"),
        Paint(lambda p: disc(0.1, -0.46, 0.022)(p) & _wall(p), "#f2c43a"),
        window(1.0),
        Paint(
            lambda p: (p[:, 2] < -0.2) & (np.abs(p[:, 0] + 0.03) < 0.11) & (np.abs(p[:, 1] + 0.25) < 0.1) & _wall(p),
            "#8fd3f4",
        ),
        Paint(
            lambda p: (
                (p[:, 2] < -0.2)
                & ((np.abs(p[:, 0] + 0.03) < 0.015) | (np.abs(p[:, 1] + 0.25) < 0.015))
                & (np.abs(p[:, 0] + 0.03) < 0.11)
                & (np.abs(p[:, 1] + 0.25) < 0.1)
                & _wall(p)
            ),
            "#7a4f36",
        ),
        Paint(blob((0.42, -0.41, 0.36), 0.035), "#8a4b2a"),
        Paint(blob((-0.4, -0.5, 0.33), 0.04), "#f27fa5"),
        Paint(blob((-0.52, -0.47, 0.19), 0.04), "#f27fa5"),
    )
    return Model(parts, paint)


def _cap(p: np.ndarray) -> np.ndarray:
    dome = ellipsoid((0, 0.14, 0), (0.7, 0.56, 0.7))
    return both(dome, lambda q: 0.1 - q[:, 1] - 0.06 * np.minimum(np.hypot(q[:, 0], q[:, 2]), 0.8))(p)


def _wall(p: np.ndarray) -> np.ndarray:
    return np.abs(cone((0, -0.68, 0), (0, 0.22, 0), 0.38, 0.3, 0.05)(p)) < 0.012


def sailboat() -> Model:
    """Heading for +x: a striped hull, two sails with a sun on the larger one, a flag and a cabin."""
    wood, red, white = "#b9783f", "#d5342f", "#f7f3e6"

    def hull(p: np.ndarray) -> np.ndarray:
        shell = ellipsoid((0, -0.4, 0), (0.85, 0.36, 0.33))
        return both(shell, lambda q: q[:, 1] + 0.42 - 0.08 * np.maximum(q[:, 0], 0) ** 2)(p)

    def sail(x0: float, x1: float, bottom: float, top: float, z: float, bulge: float):
        """A triangle upright at x0 that ends in a point at x1, 0.05 thick and bent towards the front."""
        span = x1 - x0

        def distance(p: np.ndarray) -> np.ndarray:
            t, h = (p[:, 0] - x0) / span, (p[:, 1] - bottom) / (top - bottom)
            offset = z + bulge * np.clip(t, 0, 1) * np.clip(1 - t, 0, 1) * 4 * np.clip(1 - h, 0, 1)
            slope = np.hypot(1 / span, 1 / (top - bottom))
            outline = np.maximum(np.maximum(-t * abs(span), -h * (top - bottom)), (t + h - 1) / slope)
            return np.maximum(outline, np.abs(p[:, 2] - offset) - 0.028) * 0.8

        return distance

    main, jib = sail(-0.06, -0.72, -0.22, 0.8, 0.0, 0.12), sail(0.06, 0.66, -0.22, 0.6, 0.0, 0.1)
    parts = (
        Part(hull, red),
        Part(box((-0.32, -0.38, 0), (0.2, 0.1, 0.14), 0.04), white, 0.01),
        Part(capsule((0, -0.6, 0), (0, 0.92, 0), 0.042), wood, 0.02),
        Part(capsule((-0.72, -0.22, 0), (0.66, -0.22, 0), 0.034), wood, 0.01),
        Part(main, "#fff7df", 0.01),
        Part(jib, "#4d9bd6", 0.01),
        Part(box((-0.13, 0.86, 0), (0.13, 0.07, 0.028), 0.02), "#f2c43a", 0.01),
    )

    def on_main(p: np.ndarray) -> np.ndarray:
        return main(p) < 0.008

    paint = (
        Paint(lambda p: (hull(p) < 0.008) & (np.abs(p[:, 1] + 0.53) < 0.035), white),
        Paint(lambda p: (hull(p) < 0.008) & (p[:, 1] < -0.66), "#27476e"),
        Paint(
            lambda p: (
                (hull(p) < 0.008)
                & (p[:, 1] > -0.44 + 0.08 * np.maximum(p[:, 0], 0) ** 2)
                & (np.abs(p[:, 2]) < 0.28)
                & (np.abs(p[:, 0]) < 0.78)
            ),
            wood,
        ),
        Paint(
            lambda p: on_main(p) & ((p[:, 0] + 0.27) ** 2 + (p[:, 1] - 0.06) ** 2 < 0.018) & (p[:, 2] > 0), "#f28c28"
        ),
        Paint(lambda p: on_main(p) & (np.abs(p[:, 1] + 0.13) < 0.03), red),
        Paint(lambda p: (jib(p) < 0.008) & (np.abs(p[:, 1] + 0.0) < 0.045), white),
        Paint(
            lambda p: (
                (p[:, 2] > 0.1) & (np.abs(p[:, 1] + 0.35) < 0.04) & (np.abs(np.abs(p[:, 0] + 0.32) - 0.09) < 0.05)
            ),
            "#27476e",
        ),
        Paint(blob((0.55, -0.5, 0.27), 0.07), "#f2c43a"),
    )
    return Model(parts, paint)


def cactus() -> Model:
    """In a terracotta pot with a face; two arms of different height, a pink flower, darker ribs."""
    green, clay = "#4aa757", "#c8683a"

    def ribs(p: np.ndarray) -> np.ndarray:
        return 0.018 * np.cos(10 * np.arctan2(p[:, 0], p[:, 2]))

    trunk = capsule((0, -0.2, 0), (0, 0.62, 0), 0.25, 0.22)
    parts = (
        Part(cone((0, -0.9, 0), (0, -0.38, 0), 0.34, 0.44, 0.03), clay),
        Part(cone((0, -0.5, 0), (0, -0.32, 0), 0.5, 0.5, 0.05), "#d97f4c", 0.01),
        Part(cone((0, -0.5, 0), (0, -0.29, 0), 0.42, 0.42, 0.03), "#5a3d2b", 0.01),
        Part(lambda p: trunk(p) - ribs(p), green, 0.02),
        Part(capsule((-0.15, 0.1, 0), (-0.46, 0.16, 0.02), 0.11), green, 0.05),
        Part(capsule((-0.46, 0.16, 0.02), (-0.48, 0.48, 0.02), 0.115, 0.1), green, 0.05),
        Part(capsule((0.15, 0.26, 0), (0.42, 0.3, -0.03), 0.1), green, 0.05),
        Part(capsule((0.42, 0.3, -0.03), (0.45, 0.72, -0.03), 0.105, 0.09), green, 0.05),
        *(
            Part(
                ellipsoid((0.05 + 0.11 * np.sin(a), 0.87, 0.11 * np.cos(a)), (0.075, 0.05, 0.075)),
                "#f06a9b",
                0.02,
            )
            for a in np.linspace(0, 2 * np.pi, 5, endpoint=False)
        ),
        Part(sphere((0.05, 0.88, 0), 0.075), "#ffd94a", 0.01),
        Part(sphere((-0.28, -0.28, 0.2), 0.09), "#a7adb5", 0.02),
        Part(sphere((0.3, -0.29, 0.12), 0.07), "#8b929b", 0.02),
    )

    def pot(p: np.ndarray) -> np.ndarray:
        return p[:, 1] < -0.5

    def green_parts(p: np.ndarray) -> np.ndarray:
        return trunk(p) < 0.03

    paint = (
        Paint(
            lambda p: green_parts(p) & (np.cos(10 * np.arctan2(p[:, 0], p[:, 2])) < -0.75) & (p[:, 1] < 0.8), "#2f8145"
        ),
        Paint(lambda p: pot(p) & disc(-0.14, -0.62, 0.05, stretch=1.3)(p), _BLACK),
        Paint(lambda p: pot(p) & disc(0.14, -0.62, 0.05, stretch=1.3)(p), _BLACK),
        Paint(lambda p: pot(p) & disc(-0.125, -0.6, 0.017)(p), _WHITE),
        Paint(lambda p: pot(p) & disc(0.155, -0.6, 0.017)(p), _WHITE),
        Paint(lambda p: pot(p) & smile(0, -0.66, 0.07, 0.014)(p), _BLACK),
        Paint(lambda p: pot(p) & disc(-0.23, -0.7, 0.045)(p), "#f08f7a"),
        Paint(lambda p: pot(p) & disc(0.23, -0.7, 0.045)(p), "#f08f7a"),
        Paint(
            lambda p: pot(p) & (p[:, 2] < 0) & (np.abs(p[:, 1] + 0.68 - 0.05 * np.sin(9 * p[:, 0])) < 0.04), "#f2d9a0"
        ),
    )
    return Model(parts, paint)
