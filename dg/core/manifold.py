"""Taking apart what touches: vertices and edges that several sheets of a closed surface share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph

from dg.types import Mesh


def split_non_manifold(mesh: Mesh) -> Mesh:
    """Gives every sheet its own copy of the vertices it shares with another one; faces keep their places.

    Where 2 k faces meet in an edge, neighbours with the solid between them belong together, so solids that touch come
    apart and nothing intersects that did not before. Copies lie at the same position. An edge whose ends cannot be told
    apart because the sheets join elsewhere gets a middle vertex per sheet (two more faces each). Edges of one face, or
    faces that disagree about the outside, are left as they are.
    """
    vertices, faces = mesh.vertices.detach().cpu().double().numpy(), mesh.faces.cpu().numpy()
    if not len(faces):
        return mesh
    vertices, faces, pairs = _split_vertices(vertices, faces)
    vertices, faces = _split_edges(vertices, faces, pairs)
    return replace(mesh, vertices=torch.from_numpy(vertices).to(mesh.vertices), faces=torch.from_numpy(faces))


def part_copies(mesh: Mesh, share: float = 1e-3) -> Mesh:
    """Moves vertices at one position apart, each by `share` of the way to the middle of its own faces.

    Files that know vertices by position alone (glTF readers that weld seams, STL) would join the copies of
    `split_non_manifold` again. A mesh without such copies stays as it is.
    """
    vertices, faces = mesh.vertices.detach().cpu().double().numpy(), mesh.faces.cpu().numpy()
    used = np.unique(faces)
    _, place, count = np.unique(vertices[used].astype(np.float32), axis=0, return_inverse=True, return_counts=True)
    copies = used[count[place.reshape(-1)] > 1]
    if not len(copies):
        return mesh
    total, number = np.zeros_like(vertices), np.zeros(len(vertices))
    np.add.at(total, faces.ravel(), vertices[faces].mean(1).repeat(3, 0))
    np.add.at(number, faces.ravel(), 1)
    middle = total[copies] / number[copies, None]
    vertices[copies] += share * (middle - vertices[copies])
    return replace(mesh, vertices=torch.from_numpy(vertices).to(mesh.vertices))


def _split_vertices(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One vertex per fan of faces joined by paired edges; also the pairs [n 2] of half edges (3 face + side)."""
    pairs = _pair(vertices, faces)
    # half edge 3 f + s runs from corner s to corner s + 1 of face f; its partner runs the other way
    ahead = lambda h: h - h % 3 + (h + 1) % 3  # noqa: E731
    a, b = pairs.T
    rows, columns = np.concatenate([a, ahead(a)]), np.concatenate([ahead(b), b])
    graph = sparse.coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), (faces.size, faces.size))
    _, fan = csgraph.connected_components(graph, directed=False)
    first = np.empty(int(fan.max()) + 1, np.int64)
    first[fan[::-1]] = np.arange(len(fan))[::-1]  # the last value written stays: the first half edge of each fan
    # numbered in the order of the old vertices, so that a mesh with nothing to split stays as it was
    old = faces.ravel()[first]
    order = _stable_order(old)
    new = np.empty_like(order)
    new[order] = np.arange(len(order))
    return vertices[old[order]], new[fan].reshape(-1, 3), pairs


def _half_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start, end) of the half edges 3 f + s."""
    return faces.ravel(), faces[:, [1, 2, 0]].ravel()


def _stable_order(key: np.ndarray) -> np.ndarray:
    """argsort(kind="stable") of whole numbers >= 0: both in one number where they fit, as numpy sorts numbers alone
    several times as fast."""
    if not len(key):
        return np.zeros(0, np.int64)
    bits = int(len(key) - 1).bit_length()
    if int(key.max()).bit_length() + bits > 63:
        return np.argsort(key, kind="stable")
    return np.sort((key.astype(np.int64) << bits) | np.arange(len(key))) & ((1 << bits) - 1)


def _groups(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half edges sorted by their undirected edge: (order, first place of each edge, number of its faces)."""
    key = np.minimum(start, end).astype(np.int64) * (int(max(start.max(), end.max())) + 1) + np.maximum(start, end)
    order = _stable_order(key)
    ordered = key[order]
    first = np.concatenate([[0], np.nonzero(ordered[1:] != ordered[:-1])[0] + 1])
    return order, first, np.diff(first, append=len(key))


def _pair(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Pairs [n 2] of half edges that run along the same edge in opposite directions and bound the same sheet."""
    start, end = _half_edges(faces)
    order, first, count = _groups(start, end)
    simple = order[first[count == 2, None] + np.arange(2)]
    simple = simple[start[simple[:, 0]] == end[simple[:, 1]]]
    crowded = count > 2
    groups = [order[i : i + n] for i, n in zip(first[crowded], count[crowded], strict=True)]
    more = [_pair_around(vertices, faces, start, end, group) for group in groups]
    return np.concatenate([simple, *more])


def _pair_around(
    vertices: np.ndarray, faces: np.ndarray, start: np.ndarray, end: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Pairs within the half edges of one edge, by the angle of their faces around it."""
    u, v = start[group[0]], end[group[0]]
    forward = start[group] == u
    if 2 * forward.sum() != len(group):
        return np.zeros((0, 2), group.dtype)
    axis = vertices[v] - vertices[u]
    axis = axis / max(np.linalg.norm(axis), 1e-300)
    side = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    side /= np.linalg.norm(side)
    apex = vertices[faces[group // 3, (group % 3 + 2) % 3]] - vertices[u]
    angle = np.arctan2(apex @ np.cross(axis, side), apex @ side)
    ring = np.argsort(angle, kind="stable")
    # A forward face looks towards growing angles, so the solid lies between it and the face before it. Numbers in the
    # ring are matched like brackets, which also copes with equal angles.
    turn = np.where(forward[ring], -1, 1)
    ring = np.roll(ring, -int(np.cumsum(turn).argmin() + 1))
    stack, found = [], []
    for i in ring:
        if forward[i]:
            found.append((group[stack.pop()], group[i]))
        else:
            stack.append(i)
    return np.array(found)


def _split_edges(vertices: np.ndarray, faces: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A middle vertex for each pair on an edge that still has more than two faces."""
    start, end = _half_edges(faces)
    order, first, count = _groups(start, end)
    crowded = np.zeros(faces.size, bool)
    for i, n in zip(first[count > 2], count[count > 2], strict=True):
        crowded[order[i : i + n]] = True
    chosen = pairs[crowded[pairs[:, 0]]]
    if not len(chosen):
        return vertices, faces
    middle = np.full(faces.size, -1)
    middle[chosen] = len(vertices) + np.arange(len(chosen))[:, None]
    added = (vertices[start[chosen[:, 0]]] + vertices[end[chosen[:, 0]]]) / 2
    kept = (middle.reshape(-1, 3) < 0).all(1)
    new = [faces[kept]]
    for f in np.nonzero(~kept)[0]:
        outline = [k for s in range(3) for k in (faces[f, s], middle[3 * f + s]) if k >= 0]
        # a fan from the first middle vertex: convex outline, so its faces lie in the old one
        turn = next(i for i, k in enumerate(outline) if k >= len(vertices))
        outline = outline[turn:] + outline[:turn]
        new.append(np.array([[outline[0], outline[i], outline[i + 1]] for i in range(1, len(outline) - 1)]))
    return np.concatenate([vertices, added]), np.concatenate(new).astype(faces.dtype)
