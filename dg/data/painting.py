"""Random textures for procedural objects: palettes, patterns, and the atlas that holds one patch per part."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

Rng = np.random.Generator
Colours = Float[np.ndarray, "n 3"]
KINDS = {"plain": 0.3, "gradient": 0.15, "stripes": 0.15, "checks": 0.08, "dots": 0.08, "noise": 0.14, "bands": 0.1}


def palette(rng: Rng, n: int = 5) -> Colours:
    """Colours in [0, 1] that go together: a few hues, random saturation and value, often one near black or white."""
    hue = (rng.random() + rng.choice([0, 0.04, 0.08, 0.33, 0.5], n) + rng.normal(0, 0.02, n)) % 1
    saturation = rng.beta(1.6, 1.4, n) * rng.choice([0.15, 0.7, 1.0])
    value = rng.beta(2.2, 1.3, n)
    k = (np.array([5, 3, 1]) + hue[:, None] * 6) % 6  # HSV to RGB (Smith 1978)
    colours = value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))
    if rng.random() < 0.4:
        colours[rng.integers(n)] = rng.choice([0.05, 0.95]) + rng.normal(0, 0.02)
    return np.clip(colours, 0, 1)


def smooth_noise(rng: Rng, size: int, cells: int) -> Float[np.ndarray, "size size"]:
    """Value noise in [0, 1]: a random grid, interpolated with a cubic fade."""
    knots = rng.random((cells + 1, cells + 1))
    x = np.linspace(0, cells - 1e-6, size)
    i, f = x.astype(int), x % 1
    f = f * f * (3 - 2 * f)
    rows = knots[i] * (1 - f)[:, None] + knots[i + 1] * f[:, None]
    return rows[:, i] * (1 - f) + rows[:, i + 1] * f


def pattern(rng: Rng, size: int, colours: Colours) -> Float[np.ndarray, "size size 3"]:
    """One patch: a mask between two colours, some noise over it, sometimes decals."""
    a, b = colours[rng.integers(len(colours), size=2)]
    y, x = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    count = int(rng.integers(2, 8))
    if kind == "gradient":
        mask = y if rng.random() < 0.7 else x
    elif kind == "stripes":
        angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
        mask = np.sin(2 * np.pi * count * (x * np.cos(angle) + y * np.sin(angle))) > rng.uniform(-0.6, 0.6)
    elif kind == "checks":
        mask = (np.floor(x * count) + np.floor(y * count)) % 2
    elif kind == "dots":
        mask = ((x * count) % 1 - 0.5) ** 2 + ((y * count) % 1 - 0.5) ** 2 < rng.uniform(0.04, 0.16)
    elif kind == "noise":
        mask = smooth_noise(rng, size, count)
        mask = mask > rng.uniform(0.35, 0.65) if rng.random() < 0.6 else mask
    elif kind == "bands":
        mask = (rng.random(count) < 0.5)[np.minimum((y * count).astype(int), count - 1)]
    else:
        mask = np.zeros_like(x)
    mask = np.asarray(mask, float)[..., None]
    out = a * (1 - mask) + b * mask
    out = out + rng.uniform(0, 0.16) * (smooth_noise(rng, size, int(rng.integers(2, 10)))[..., None] - 0.5)
    for _ in range(int(rng.choice([0, 0, 0, 1, 2]))):
        out = decal(rng, out, x, y, colours[rng.integers(len(colours))])
    return np.clip(out, 0, 1)


def decal(rng: Rng, patch: np.ndarray, x: np.ndarray, y: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """An ellipse, a rectangle or a ring somewhere on the patch."""
    cx, cy = rng.uniform(0.15, 0.85, 2)
    w, h = rng.uniform(0.05, 0.3, 2)
    u, v = (x - cx) / w, (y - cy) / h
    distance = np.maximum(np.abs(u), np.abs(v)) if rng.random() < 0.5 else np.hypot(u, v)
    inside = (distance < 1) & ((distance > 0.6) | (rng.random() < 0.8))
    return np.where(inside[..., None], colour, patch)


def atlas(rng: Rng, side: int, count: int, colours: Colours, size: int = 128) -> UInt8[np.ndarray, "size size 3"]:
    """`count` patches in a grid of side x side cells, row by row."""
    edges = np.round(np.linspace(0, size, side + 1)).astype(int)
    out = np.zeros((size, size, 3))
    for cell in range(count):
        row, column = divmod(cell, side)
        patch = pattern(rng, int(np.diff(edges).max()), colours)
        (r0, r1), (c0, c1) = edges[row : row + 2], edges[column : column + 2]
        out[r0:r1, c0:c1] = patch[: r1 - r0, : c1 - c0]
    return (out * 255 + 0.5).astype(np.uint8)
