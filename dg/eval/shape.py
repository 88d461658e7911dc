"""Surfaces against surfaces, by points spread over them. Lengths come out in the unit of the points.

The definitions are the usual ones (Tatarchenko et al. 2019, "What do single-view 3D reconstruction networks learn?";
Mescheder et al. 2019 for normals); Chamfer is half the sum of both means, not squared, as SyncDreamer has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from dg.core.meshes import face_cross
from dg.core.rng import generator
from dg.core.surface_points import draw_on_surface
from dg.types import Mesh


@dataclass(frozen=True)
class Samples:
    """Points on a surface with the unit normals of their faces; `tree` finds the nearest of them."""

    points: Float[np.ndarray, "N 3"]
    normals: Float[np.ndarray, "N 3"]
    tree: cKDTree


@dataclass(frozen=True)
class Nearest:
    """For each sample of one surface the nearest of another: how far, and |cos| of the angle between the normals."""

    distance: Float[np.ndarray, " N"]
    cosine: Float[np.ndarray, " N"]


def sample_surface(mesh: Mesh, count: int, seed: int = 0) -> Samples:
    """`count` points, evenly by area: the same mesh, count and seed give the same points (`draw_on_surface`).

    Raises:
        ValueError: the mesh has no area.
    """
    face, weights = draw_on_surface(mesh, count, generator(seed, "eval.samples"))
    corners = mesh.vertices.double()[mesh.faces[face]]
    points = weights[:, :1] * corners[:, 0] + weights[:, 1:2] * corners[:, 1] + weights[:, 2:] * corners[:, 2]
    cross = face_cross(mesh.vertices.double(), mesh.faces)[face]
    normals = cross / cross.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    return samples_of(points.numpy(), normals.numpy())


def samples_of(points: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"]) -> Samples:
    return Samples(points, normals, cKDTree(points))


def nearest(a: Samples, b: Samples) -> Nearest:
    """From each sample of `a` to the nearest of `b`."""
    distance, index = b.tree.query(a.points, workers=torch.get_num_threads())
    return Nearest(distance, cosine(a.normals, b.normals, index))


def cosine(
    normals: Float[np.ndarray, "N 3"], others: Float[np.ndarray, "M 3"], index: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """|cos| between each normal and the one it was matched with."""
    return np.minimum(np.abs(np.einsum("nk,nk->n", normals, others[index])), 1)


def chamfer(to_truth: Nearest, to_result: Nearest) -> float:
    """Half the sum of both mean distances."""
    return float(to_truth.distance.mean() + to_result.distance.mean()) / 2


def f_score(to_truth: Nearest, to_result: Nearest, threshold: float) -> float:
    """Harmonic mean of precision (result's points within `threshold` of the truth) and recall (the other way)."""
    precision = float((to_truth.distance < threshold).mean())
    recall = float((to_result.distance < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def normal_consistency(to_truth: Nearest, to_result: Nearest) -> float:
    """Mean |cos| between the normals of nearest points, both ways. Blind to flipped faces."""
    return float(to_truth.cosine.mean() + to_result.cosine.mean()) / 2


def one_sided(to_result: Nearest, where: Bool[np.ndarray, " N"]) -> tuple[float, float] | None:
    """Mean distance and mean |cos| from those of the truth's samples to the result; None where there are none."""
    if not where.any():
        return None
    return float(to_result.distance[where].mean()), float(to_result.cosine[where].mean())
