"""Solids of cubes, whose edges and corners touch in every way there is."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dg.core.clean import topology
from dg.core.manifold import _stable_order, part_copies, split_non_manifold
from dg.core.meshes import signed_volume, weld
from dg.types import Mesh

_SIDES = {  # corners (as x y z bits) counter-clockwise seen from outside
    (-1, 0, 0): ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    (1, 0, 0): ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)),
    (0, -1, 0): ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    (0, 1, 0): ((0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)),
    (0, 0, -1): ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
    (0, 0, 1): ((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
}


def cubes(cells) -> Mesh:
    """The boundary of a set of unit cubes, on shared vertices."""
    cells, index, faces = {tuple(c) for c in cells}, {}, []
    for cell in sorted(cells):
        for step, corners in _SIDES.items():
            if tuple(np.add(cell, step)) not in cells:
                a, b, c, d = (index.setdefault(tuple(np.add(cell, k)), len(index)) for k in corners)
                faces += [[a, b, c], [a, c, d]]
    return Mesh(torch.tensor(list(index), dtype=torch.float32), torch.tensor(faces))


def volume(mesh: Mesh) -> float:
    return float(signed_volume(mesh.vertices.double(), mesh.faces))


def test_what_is_manifold_stays_as_it_is():
    mesh = cubes([(0, 0, 0), (1, 0, 0)])
    same = split_non_manifold(mesh)
    assert torch.equal(same.vertices, mesh.vertices) and torch.equal(same.faces, mesh.faces)


@pytest.mark.parametrize("other", [(1, 1, 0), (1, 1, 1)])
def test_cubes_that_touch_in_an_edge_or_a_corner_come_apart(other):
    mesh = cubes([(0, 0, 0), other])
    apart = split_non_manifold(mesh)
    assert len(apart.vertices) == 16 and len(apart.faces) == len(mesh.faces)
    assert topology(apart).closed and topology(apart).components == 2 and topology(apart).euler == 4
    assert volume(apart) == pytest.approx(2)


def test_an_edge_whose_ends_are_joined_elsewhere_gets_middle_vertices():
    """Two cubes touch in an edge; above and below they are joined by a third."""
    corner = [(0, 0), (1, 0), (1, 1)]
    mesh = cubes([(*c, z) for z in (0, 2) for c in corner] + [(0, 0, 1), (1, 1, 1)])
    assert not topology(mesh).closed
    apart = split_non_manifold(mesh)
    assert topology(apart).closed and topology(apart).components == 1 and topology(apart).euler == 0
    assert volume(apart) == pytest.approx(8) and len(apart.faces) == len(mesh.faces) + 4


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(list(itertools.product(range(3), repeat=3))), min_size=1))
def test_any_solid_of_cubes(cells):
    mesh = cubes(cells)
    apart = split_non_manifold(mesh)
    assert topology(apart).closed
    assert volume(apart) == pytest.approx(len(cells))
    assert {tuple(v) for v in mesh.vertices.tolist()} <= {tuple(v) for v in apart.vertices.tolist()}


def test_an_open_surface_stays_open():
    mesh = cubes([(0, 0, 0)])
    part = split_non_manifold(Mesh(mesh.vertices, mesh.faces[2:]))
    assert not topology(part).closed and len(part.faces) == 10


@pytest.mark.parametrize("cells", [[(0, 0, 0), (1, 1, 0)], [(0, 0, 0), (1, 1, 1)], [(0, 0, 0), (1, 1, 0), (2, 0, 0)]])
def test_parted_copies_outlive_welding(cells):
    split = split_non_manifold(cubes(cells))
    assert (
        not topology(weld(split)).closed or topology(weld(split)).components == 1
    )  # copies at one position join again
    parted = part_copies(split)
    again = weld(parted)
    assert topology(again) == topology(split) and topology(again).closed
    assert (parted.vertices - split.vertices).abs().max() < 2e-3
    assert volume(parted) == pytest.approx(volume(split), rel=5e-3)


def test_a_mesh_without_copies_stays_as_it_is():
    mesh = cubes([(0, 0, 0), (1, 0, 0)])
    assert part_copies(mesh) is mesh


@pytest.mark.parametrize("largest", [5, 1 << 20, 1 << 61])
def test_order_is_that_of_a_stable_sort(largest):
    key = np.random.default_rng(0).integers(0, largest, 500)
    assert np.array_equal(_stable_order(key), np.argsort(key, kind="stable"))
    assert len(_stable_order(key[:0])) == 0
