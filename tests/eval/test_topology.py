from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import trimesh

from dg.eval.intersections import cutting_faces
from dg.eval.topology import topology
from dg.types import Mesh
from tests.eval import lump


def of(mesh: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(np.asarray(mesh.faces)))


def together(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    faces = [m.faces + int(o) for m, o in zip(meshes, offsets[:-1], strict=True)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))


BOX = of(trimesh.creation.box())
TORUS = of(trimesh.creation.torus(1.0, 0.3, major_sections=12, minor_sections=8))


def moved(mesh: Mesh, *by: float) -> Mesh:
    return replace(mesh, vertices=mesh.vertices + torch.tensor(by))


@pytest.mark.parametrize(
    ("mesh", "watertight", "manifold", "components"),
    [
        (BOX, True, True, 1),
        (TORUS, True, True, 1),
        (together(BOX, moved(TORUS, 5, 0, 0)), True, True, 2),
        (replace(BOX, faces=BOX.faces[1:]), False, True, 1),
        (replace(BOX, faces=torch.cat([BOX.faces[:1].flip(1), BOX.faces[1:]])), False, True, 1),
        (replace(BOX, faces=torch.cat([BOX.faces, torch.tensor([[0, 1, 2]])])), False, False, 1),
    ],
    ids=["box", "torus", "two parts", "hole", "flipped face", "face too many"],
)
def test_topology_agrees_with_trimesh(mesh, watertight, manifold, components):
    found = topology(mesh)
    assert (found.watertight, found.manifold, found.components) == (watertight, manifold, components)
    theirs = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert (theirs.is_watertight and theirs.is_winding_consistent) == watertight
    assert theirs.body_count == components
    assert found.faces == len(mesh.faces)


def test_two_solids_that_share_a_vertex_are_closed_but_not_manifold():
    shared = together(BOX, moved(BOX, 1, 1, 1))
    corner = int((shared.vertices[:8] - 0.5).abs().sum(1).argmin())
    twin = 8 + int((shared.vertices[8:] - 0.5).abs().sum(1).argmin())
    shared = replace(shared, faces=torch.where(shared.faces == twin, corner, shared.faces))
    found = topology(shared)
    assert found.watertight and not found.manifold and found.components == 1


def test_nothing_at_all():
    assert topology(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))).faces == 0


def pierced_by_brute_force(mesh: Mesh) -> np.ndarray:
    """Faces with an edge through the inside of another face, or pierced so; all pairs, by signs of volumes."""
    corners = mesh.vertices.double().numpy()[mesh.faces.numpy()]
    volume = lambda a, b, c, d: np.linalg.det(np.stack([b - a, c - a, d - a]))  # noqa: E731
    out = np.zeros(len(corners), bool)
    for i, j in permutations(range(len(corners)), 2):
        if set(mesh.faces[i].tolist()) & set(mesh.faces[j].tolist()):
            continue
        a, b, c = corners[j]
        for p, q in (corners[i][[0, 1]], corners[i][[1, 2]], corners[i][[2, 0]]):
            if volume(a, b, c, p) * volume(a, b, c, q) >= 0:
                continue
            around = np.sign([volume(p, q, a, b), volume(p, q, b, c), volume(p, q, c, a)])
            if abs(around.sum()) == 3:
                out[[i, j]] = True
    return out


@pytest.mark.parametrize("seed", range(3))
def test_cutting_faces_equal_brute_force_on_random_triangles(seed):
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(45, 1, 3, generator=draw) + 0.5 * torch.rand(45, 3, 3, generator=draw)
    soup = Mesh(corners.reshape(-1, 3), torch.arange(135).reshape(-1, 3))
    expected = pierced_by_brute_force(soup)
    assert 5 < expected.sum() < 45
    assert np.array_equal(cutting_faces(soup), expected)


def test_cutting_faces_equal_brute_force_on_solids():
    solids = together(TORUS, moved(of(trimesh.creation.icosphere(1)), 0.71, 0.13, 0.07))
    expected = pierced_by_brute_force(solids)
    assert 0 < expected.mean() < 1
    assert np.array_equal(cutting_faces(solids), expected)


def test_what_only_touches_does_not_cut(tmp_path):
    beside, above = moved(BOX, 1, 0, 0), moved(BOX, 0.5, 1, 0.25)
    assert not cutting_faces(together(BOX, beside, above)).any()
    assert not cutting_faces(together(BOX, BOX)).any()
    assert not cutting_faces(lump.lump(tmp_path, 4)).any()


def test_a_small_face_among_large_ones_is_found():
    needle = Mesh(torch.tensor([[0.4, 0.1, 0.1], [0.6, 0.1, 0.1], [0.6, 0.101, 0.1]]), torch.tensor([[0, 1, 2]]))
    cut = cutting_faces(together(BOX, needle))
    assert cut[-1] and cut.sum() == 2
