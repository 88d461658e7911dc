"""Cameras against the numbers of DreamGaussian, Zero123 and MVDream."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dg.core import camera

# elevation, azimuth, radius -> camera to world with OpenGL axes, rows
POSES = {
    (0, 0, 2): [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]],
    (-30, 0, 2): [[1, 0, 0, 0], [0, 0.866025, 0.5, 1], [0, -0.5, 0.866025, 1.732051], [0, 0, 0, 1]],
    (0, 90, 2.5): [[0, 0, 1, 2.5], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]],
    (30, -45, 2): [
        [0.707107, -0.353553, -0.612372, -1.224745],
        [0, 0.866025, -0.5, -1],
        [0.707107, 0.353553, 0.612372, 1.224745],
        [0, 0, 0, 1],
    ],
    (-89.9, 0, 2): [[1, 0, 0, 0], [0, 0.001745, 0.999998, 1.999997], [0, -0.999998, 0.001745, 0.003491], [0, 0, 0, 1]],
}


def close(got: torch.Tensor, expected, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, torch.tensor(expected, dtype=got.dtype), atol=atol, rtol=0)


@pytest.mark.parametrize("pose, expected", POSES.items())
def test_orbit(pose, expected):
    close(camera.c2w_opengl(camera.orbit(*pose))[0], expected)


def test_world_to_camera_in_opencv_axes():
    expected = [
        [0.707107, 0, 0.707107, 0],
        [0.353553, -0.866025, -0.353553, 0],
        [0.612372, 0.5, -0.612372, 2],
        [0, 0, 0, 1],
    ]
    cameras = camera.orbit(30, -45, 2)
    close(cameras.w2c[0], expected)
    torch.testing.assert_close(cameras.w2c @ cameras.c2w, torch.eye(4)[None], atol=1e-6, rtol=0)


def test_world_to_camera_off_centre():
    """Also when the camera does not look at the origin: the inverse, not the original's shortcut."""
    cameras = camera.orbit([20.0, -50.0], [30.0, 210.0], 2.0, target=(0.3, -0.2, 0.7))
    torch.testing.assert_close(cameras.w2c @ cameras.c2w, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)
    centre, depth = camera.project(torch.tensor([[0.3, -0.2, 0.7]]), cameras)
    close(centre, [[[128.0, 128.0]]] * 2, 1e-3)
    close(depth, [[2.0]] * 2)


@pytest.mark.parametrize("size, focal", [(128, 140.1110), (256, 280.2221), (512, 560.4441)])
def test_intrinsics(size, focal):
    close(camera.intrinsics(49.1, size, size), [[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], 1e-4)


def test_pixels_are_square_in_wide_pictures():
    K = camera.intrinsics(49.1, 256, 512)
    assert K[0, 0] == K[1, 1] and K[0, 2] == 256 and K[1, 2] == 128
    cameras = camera.orbit(0, 0, 2, height=256, width=512)
    close(camera.fovy_deg(cameras), [49.1])
    half = cameras.resized(128, 256)
    torch.testing.assert_close(half.K[0], camera.intrinsics(49.1, 128, 256))


@pytest.mark.parametrize("size, pixel", [(512, (340.0666, 143.9112)), (128, (85.0167, 35.9778))])
def test_projection_of_a_known_point(size, pixel):
    point = torch.tensor([[0.3, 0.4, 0.0]])
    cameras = camera.orbit(0, 0, 2, height=size)
    pixels, depth = camera.project(point, cameras)
    close(pixels[0, 0], pixel, 1e-3)
    close(depth, [[2.0]])
    clip = camera.clip_from_world(point, cameras)[0, 0]
    close(clip[:2] / clip[3], (0.328385, -0.437847))
    close(clip[3], 2.0)


def test_projection_matrix():
    """The original's, with y negated; its z axis points the other way, hence the signs of column 2."""
    P = camera.clip_from_view(camera.orbit(0, 0, 2))[0]
    expected = [[2.189235, 0, 0, 0], [0, 2.189235, 0, 0], [0, 0, 1.0002000, -0.0200020], [0, 0, 1, 0]]
    close(P, expected)
    near, far = (P @ torch.tensor([0.0, 0, z, 1]) for z in (0.01, 100.0))
    close(near[2] / near[3], -1.0)
    close(far[2] / far[3], 1.0)


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(0.5, 10))
def test_spherical_undoes_orbit(elevation, azimuth, radius):
    e, a, r = camera.spherical(camera.orbit(elevation, azimuth, radius))
    turn = (a.item() - azimuth + 180) % 360 - 180
    assert abs(e.item() - elevation) < 2e-3 and abs(turn) < 2e-2 and abs(r.item() - radius) < 1e-4


@given(st.floats(-89, 89), st.floats(-180, 180))
def test_cameras_are_rotations_that_look_at_the_target_with_the_world_up(elevation, azimuth):
    c2w = camera.orbit(elevation, azimuth, 2.0).c2w[0]
    R = c2w[:3, :3]
    torch.testing.assert_close(R @ R.T, torch.eye(3), atol=1e-5, rtol=0)
    assert R.det() > 0.999
    torch.testing.assert_close(R[:, 2] * 2, -c2w[:3, 3], atol=1e-4, rtol=0)  # z points at the origin
    assert abs(R[1, 0]) < 1e-5 and R[1, 1] < 0  # x is level, y points down


def test_scalars_broadcast_and_poles_are_clamped():
    cameras = camera.orbit([0.0, -90.0, 90.0], 0.0, 2.0, height=8, width=4)
    assert len(cameras) == 3 and cameras.width == 4
    close(camera.spherical(cameras)[0], [0.0, -89.9, 89.9], 1e-2)
    assert cameras.position[1, 1] > 1.99 and cameras.position[2, 1] < -1.99  # negative is above


@pytest.mark.parametrize(
    "reference, bounds", [(0, (-30, 30)), (-30, (-30, 60)), (30, (-60, 30)), (-60, (-20, 90)), (20, (-50, 30))]
)
def test_vertical_range(reference, bounds):
    assert camera.vertical_range(-30, 30, reference) == bounds


def test_vertical_range_of_imagedream():
    assert camera.vertical_range(-5, 0, 0) == (-5, 0)


@pytest.mark.parametrize(
    "elevation, azimuth, expected",
    [(0, 0, (0, 0, 1, 0)), (-30, 90, (-0.523599, 1, 0, 0)), (20, -135, (0.349066, -0.707107, -0.707107, 0))],
)
def test_relative_pose_of_zero123(elevation, azimuth, expected):
    # spherical() takes the angles from positions in float32
    got = camera.relative_pose_zero123(camera.orbit(elevation, azimuth), camera.orbit(0, 0))
    close(got[0], expected)


def test_relative_pose_from_a_tilted_and_turned_reference():
    reference = camera.orbit(-20, 50, 2.0)
    got = camera.relative_pose_zero123(camera.orbit([-50.0, 0.0], [140.0, -85.0], [2.0, 2.5]), reference)
    close(got, [[-0.523599, 1, 0, 0], [0.349066, -0.707107, -0.707107, 0.5]])


@given(st.floats(-60, 60), st.floats(1, 20), st.floats(-170, 170))
def test_moving_up_makes_the_first_component_negative(elevation, rise, azimuth):
    reference = camera.orbit(elevation, 0)
    higher = camera.orbit(elevation - rise, azimuth)
    assert higher.position[0, 1] > reference.position[0, 1]
    assert camera.relative_pose_zero123(higher, reference)[0, 0] < 0


@pytest.mark.parametrize("elevation, polar", [(0, 1.570796), (-30, 1.047198)])
def test_relative_pose_of_stable_zero123(elevation, polar):
    got = camera.relative_pose_stable_zero123(camera.orbit(elevation + 10, 90), camera.orbit(elevation, 0))
    close(got[0], (math.radians(10), 1, 0, polar))


@pytest.mark.parametrize(
    "pose, expected",
    [
        ((0, 0, 2), [1, 0, 0, 0, 0, 0, -1, -1, 0, 1, 0, 0, 0, 0, 0, 1]),
        ((0, 90, 2.5), [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]),
        ((-30, 0, 2), [1, 0, 0, 0, 0, 0.5, -0.866025, -0.866025, 0, 0.866025, 0.5, 0.5, 0, 0, 0, 1]),
    ],
)
def test_pose_of_mvdream(pose, expected):
    close(camera.pose_mvdream(camera.orbit(*pose))[0], expected)


def test_subsets_keep_their_axis():
    cameras = camera.orbit([0.0, 10.0, 20.0], 0.0)
    assert len(cameras[1:]) == 2 and len(cameras[[2]]) == 1
    assert torch.equal(cameras[[2]].c2w[0], cameras.c2w[2])
