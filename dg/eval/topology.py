"""What can be said of a mesh alone: closed, manifold, in how many parts, cutting itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from dg.core import clean
from dg.eval.intersections import cutting_faces
from dg.types import Mesh


@dataclass(frozen=True)
class Topology:
    """Attributes:
    watertight: every edge has exactly two faces, which run along it in opposite directions.
    manifold: no edge has more than two faces, and the faces around every vertex form one fan.
    self_intersections: share of faces that properly cut another one (`dg.eval.intersections`).
    components: parts that are connected through common vertices.
    """

    watertight: bool
    manifold: bool
    self_intersections: float
    components: int
    faces: int


def topology(mesh: Mesh) -> Topology:
    """Of the mesh as it is indexed: weld it first (`dg.io.mesh.load_mesh` does), or seams count as holes."""
    faces = mesh.faces.cpu().numpy().astype(np.int64)
    if not len(faces):
        return Topology(False, False, 0.0, 0, 0)
    start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    edge = np.minimum(start, end) * (int(faces.max()) + 1) + np.maximum(start, end)
    _, index, count = np.unique(edge, return_inverse=True, return_counts=True)
    shape = clean.topology(mesh)
    return Topology(
        watertight=shape.closed,
        manifold=bool((count <= 2).all()) and _one_fan_each(faces, index),
        self_intersections=float(cutting_faces(mesh).mean()),
        components=shape.components,
        faces=len(faces),
    )


def _one_fan_each(faces: np.ndarray, edge: np.ndarray) -> bool:
    """Whether the corners of each vertex are joined through common edges; no edge has more than two faces.

    Half edge 3 f + s runs from corner s to corner s + 1 of face f.
    """
    order = np.argsort(edge, kind="stable")
    twin = edge[order[:-1]] == edge[order[1:]]
    a, b = order[:-1][twin], order[1:][twin]
    ahead = lambda h: h - h % 3 + (h + 1) % 3  # noqa: E731
    vertex = faces.ravel()
    same = vertex[a] == vertex[b]  # the two faces are wound differently there
    rows = np.concatenate([a, ahead(a)])
    columns = np.concatenate([np.where(same, b, ahead(b)), np.where(same, ahead(b), b)])
    graph = sparse.coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), (faces.size, faces.size))
    fans, _ = csgraph.connected_components(graph, directed=False)
    return fans == len(np.unique(vertex))
