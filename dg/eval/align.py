"""Bringing a result's pose onto the truth's before shapes are compared. All search for the least Chamfer distance.

`unaligned` leaves it; `yaw` turns it about the vertical axis; `rot24` tries the 24 rotations that map axes to axes;
`icp` moves it rigidly, starting from each of the three. Turns are about the pivot, and no size changes.
Every search ends with a comparison on all samples and keeps where it began unless it got better, so no alignment is
ever worse than `unaligned`, and `icp` is no worse than any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree

from dg.eval.placement import yaw_matrix
from dg.eval.shape import Nearest, Samples, chamfer, cosine

Similarity = Float[np.ndarray, "4 4"]

COARSE_POINTS, FINE_POINTS = 1000, 3000
COARSE_YAWS = 36
ICP_STEPS, ICP_LEAST = 40, 1e-6  # steps; relative gain that a step must bring


@dataclass(frozen=True)
class Aligned:
    """A pose of the result, and how far its samples are from the truth's there, both ways."""

    pose: Similarity
    to_truth: Nearest
    to_result: Nearest

    @property
    def chamfer(self) -> float:
        return chamfer(self.to_truth, self.to_result)


def compare(result: Samples, truth: Samples, pose: Similarity) -> Aligned:
    """Distances with the result moved by a similarity. Its tree stays where it is: the truth's points move instead."""
    scale = _scale(pose)
    rotation = pose[:3, :3] / scale
    back = np.linalg.inv(pose)
    workers = torch.get_num_threads()
    forward, index = truth.tree.query(_move(result.points, pose), workers=workers)
    to_truth = Nearest(forward, cosine(result.normals @ rotation.T, truth.normals, index))
    backward, index = result.tree.query(_move(truth.points, back), workers=workers)
    return Aligned(pose, to_truth, Nearest(backward * scale, cosine(truth.normals @ rotation, result.normals, index)))


def align(
    result: Samples, truth: Samples, names: Sequence[str], pivot: Float[np.ndarray, " 3"] | None = None
) -> dict[str, Aligned]:
    """The pose of each named alignment (`dg.eval.catalog.ALIGNMENTS`).

    Args:
        pivot: what `yaw` and `rot24` turn about; the origin, around which the cameras go, unless told otherwise.
    """
    pivot = np.zeros(3) if pivot is None else np.asarray(pivot, np.float64)
    unaligned = compare(result, truth, np.eye(4))
    found = {"unaligned": unaligned}
    searches: dict[str, Callable[[], Similarity]] = {
        "yaw": lambda: yaw(result, truth, pivot),
        "rot24": lambda: rot24(result, truth, pivot),
    }
    for name, search in searches.items():
        if name in names or "icp" in names:
            found[name] = min(unaligned, compare(result, truth, search()), key=lambda a: a.chamfer)
    if "icp" in names:
        moved = compare(result, truth, _icp_from(result, truth, [a.pose for a in found.values()]))
        found["icp"] = min(*found.values(), moved, key=lambda a: a.chamfer)
    return {name: found[name] for name in names}


def yaw(result: Samples, truth: Samples, pivot: Float[np.ndarray, " 3"]) -> Similarity:
    """Turns about +y: every 10 degrees on few points, then the best three to about 0.01 degrees on more."""
    coarse = _probe(result, truth, COARSE_POINTS)
    steps = np.arange(COARSE_YAWS) * (360 / COARSE_YAWS)
    errors = np.array([coarse(_about(pivot, _turn(a))) for a in steps])
    fine = _probe(result, truth, FINE_POINTS)
    best = (math.inf, 0.0)
    for start in steps[np.argsort(errors, kind="stable")[:3]]:
        half = 360 / COARSE_YAWS
        found = minimize_scalar(
            lambda a: fine(_about(pivot, _turn(a))),
            bounds=(start - half, start + half),
            method="bounded",
            options={"xatol": 0.01},
        )
        best = min(best, (float(found.fun), float(found.x)), (fine(_about(pivot, _turn(start))), float(start)))
    return _about(pivot, _turn(best[1]))


def rot24(result: Samples, truth: Samples, pivot: Float[np.ndarray, " 3"]) -> Similarity:
    """The best of the 24 rotations that map axes to axes (no mirror images)."""
    poses = sorted((_about(pivot, r) for r in rotations24()), key=_probe(result, truth, COARSE_POINTS))
    return min(poses[:4], key=_probe(result, truth, FINE_POINTS))


def rotations24() -> list[Float[np.ndarray, "3 3"]]:
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return found


def _icp_from(result: Samples, truth: Samples, starts: Sequence[Similarity]) -> Similarity:
    """From all starts on few points, since the nearest start need not lead deepest; then from the best end on more."""
    distinct = [p for i, p in enumerate(starts) if not any(np.allclose(p, q, atol=1e-6) for q in starts[:i])]
    ends = [icp(result, truth, pose, points=COARSE_POINTS) for pose in distinct]
    return icp(result, truth, min(ends, key=_probe(result, truth, FINE_POINTS)))


def icp(
    result: Samples, truth: Samples, start: Similarity, *, scale: bool = False, points: int = FINE_POINTS
) -> Similarity:
    """Iterative closest points (Besl and McKay 1992) with matches both ways; rigid, unless `scale` allows a factor.

    Each step solves for the best motion of all matches at once (Umeyama 1991), which lowers the sum of squares.
    """
    a, b = _thin(result.points, points), _thin(truth.points, points)
    tree_a, tree_b = cKDTree(a), cKDTree(b)
    pose, last = start, math.inf
    for _ in range(ICP_STEPS):
        moved = _move(a, pose)
        near_b, j = tree_b.query(moved)
        near_a, i = tree_a.query(_move(b, np.linalg.inv(pose)))
        error = float((near_b**2).mean() + ((near_a * _scale(pose)) ** 2).mean())
        if error >= last * (1 - ICP_LEAST):
            break
        last = error
        pose = fit(np.concatenate([a, a[i]]), np.concatenate([b[j], b]), scale=scale)
    return pose


def fit(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "N 3"], *, scale: bool = False) -> Similarity:
    """The rotation, shift and optionally scale that bring `a` onto `b` with the least squares (Umeyama 1991)."""
    mean_a, mean_b = a.mean(0), b.mean(0)
    u, d, vt = np.linalg.svd((b - mean_b).T @ (a - mean_a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    factor = float((d * sign).sum() / max(((a - mean_a) ** 2).sum(), 1e-300)) if scale else 1.0
    pose = np.eye(4)
    pose[:3, :3] = factor * (u * sign) @ vt
    pose[:3, 3] = mean_b - pose[:3, :3] @ mean_a
    return pose


def _probe(result: Samples, truth: Samples, count: int) -> Callable[[Similarity], float]:
    """Chamfer of a rigid pose on a part of the samples."""
    a, b = _thin(result.points, count), _thin(truth.points, count)
    tree_a, tree_b = cKDTree(a), cKDTree(b)

    def error(pose: Similarity) -> float:
        forward, _ = tree_b.query(_move(a, pose))
        backward, _ = tree_a.query(_move(b, np.linalg.inv(pose)))
        return float(forward.mean() + backward.mean()) / 2

    return error


def _thin(points: Float[np.ndarray, "N 3"], count: int) -> Float[np.ndarray, "n 3"]:
    return points[np.linspace(0, len(points) - 1, min(count, len(points))).astype(int)]


def _move(points: Float[np.ndarray, "N 3"], pose: Similarity) -> Float[np.ndarray, "N 3"]:
    return points @ pose[:3, :3].T + pose[:3, 3]


def _scale(pose: Similarity) -> float:
    return float(np.cbrt(np.linalg.det(pose[:3, :3])))


def _about(pivot: Float[np.ndarray, " 3"], rotation: Float[np.ndarray, "3 3"]) -> Similarity:
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = pivot - rotation @ pivot
    return pose


def _turn(degrees: float) -> Float[np.ndarray, "3 3"]:
    return yaw_matrix(degrees, torch.float64).numpy()
