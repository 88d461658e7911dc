"""Cleaning and decimating a triangle mesh that keeps what marching cubes guarantees: closed and manifold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from scipy import sparse
from scipy.sparse import csgraph

from dg.core.manifold import split_non_manifold
from dg.core.meshes import signed_volume
from dg.types import Mesh


@dataclass(frozen=True)
class Topology:
    closed: bool  # every edge belongs to exactly two faces, which run along it in opposite directions
    components: int  # parts connected by shared vertices
    euler: int  # vertices - edges + faces; 2 per closed part without handles


def topology(mesh: Mesh) -> Topology:
    """What the connectivity says; unused vertices do not count."""
    faces = mesh.faces.cpu().numpy()
    if not len(faces):
        return Topology(False, 0, 0)
    half = _sorted_half_edges(faces)
    edges = 1 + int((np.diff(half >> 1) > 0).sum())
    used = np.bincount(faces.ravel()) > 0
    parts = np.bincount(_labels(faces, len(used))[used]) > 0
    return Topology(_closed(half), int(parts.sum()), int(used.sum()) - edges + len(faces))


def _sorted_half_edges(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, " H"]:
    """A number per half edge, ascending: twice that of its undirected edge, and 1 more if it runs downwards."""
    start, end = faces.ravel().astype(np.int64), faces[:, [1, 2, 0]].ravel().astype(np.int64)
    n = int(faces.max()) + 1
    return np.sort(2 * (np.minimum(start, end) * n + np.maximum(start, end)) + (start > end))


def _closed(half: Int[np.ndarray, " H"]) -> bool:
    """Whether every edge has one half edge in each direction; `half` as `_sorted_half_edges` gives them."""
    up, down = half[0::2], half[1::2]
    if len(up) != len(down) or not len(up):
        return False
    return bool((up % 2 == 0).all() and (down == up + 1).all() and (np.diff(up) > 0).all())


def _is_closed(mesh: Mesh) -> bool:
    return _closed(_sorted_half_edges(mesh.faces.cpu().numpy())) if len(mesh.faces) else False


def compact(mesh: Mesh) -> Mesh:
    """Drops vertices that no face uses; keeps the order of the others. UVs and texture are kept as they are."""
    used = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.faces.device)
    used[mesh.faces.reshape(-1)] = True
    number = used.cumsum(0) - 1
    return replace(mesh, vertices=mesh.vertices[used.to(mesh.vertices.device)], faces=number[mesh.faces])


def remove_degenerate(mesh: Mesh) -> Mesh:
    """Drops faces that use a vertex twice, and what is superfluous of those on the same three vertices: equal ones but
    for the first, and pairs that look in opposite directions (both, so that a closed surface stays closed)."""
    faces = mesh.faces.cpu().numpy()
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    rank = np.argsort(np.argsort(faces, 1), 1)
    sign = np.where((rank[:, 1] - rank[:, 0]) % 3 == 1, 1, -1)  # even and odd orders of the sorted three
    _, which = np.unique(np.sort(faces, 1), axis=0, return_inverse=True)
    which = which.ravel()
    net = np.bincount(which, sign * distinct)
    candidates = np.nonzero(distinct & (sign * net[which] > 0))[0]
    _, first = np.unique(which[candidates], return_index=True)
    keep = torch.from_numpy(np.sort(candidates[first])).to(mesh.faces.device)
    return compact(replace(mesh, faces=mesh.faces[keep]))


def remove_small_components(
    mesh: Mesh, *, min_volume: float = 0.01, min_diameter: float = 0.0, min_faces: int = 0
) -> Mesh:
    """Keeps the parts that are large enough in every respect, and always the one with the largest volume.

    Args:
        min_volume: share of the largest part's enclosed volume. Parts that face inwards (walls of cavities) count as
            volume 0 and go if this is positive.
        min_diameter: share of the whole mesh's bounding box diagonal (the release: 0.2, which deletes small parts).
        min_faces: number of faces (the release: 64).
    """
    if not len(mesh.faces):
        return mesh
    vertices, faces = mesh.vertices.double().cpu().numpy(), mesh.faces.cpu().numpy()
    label = _labels(faces, len(vertices))[faces[:, 0]]
    present = np.bincount(label) > 0  # a vertex without faces is a part of its own
    label, n = (np.cumsum(present) - 1)[label], int(present.sum())
    a, b, c = (vertices[faces[:, i]] - vertices.mean(0) for i in range(3))
    volume = np.bincount(label, (a * np.cross(b, c)).sum(1) / 6, n)
    keep = volume >= min_volume * volume.max()
    if min_diameter > 0:
        diameter, whole = _diameters(vertices, faces, label, n)
        keep &= diameter >= min_diameter * whole
    keep &= np.bincount(label, minlength=n) >= min_faces
    keep[volume.argmax()] = True
    return compact(replace(mesh, faces=mesh.faces[torch.from_numpy(keep[label]).to(mesh.faces.device)]))


def _diameters(
    vertices: np.ndarray, faces: np.ndarray, label: Int[np.ndarray, " F"], parts: int
) -> tuple[np.ndarray, float]:
    """Diagonals of the parts' bounding boxes [parts], and of the whole mesh's."""
    lo, hi = np.full((parts, 3), np.inf), np.full((parts, 3), -np.inf)
    for corner in range(3):
        np.minimum.at(lo, label, vertices[faces[:, corner]])
        np.maximum.at(hi, label, vertices[faces[:, corner]])
    return np.linalg.norm(hi - lo, axis=1), float(np.linalg.norm(hi.max(0) - lo.min(0)))


def merge_close_vertices(mesh: Mesh, distance: float) -> Mesh:
    """Snaps vertices to the mean of their cell in a lattice of edge `distance` (world units); degenerate faces go.

    The release merges at 1 % of the bounding box's diagonal, which is one or two voxels: it decimates and smooths, and
    the result need not stay closed. Kept for comparisons.
    """
    cell = torch.floor(mesh.vertices / distance).long()
    _, inverse, count = torch.unique(cell, dim=0, return_inverse=True, return_counts=True)
    mean = torch.zeros(len(count), 3, dtype=mesh.vertices.dtype).index_add_(0, inverse, mesh.vertices) / count[:, None]
    return remove_degenerate(Mesh(mean, inverse[mesh.faces]))


def taubin_smooth(mesh: Mesh, iterations: int, shrink: float = 0.5, inflate: float = -0.53) -> Mesh:
    """Alternates two umbrella steps so that the low frequencies, and so the volume, survive (Taubin 1995)."""
    if iterations <= 0:
        return mesh
    average = _neighbour_average(mesh)
    v = mesh.vertices.double().numpy()
    for _ in range(iterations):
        for factor in (shrink, inflate):
            v = v + factor * (average @ v - v)
    return replace(mesh, vertices=torch.from_numpy(v).to(mesh.vertices))


def decimate(mesh: Mesh, max_faces: int, max_volume_change: float = 0.05) -> Mesh:
    """Quadric edge collapses (Garland and Heckbert 1997) down to about `max_faces`; unchanged if it has no more.

    A closed input gives a closed result: if the collapses break that, or change the volume by more than
    `max_volume_change` (relative), weaker decimations are tried, and at last the input is returned.
    """
    if len(mesh.faces) <= max_faces:
        return mesh
    import fast_simplification

    was_closed, volume = _is_closed(mesh), _volume(mesh)
    points, faces = mesh.vertices.float().cpu().numpy(), mesh.faces.int().cpu().numpy()
    for target, aggressive in ((max_faces, 3), (max_faces, 1), (min(2 * max_faces, len(faces) - 1), 1)):
        p, f = fast_simplification.simplify(points, faces, target_count=max(target, 4), agg=aggressive)
        result = remove_degenerate(Mesh(torch.from_numpy(p).float(), torch.from_numpy(f.astype(np.int64))))
        if was_closed:
            result = split_non_manifold(result)
        same_volume = abs(_volume(result) - volume) <= max_volume_change * abs(volume)
        if len(result.faces) and (not was_closed or (_is_closed(result) and same_volume)):
            return result
    return mesh


def _volume(mesh: Mesh) -> float:
    return float(signed_volume(mesh.vertices.double(), mesh.faces))


def _labels(faces: np.ndarray, vertices: int) -> Int[np.ndarray, " P"]:
    """Number of the connected part that each vertex belongs to."""
    rows, columns = np.concatenate([faces[:, 0], faces[:, 1]]), np.concatenate([faces[:, 1], faces[:, 2]])
    graph = sparse.coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), (vertices, vertices))
    return csgraph.connected_components(graph, directed=False)[1]


def _neighbour_average(mesh: Mesh) -> sparse.csr_matrix:
    f, n = mesh.faces.cpu().numpy(), len(mesh.vertices)
    rows, columns = f[:, [0, 1, 2, 1, 2, 0]].ravel(), f[:, [1, 2, 0, 0, 1, 2]].ravel()
    adjacency = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (n, n)).tocsr()
    adjacency.data[:] = 1
    return sparse.diags(1 / np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)) @ adjacency
