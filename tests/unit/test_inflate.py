import numpy as np
import pytest
import torch

from dg.core.camera import orbit
from dg.core.inflate import extend_colours, inflate, poisson_height
from dg.core.meshes import signed_volume
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_mesh


def disc(size: int, radius: float) -> torch.Tensor:
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    rgba = np.zeros((size, size, 4), np.float32)
    rgba[..., 3] = np.hypot(x, y) < radius
    rgba[..., 0] = rgba[..., 3]
    rgba[..., 1] = (x < 0) * rgba[..., 3]
    return torch.from_numpy(rgba)


def test_a_disc_s_height_is_that_of_a_ball():
    u = poisson_height(disc(128, 40)[..., 3].numpy() > 0)
    y, x = np.mgrid[:128, :128] + 0.5 - 64
    truth = np.maximum(40.0**2 - x**2 - y**2, 0)
    assert np.abs(u - truth).max() < 0.03 * 1600


def test_a_disc_becomes_a_ball_of_the_right_size():
    camera = orbit(0, 0, 2.0, height=256)
    mesh = inflate(disc(256, 64), camera)
    # A ball seen from distance 2 with half angle a: sin a = R / 2, tan a = 64 / f.
    half_angle = np.arctan(64 / float(camera.K[0, 0, 0]))
    distance = mesh.vertices.norm(dim=-1)
    expected = 2 * np.sin(half_angle)
    assert abs(distance.mean() / expected - 1) < 0.05
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(4 / 3 * np.pi * expected**3, rel=0.15)


def test_every_edge_has_two_faces():
    mesh = inflate(disc(256, 64), orbit(0, 0, 2.0, height=256), resolution=40)
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(-1).values
    assert (edges.unique(dim=0, return_counts=True)[1] == 2).all()


@pytest.mark.parametrize("elevation", [0, -30])
def test_the_picture_s_camera_sees_the_picture(elevation):
    rgba = disc(256, 64)
    rgba[40:120, 100:110] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    camera = orbit(elevation, 0, 2.0, height=256)
    render = render_mesh(inflate(rgba, camera), camera, CpuMeshRasterizer(), torch.ones(3))
    seen, truth = render.alpha[0, ..., 0] > 0.5, rgba[..., 3] > 0.5
    assert (seen & truth).sum() / (seen | truth).sum() > 0.93
    both = seen & truth
    assert (render.rgb[0][both] - rgba[..., :3][both]).abs().mean() < 0.03


def test_nothing_opaque_is_an_error():
    with pytest.raises(ValueError, match="no opaque region"):
        inflate(torch.zeros(64, 64, 4), orbit(0, 0, 2.0, height=64))


def test_colours_continue_outward():
    picture = extend_colours(disc(64, 20))
    assert (picture[..., 0] == 1).all()
    assert picture[32, 0].tolist() == [1, 1, 0] and picture[32, 63].tolist() == [1, 0, 0]
