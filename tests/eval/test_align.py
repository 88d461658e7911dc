import numpy as np
import pytest

from dg.eval.align import align, compare, fit, icp, rotations24, yaw
from dg.eval.catalog import ALIGNMENTS
from dg.eval.shape import chamfer, nearest, sample_surface, samples_of
from tests.eval.lump import lump


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return sample_surface(lump(tmp_path_factory.mktemp("lump"), 3), 4000)


def turn(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


def posed(samples, rotation, shift=(0, 0, 0), scale=1.0):
    return samples_of(scale * samples.points @ rotation.T + shift, samples.normals @ rotation.T)


@pytest.mark.parametrize("degrees", [3.3, 77.7, -160.2])
def test_yaw_is_found_to_a_tenth_of_a_degree(truth, degrees):
    found = yaw(posed(truth, turn(1, degrees)), truth, np.zeros(3))
    off = found[:3, :3] @ turn(1, degrees)
    assert np.degrees(np.arccos(min(1, (np.trace(off) - 1) / 2))) < 0.1
    np.testing.assert_allclose(found[:3, 3], 0, atol=1e-12)


def test_each_alignment_undoes_what_it_is_for(truth):
    quarter = turn(0, 90) @ turn(1, 180)
    found = align(posed(truth, quarter), truth, ALIGNMENTS)
    assert list(found) == list(ALIGNMENTS)
    assert found["rot24"].chamfer < 1e-9 < found["yaw"].chamfer
    assert found["icp"].chamfer < 1e-9

    tilted = posed(truth, turn(0, 8) @ turn(2, 5), (0.05, -0.03, 0.02))
    found = align(tilted, truth, ALIGNMENTS)
    assert found["icp"].chamfer < 1e-3 < min(found[name].chamfer for name in ALIGNMENTS[:3])


def test_no_alignment_is_worse_than_none_and_icp_is_the_best(truth):
    other = posed(truth, turn(2, 30) * [1, 0.6, 1.2], (0.1, 0, 0.2))
    found = {name: a.chamfer for name, a in align(other, truth, ALIGNMENTS).items()}
    assert max(found.values()) == found["unaligned"] and min(found.values()) == found["icp"]
    assert align(other, truth, ("icp",))["icp"].chamfer == found["icp"]  # whatever else is asked for


def test_turns_are_about_the_pivot(truth):
    pivot = np.array([0.4, 0.1, -0.2])
    away = samples_of((truth.points - pivot) @ turn(1, 40).T + pivot, truth.normals @ turn(1, 40).T)
    assert align(away, truth, ("yaw",), pivot)["yaw"].chamfer < 1e-3
    assert align(away, truth, ("yaw",))["yaw"].chamfer > 5e-3


def test_comparing_in_a_pose_equals_moving_the_points(truth):
    result = posed(truth, turn(0, 20), (0.1, 0, 0))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = 1.3 * turn(2, -35), (0.2, -0.1, 0.05)
    moved = posed(result, turn(2, -35), pose[:3, 3], 1.3)
    found = compare(result, truth, pose)
    to_truth, to_result = nearest(moved, truth), nearest(truth, moved)
    assert found.chamfer == pytest.approx(chamfer(to_truth, to_result), abs=1e-12)
    np.testing.assert_allclose(found.to_truth.cosine, to_truth.cosine, atol=1e-12)
    np.testing.assert_allclose(found.to_result.cosine, to_result.cosine, atol=1e-12)


def test_size_changes_only_when_asked(truth):
    small = posed(truth, turn(1, 4), scale=0.9)
    rigid, free = icp(small, truth, np.eye(4)), icp(small, truth, np.eye(4), scale=True)
    assert np.linalg.det(rigid[:3, :3]) == pytest.approx(1)
    assert np.cbrt(np.linalg.det(free[:3, :3])) == pytest.approx(1 / 0.9, abs=0.01)


def test_fit_never_mirrors():
    points = np.random.default_rng(0).normal(size=(50, 3))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = 0.7 * turn(0, 130), (1, 2, 3)
    np.testing.assert_allclose(fit(points, points @ pose[:3, :3].T + pose[:3, 3], scale=True), pose, atol=1e-9)
    mirror = fit(points, points * [-1, 1, 1])
    assert np.linalg.det(mirror[:3, :3]) == pytest.approx(1)


def test_the_24_rotations_are_a_group():
    found = {tuple(r.astype(int).ravel()) for r in rotations24()}
    assert len(found) == 24 and all(np.linalg.det(r) == pytest.approx(1) for r in rotations24())
    assert all(tuple((a @ b).astype(int).ravel()) in found for a in rotations24() for b in rotations24())
