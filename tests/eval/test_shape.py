import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from dg.eval.align import compare
from dg.eval.shape import chamfer, f_score, nearest, normal_consistency, one_sided, sample_surface, samples_of
from dg.types import Mesh
from tests.eval.lump import lump


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    return lump(tmp_path_factory.mktemp("lump"), 2)


def cloud(seed: int, count: int, spread: float):
    draw = np.random.default_rng(seed)
    normals = draw.normal(size=(count, 3))
    return samples_of(draw.normal(size=(count, 3)) * spread, normals / np.linalg.norm(normals, axis=1, keepdims=True))


def test_equal_the_definitions_written_out():
    """All pairs of distances, as the metrics of PyTorch3D and Open3D have them, on the same points."""
    a, b = cloud(0, 300, 1.0), cloud(1, 400, 0.8)
    distance = torch.cdist(torch.from_numpy(a.points), torch.from_numpy(b.points))
    (ab, to_b), (ba, to_a) = distance.min(1), distance.min(0)
    forward, backward = nearest(a, b), nearest(b, a)
    assert chamfer(forward, backward) == pytest.approx(float(ab.mean() + ba.mean()) / 2, abs=1e-9)
    for threshold in (0.1, 0.3):
        precision, recall = float((ab < threshold).double().mean()), float((ba < threshold).double().mean())
        expected = 2 * precision * recall / (precision + recall)
        assert f_score(forward, backward, threshold) == pytest.approx(expected, abs=1e-9)
    cosines = [np.abs((a.normals * b.normals[to_b]).sum(1)), np.abs((b.normals * a.normals[to_a]).sum(1))]
    assert normal_consistency(forward, backward) == pytest.approx(np.mean([c.mean() for c in cosines]), abs=1e-9)
    where = a.points[:, 0] > 0
    assert one_sided(forward, where) == pytest.approx((float(ab[where].mean()), cosines[0][where].mean()))
    assert one_sided(forward, np.zeros(300, bool)) is None
    far = cloud(2, 10, 0.01)
    assert f_score(nearest(far, b), nearest(b, far), 1e-6) == 0


def test_equal_other_peoples_samples_of_the_same_surfaces(mesh):
    """trimesh draws the points, scipy finds the nearest."""
    other = Mesh(mesh.vertices * torch.tensor([0.8, 1.0, 0.7]), mesh.faces)
    theirs = []
    for i, m in enumerate((mesh, other)):
        surface = trimesh.Trimesh(m.vertices.numpy(), m.faces.numpy(), process=False)
        theirs.append(trimesh.sample.sample_surface(surface, 20_000, seed=i)[0])
    d = [cKDTree(q).query(p)[0] for p, q in (theirs, theirs[::-1])]
    ours = compare(sample_surface(mesh, 20_000), sample_surface(other, 20_000, seed=1), np.eye(4))
    assert ours.chamfer == pytest.approx((d[0].mean() + d[1].mean()) / 2, abs=1e-3)


def test_samples_are_even_by_area_and_the_same_again(mesh):
    samples = sample_surface(mesh, 5000)
    assert np.array_equal(samples.points, sample_surface(mesh, 5000).points)
    assert not np.array_equal(samples.points, sample_surface(mesh, 5000, seed=1).points)
    big, small = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]]), torch.tensor([[0.0, 0, 5], [1, 0, 5], [0, 1, 5]])
    two = Mesh(torch.cat([big, small]), torch.tensor([[0, 1, 2], [3, 4, 5]]))
    points = sample_surface(two, 20_000).points
    assert (points[:, 2] > 4).mean() == pytest.approx(0.2, abs=1e-4)
    within = points[points[:, 2] < 1]
    assert (within[:, :2] >= 0).all() and (within[:, 0] + within[:, 1] <= 2 + 1e-9).all()
    np.testing.assert_allclose(within.mean(0), [2 / 3, 2 / 3, 0], atol=0.01)
    np.testing.assert_allclose(within[:, 0].var(), 4 / 18, atol=0.01)
    with pytest.raises(ValueError, match="no area"):
        sample_surface(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 10)


def test_normals_belong_to_the_faces(mesh):
    samples = sample_surface(mesh, 200)
    surface = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    centres = cKDTree(surface.triangles_center)
    _, near = centres.query(samples.points, k=12)
    best = np.abs(np.einsum("nk,nmk->nm", samples.normals, surface.face_normals[near])).max(1)
    assert (best > 1 - 1e-5).all()
