"""Random textured objects for training the embedded prior: unlimited, and free of anybody's rights.

An object is a handful of parts. Each part is a map from the unit square to space (ellipsoids, supershapes, surfaces of
revolution, tubes, tori, prisms) or a box; its patch of the texture atlas gets a random pattern in the object's palette.
Plans put parts together: piles, creatures, vehicles, vessels, furniture, buildings, plants, blobs. Everything
follows from the generator that is passed in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

import numpy as np

from dg.data.library import TexturedObject
from dg.data.painting import atlas, palette

Rng = np.random.Generator
Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # vertices [P 3], uv in [0, 1] [P 2], faces [F 3]


def grid(surface: Callable[[np.ndarray, np.ndarray], np.ndarray], nu: int, nv: int) -> Part:
    """The image of the unit square under (u, v) -> xyz, as nu x nv quads split into triangles."""
    u, v = np.meshgrid(np.linspace(0, 1, nu + 1), np.linspace(0, 1, nv + 1), indexing="ij")
    points = surface(u, v).reshape(-1, 3)
    i = np.arange(nu)[:, None] * (nv + 1) + np.arange(nv)
    quads = np.stack([i, i + nv + 1, i + nv + 2, i + 1], -1).reshape(-1, 4)
    return points, np.stack([u, v], -1).reshape(-1, 2), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _power(x: np.ndarray, e: float) -> np.ndarray:
    return np.sign(x) * np.abs(x) ** e


def ellipsoid(rng: Rng, square: float | None = None, detail: int = 14) -> Part:
    """A superquadric of half-axes 1 (Barr 1981): exponent 1 is a sphere, near 0 a box, 2 an octahedron."""
    a, b = (square, square) if square is not None else rng.choice([0.25, 0.5, 1, 1, 1, 1.6], 2)

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        lon, lat = 2 * np.pi * u, np.pi * (v - 0.5)
        c = _power(np.cos(lat), a)
        return np.stack([c * _power(np.sin(lon), b), _power(np.sin(lat), a), c * _power(np.cos(lon), b)], -1)

    return grid(surface, detail, detail * 2 // 3)


def supershape(rng: Rng) -> Part:
    """A product of two superformulas (Gielis 2003)."""

    def radius(angle: np.ndarray) -> np.ndarray:
        m, n1, n2, n3 = rng.integers(2, 9), rng.uniform(0.6, 4), rng.uniform(0.6, 3), rng.uniform(0.6, 3)
        r = (np.abs(np.cos(m * angle / 4)) ** n2 + np.abs(np.sin(m * angle / 4)) ** n3 + 1e-6) ** (-1 / n1)
        return np.clip(r / r.max(), 0.25, 1)

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        lon, lat = 2 * np.pi * u, np.pi * (v - 0.5)
        r1, r2 = radius(lon), radius(2 * lat)
        return np.stack(
            [r1 * np.sin(lon) * r2 * np.cos(lat), r2 * np.sin(lat), r1 * np.cos(lon) * r2 * np.cos(lat)], -1
        )

    return grid(surface, 24, 14)


def revolution(profile: np.ndarray, sides: int = 18) -> Part:
    """A profile of (radius, height) rows turned about y."""
    knots = np.linspace(0, 1, len(profile))

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        r, y = np.interp(v, knots, profile[:, 0]), np.interp(v, knots, profile[:, 1])
        return np.stack([r * np.sin(2 * np.pi * u), y, r * np.cos(2 * np.pi * u)], -1)

    return grid(surface, sides, 2 * len(profile))


def cylinder(rng: Rng, top: float = 1.0, sides: int | None = None) -> Part:
    """Radius 1 below and `top` above, height -1..1, closed; few sides make a prism."""
    sides = int(rng.choice([4, 5, 6, 8, 16, 20])) if sides is None else sides
    return revolution(np.array([[0, -1], [1, -1], [1, -1], [top, 1], [top, 1], [0, 1]]), sides)


def vessel(rng: Rng) -> Part:
    """A smooth random profile, closed below, closed or open above."""
    n = 9
    r = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, 5), rng.uniform(0.25, 1, 5))
    r = np.convolve(np.pad(r, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    profile = np.stack([r, np.linspace(-1, 1, n)], -1)
    end = [[0, 1]] if rng.random() < 0.6 else [[r[-1] * 0.85, 1], [r[-1] * 0.8, 0.4], [0, 0.3]]
    return revolution(np.concatenate([[[0, -1]], profile, end]), int(rng.choice([6, 16, 20])))


def tube(path: np.ndarray, radii: np.ndarray, sides: int = 8) -> Part:
    """A round tube along a polyline [n 3], with closed, rounded ends."""
    n = len(path)
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    helper = np.where(np.abs(tangent[:, 1:2]) > 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    a = np.cross(tangent, helper)
    a /= np.linalg.norm(a, axis=1, keepdims=True) + 1e-9
    b = np.cross(tangent, a)
    path = np.concatenate([path[:1] - tangent[:1] * radii[0] * 0.7, path, path[-1:] + tangent[-1:] * radii[-1] * 0.7])
    a, b = (np.concatenate([x[:1], x, x[-1:]]) for x in (a, b))
    radii = np.concatenate([[0], radii, [0]])

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        i = np.rint(v * (n + 1)).astype(int)
        angle = (2 * np.pi * u)[..., None]
        return path[i] + radii[i][..., None] * (np.cos(angle) * a[i] + np.sin(angle) * b[i])

    return grid(surface, sides, n + 1)


def limb(start: np.ndarray, end: np.ndarray, r0: float, r1: float, bend: np.ndarray | float = 0.0, n: int = 6) -> Part:
    s = np.linspace(0, 1, n)[:, None]
    return tube(start + s * (end - start) + bend * np.sin(np.pi * s), np.linspace(r0, r1, n))


def torus(rng: Rng, thickness: float | None = None) -> Part:
    r = rng.uniform(0.15, 0.45) if thickness is None else thickness

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        a, b = 2 * np.pi * u, 2 * np.pi * v
        ring = 1 - r + r * np.cos(b)
        return np.stack([ring * np.sin(a), r * np.sin(b), ring * np.cos(a)], -1)

    return grid(surface, 20, 8)


def box(taper: float = 1.0) -> Part:
    """Half-sides 1; the top is scaled by `taper` (0 is a pyramid). Each face has a sixth of the part's texture."""
    corners = np.array([[x, y, z] for y in (-1, 1) for z in (-1, 1) for x in (-1, 1)], float)
    corners[4:, [0, 2]] *= taper
    sides = [[2, 3, 7, 6], [1, 0, 4, 5], [3, 1, 5, 7], [0, 2, 6, 4], [6, 7, 5, 4], [0, 1, 3, 2]]
    points = corners[np.array(sides).reshape(-1)]
    square = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], float) * 0.98 + 0.01
    uv = np.concatenate([(square + np.array([k % 3, k // 3])) / [3, 2] for k in range(6)])
    quads = np.arange(24).reshape(6, 4)
    return points, uv, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def wedge(rng: Rng) -> Part:
    """A gabled roof: a box whose top is a line along x or z."""
    points, uv, faces = box()
    top = points[:, 1] > 0
    points[top, 2 if rng.random() < 0.5 else 0] *= rng.choice([0.02, 0.02, 0.4])
    return points, uv, faces


def blob(rng: Rng) -> Part:
    """A union of metaballs, meshed by marching cubes; textured by projection along z (the back mirrors the front)."""
    from skimage.measure import marching_cubes

    n, count = 20, int(rng.integers(3, 9))
    axis = np.linspace(-1.5, 1.5, n)
    p = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    centres = np.cumsum(rng.normal(size=(count, 3)) * 0.4, 0)
    centres -= centres.mean(0)
    if rng.random() < 0.5:  # mirror symmetry
        centres = np.concatenate([centres, centres * [-1, 1, 1]])
    centres *= min(1.0, 0.95 / (np.abs(centres).max() + 1e-9))
    sizes = rng.uniform(0.25, 0.5, len(centres))
    field = sum(np.exp(-((p - c) ** 2).sum(-1) / s**2) for c, s in zip(centres, sizes, strict=True))
    vertices, faces, _, _ = marching_cubes(field, min(0.6, 0.7 * field.max()), spacing=(axis[1] - axis[0],) * 3)
    vertices = vertices - 1.5
    low, high = vertices.min(0), vertices.max(0)
    uv = (vertices[:, :2] - low[:2]) / (high[:2] - low[:2] + 1e-9)
    return vertices, uv * 0.98 + 0.01, faces.astype(np.int64)


def place(
    part: Part,
    size: tuple[float, ...] | np.ndarray | float,
    at: tuple[float, ...] | np.ndarray = (0, 0, 0),
    turn: np.ndarray | None = None,
) -> Part:
    """Scales, turns, then moves a part."""
    points = part[0] * np.asarray(size)
    return (points if turn is None else points @ turn.T) + np.asarray(at), part[1], part[2]


def turn_about(axis: int, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def random_turn(rng: Rng) -> np.ndarray:
    return turn_about(1, rng.uniform(0, 2 * np.pi)) @ turn_about(0, rng.uniform(0, 2 * np.pi))


def assemble(rng: Rng, parts: list[Part], groups: list[int], name: str) -> TexturedObject:
    """Parts of one group share a patch of the atlas (all wheels look alike); the result is centred, longest side 1."""
    used = sorted(set(groups))
    side = math.ceil(math.sqrt(len(used)))
    texture = atlas(rng, side, len(used), palette(rng))
    vertices, uvs, faces, offset = [], [], [], 0
    for (points, uv, face), group in zip(parts, groups, strict=True):
        cell = used.index(group)
        inner = 0.03 + 0.94 * uv  # keeps bilinear sampling out of the neighbours' patches
        uvs.append((inner + np.array([cell % side, cell // side])) / side)
        vertices.append(points)
        faces.append(face + offset)
        offset += len(points)
    points = np.concatenate(vertices)
    low, high = points.min(0), points.max(0)
    points = (points - (low + high) / 2) / max((high - low).max(), 1e-6)
    return TexturedObject(
        name,
        points.astype(np.float32),
        np.concatenate(uvs).astype(np.float32),
        np.concatenate(faces),
        texture,
        "procedural",
        "Apache-2.0",
        "DreamGaussian Lab",
    )


def random_object(rng: Rng) -> TexturedObject:
    """One object, drawn from all plans."""
    from dg.data.plans import PLANS

    names, weights = list(PLANS), np.array([w for _, w in PLANS.values()])
    name = str(rng.choice(names, p=weights / weights.sum()))
    parts, groups = PLANS[name][0](rng)
    return assemble(rng, parts, groups, f"procedural/{name}")


def invent(keys: Sequence[int]) -> list[TexturedObject]:
    """One object per key, in parallel where there are many."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    if len(keys) < 256:
        return [_invent(k) for k in keys]
    with ProcessPoolExecutor(min(16, os.cpu_count() or 1), mp_context=get_context("spawn")) as workers:
        return list(workers.map(_invent, keys, chunksize=32))


def _invent(key: int) -> TexturedObject:
    return random_object(np.random.default_rng(key))
