"""The toy objects: closed, framed as promised, textured with what their models say; and the solids they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dg.core.clean import topology
from dg.core.meshes import signed_volume
from dg.core.rng import generator
from dg.data import sdf
from dg.data.objects import main, make, names, picture
from dg.data.toys import TOYS

EXAMPLES = Path(__file__).parents[2] / "examples"
# Euler characteristic 2 - 2 * genus: the mug has one handle, the robot's key two rings
GENUS = {"mug": 1, "robot": 2}
QUICK = ["robot", "mug"]  # the others take as long each; `make test-slow` has them


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names()])
def test_object_is_closed_framed_and_painted(name):
    mesh = make(name)
    assert make(name) is mesh  # made once
    shape = topology(mesh)
    assert shape.closed and shape.components == 1
    if name in GENUS:
        assert shape.euler == 2 - 2 * GENUS[name]
    assert signed_volume(mesh.vertices, mesh.faces) > 0.01
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    torch.testing.assert_close((high - low).max(), torch.tensor(1.0))
    torch.testing.assert_close(low + high, torch.zeros(3), atol=1e-5, rtol=0)
    assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1 and mesh.faces_uv.shape == mesh.faces.shape
    assert mesh.texture.shape[-1] == 3 and mesh.texture.min() >= 0 and mesh.texture.max() <= 1
    colours = torch.unique((mesh.texture.reshape(-1, 3) * 255).round(), dim=0)
    assert len(colours) >= 5
    # Front and back differ, and the front is not its own mirror image. By the share of the object's pixels, since thin
    # objects fill little of the picture: of a rocket without window glint and bent flame it is 0, of ours 2 %.
    front, back = picture(mesh, 128), picture(mesh, 128, azimuth_deg=180.0)
    assert differing(front, back.flip(1)) > 0.01
    assert differing(front, front.flip(1)) > 0.01


def differing(one: torch.Tensor, other: torch.Tensor) -> float:
    """The share of what either covers where a channel differs by more than 0.2."""
    covered = (one[..., 3] > 0.5) | (other[..., 3] > 0.5)
    return float((((one - other).abs().amax(-1) > 0.2) & covered).sum() / covered.sum())


def test_texture_shows_the_models_colour_where_the_surface_is():
    """The key in the robot's back, the bulb on its head, the raised hand: looked for in the pictures."""
    mesh = make("robot")
    front, back = picture(mesh, 256), picture(mesh, 256, azimuth_deg=180.0)

    def share(image: torch.Tensor, colour: str, rows: slice, columns: slice) -> float:
        part = image[rows, columns]
        same = (part[..., :3] - torch.tensor(sdf.rgb(colour))).abs().amax(-1) < 0.02
        return float((same & (part[..., 3] == 1)).float().mean())

    everything = slice(None)
    assert share(back, "#f2c43a", everything, everything) > 0.005
    assert share(front, "#e8413b", slice(0, 90), everything) > 0.001
    assert share(front, "#f08a2c", slice(0, 128), slice(150, 256)) > 0.01  # its left hand is up: on our right
    assert share(front, "#f08a2c", slice(0, 110), slice(0, 80)) == 0


def test_objects_are_repeatable():
    first, second = make("mug"), make.__wrapped__("mug", 256)
    assert torch.equal(first.vertices, second.vertices) and torch.equal(first.faces, second.faces)
    assert second.texture.shape == (256, 256, 3)


def test_unknown_name():
    with pytest.raises(ValueError, match="robot"):
        make("roboter")
    assert len(names()) >= 8 and set(names()) == set(TOYS)


def test_command_line_writes_the_example(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["objects", "robot", str(tmp_path / "robot.png")])
    main()
    made = np.asarray(Image.open(tmp_path / "robot.png"))
    assert made.shape == (512, 512, 4) and (made[0, 0] == 0).all() and made[..., 3].max() == 255
    assert ((made[..., 3] > 0) & (made[..., 3] < 255)).any()  # antialiased
    shipped = np.asarray(Image.open(EXAMPLES / "robot.png")).astype(int)
    difference = np.abs(shipped - made) * (np.minimum(shipped[..., 3:], made[..., 3:]) > 0)
    assert difference.mean() < 0.5  # another compiler may round a face or two differently


def points(seed: int, count: int = 4000, reach: float = 1.0) -> np.ndarray:
    return ((torch.rand(count, 3, generator=generator(seed, "points")) * 2 - 1) * reach).numpy()


EXACT = {
    "sphere": (sdf.sphere((0.1, 0.2, -0.1), 0.4), lambda p: np.linalg.norm(p - [0.1, 0.2, -0.1], axis=1) < 0.4),
    "box": (sdf.box((0, 0.1, 0), (0.4, 0.3, 0.2), 0.0), lambda p: (np.abs(p - [0, 0.1, 0]) < [0.4, 0.3, 0.2]).all(1)),
    "ellipsoid": (sdf.ellipsoid((0, 0, 0), (0.6, 0.3, 0.4)), lambda p: ((p / [0.6, 0.3, 0.4]) ** 2).sum(1) < 1),
    "cylinder": (
        sdf.cone((0, -0.4, 0), (0, 0.5, 0), 0.3, 0.3, 0.0),
        lambda p: (np.hypot(p[:, 0], p[:, 2]) < 0.3) & (p[:, 1] > -0.4) & (p[:, 1] < 0.5),
    ),
    "cone": (
        sdf.cone((0.5, 0, 0), (-0.5, 0, 0), 0.1, 0.5, 0.0),
        lambda p: (np.hypot(p[:, 1], p[:, 2]) < 0.3 - 0.4 * p[:, 0]) & (np.abs(p[:, 0]) < 0.5),
    ),
    "torus": (
        sdf.torus((0, 0, 0), 0.5, 0.2, 2),
        lambda p: (np.hypot(p[:, 0], p[:, 1]) - 0.5) ** 2 + p[:, 2] ** 2 < 0.04,
    ),
    "turned": (
        sdf.turned(sdf.box((0.5, 0, 0), (0.3, 0.1, 0.1), 0.0), 90, 2),  # x turns to y
        lambda p: (np.abs(p - [0, 0.5, 0]) < [0.1, 0.3, 0.1]).all(1),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_solids_are_where_their_definition_says(name):
    distance, inside = EXACT[name]
    p = points(1)
    d = distance(p)
    clear = np.abs(d) > 1e-4
    assert ((d < 0) == inside(p))[clear].all() and inside(p).sum() > 5
    # never longer than the way to the surface: no point inside lies within |d| of a point outside
    within, without = p[d < 0], p[d > 0][:500]
    gap = np.linalg.norm(without[:, None] - within[None], axis=2).min(1)
    if name not in ("ellipsoid", "cone"):
        assert (distance(without) <= gap + 1e-4).all()


def test_rods_with_round_ends():
    d = sdf.capsule((0, 0, 0), (0, 1, 0), 0.1, 0.3)
    got = d(np.array([[0, -0.5, 0], [0.5, 0.5, 0], [0, 1.5, 0]], np.float32))
    np.testing.assert_allclose(got, [0.4, 0.3, 0.2], atol=1e-6)


def test_models_blend_cut_and_paint():
    ball = sdf.Part(sdf.sphere((0, 0, 0), 0.5), "#ff0000", 0.0)
    hole = sdf.Part(sdf.box((0.5, 0, 0), (0.5, 2, 2), 0.0), "#0000ff", 0.02, cut=True)
    model = sdf.Model((ball, hole), (sdf.Paint(sdf.disc(-0.2, 0, 0.1), "#00ff00"),))
    p = np.array([[0.3, 0, 0], [-0.3, 0, 0]], np.float32)
    assert (model.distance(p) < 0).tolist() == [False, True]
    surface = np.array([[0, 0.1, 0], [-0.2, 0, 0.458], [-0.2, 0, -0.458], [-0.5, 0, 0]], np.float32)
    assert model.colour(surface).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 0]]
    # a fillet adds material between two touching balls, and none far from where they meet
    pair = [sdf.sphere((-0.3, 0, 0), 0.3), sdf.sphere((0.3, 0, 0), 0.3)]
    blended = sdf.Model(tuple(sdf.Part(d, "#ffffff", 0.2) for d in pair))
    middle, far = np.zeros((1, 3), np.float32), np.array([[0.6, 0, 0]], np.float32)
    assert blended.distance(middle)[0] < -0.04 and abs(blended.distance(far)[0]) < 1e-6
