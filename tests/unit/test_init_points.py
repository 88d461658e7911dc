"""Point files in every layout, how their points are placed, and the visual hull of pictures."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dg.core.camera import orbit, project
from dg.core.gaussians import activate, ball, rgb_from_sh
from dg.core.rng import generator
from dg.core.visual_hull import in_silhouettes, visual_hull
from dg.data.init_points import counted, placed, point_cloud, turned_points
from dg.io.mesh import save_mesh
from dg.io.ply import write_ply
from dg.io.points import Points, read_points
from dg.types import Mesh, Reference
from tests import shapes

XYZ = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * [0.2, 0.5, 0.3]
RGB = np.random.default_rng(1).random((50, 3))


def point_e_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray | None, faces: list | None = None) -> Path:
    """The bytes that Point-E's and Shap-E's writer makes."""
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    lines += [f"property float {a}" for a in "xyz"]
    lines += [] if rgb is None else [f"property uchar {c}" for c in ("red", "green", "blue")]
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_index"]
    colours = [()] * len(xyz) if rgb is None else np.round(255.499 * rgb).astype(int).clip(0, 255).tolist()
    layout = struct.Struct("<3f" if rgb is None else "<3f3B")
    body = b"".join(layout.pack(*p, *c) for p, c in zip(xyz.tolist(), colours, strict=True))
    body += b"".join(struct.pack("<B3I", 3, *face) for face in faces or [])
    path.write_bytes(("\n".join([*lines, "end_header"]) + "\n").encode() + body)
    return path


def write(kind: str, folder: Path) -> Path:
    path = folder / f"points.{kind.split()[0]}"
    if kind == "npz":
        np.savez(path, coords=XYZ, R=RGB[:, 0], G=RGB[:, 1], B=RGB[:, 2])
    elif kind == "ply":
        point_e_ply(path, XYZ, RGB)
    elif kind == "ply ascii":
        rows = "\n".join(" ".join(f"{v:.9g}" for v in (*p, *c)) for p, c in zip(XYZ, RGB, strict=True))
        names = "".join(f"property float {n}\n" for n in "xyzrgb")
        path.write_text(f"ply\nformat ascii 1.0\nelement vertex 50\n{names}end_header\n{rows}\n")
    elif kind == "obj":
        path.write_text(
            "# scan\n" + "".join("v " + " ".join(map(str, (*p, *c))) + "\n" for p, c in zip(XYZ, RGB, strict=True))
        )
    else:
        trimesh.PointCloud(XYZ, colors=(255 * RGB).round().astype(np.uint8)).export(path)
    return path


@pytest.mark.parametrize("kind", ["npz", "ply", "ply ascii", "obj", "glb"])
def test_every_layout_gives_the_same_points(kind: str, tmp_path: Path) -> None:
    found = read_points(write(kind, tmp_path))
    assert isinstance(found, Points)
    np.testing.assert_allclose(found.xyz.numpy(), XYZ, atol=1e-6)
    np.testing.assert_allclose(found.rgb.numpy(), RGB, atol=1e-6 if kind in ("npz", "ply ascii", "obj") else 0.0045)


def test_points_without_colours_and_files_with_faces(tmp_path: Path) -> None:
    assert read_points(point_e_ply(tmp_path / "bare.ply", XYZ, None)).rgb is None
    np.savez(tmp_path / "bare.npz", coords=XYZ)
    assert read_points(tmp_path / "bare.npz").rgb is None
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    made = read_points(point_e_ply(tmp_path / "mesh.ply", square, RGB[:4], [[0, 1, 2], [0, 2, 3]]))
    assert isinstance(made, Mesh) and len(made.faces) == 2
    for suffix in ("obj", "glb"):
        save_mesh(shapes.ball(torch.full((4, 4, 3), 0.3)), tmp_path / f"ball.{suffix}")
        assert isinstance(read_points(tmp_path / f"ball.{suffix}"), Mesh)


def bad_files(folder: Path) -> dict[str, str]:
    """File: what the message says."""
    np.savez(folder / "other.npz", points=XYZ)
    np.savez(folder / "flat.npz", coords=XYZ[:, :2])
    np.savez(folder / "short.npz", coords=XYZ, R=RGB[:9, 0], G=RGB[:, 1], B=RGB[:, 2])
    np.savez(folder / "nan.npz", coords=np.where(XYZ > 0.9, np.nan, XYZ))
    np.savez(folder / "two.npz", coords=XYZ[:2])
    np.savez(folder / "same.npz", coords=np.ones((9, 3)))
    np.savez(folder / "code.npz", coords=np.array([{}], dtype=object))
    (folder / "torn.npz").write_bytes((folder / "other.npz").read_bytes()[:60])
    (folder / "torn.ply").write_bytes(point_e_ply(folder / "whole.ply", XYZ, RGB).read_bytes()[:-9])
    (folder / "x.obj").write_text("v 1 2\nv 1 2 3\n")
    (folder / "y.obj").write_text("v 1 two 3\n")
    (folder / "empty.obj").write_text("")
    (folder / "torn.glb").write_bytes(b"glTF" + bytes(9))
    (folder / "points.xyz").write_text("1 2 3\n")
    write_ply(ball(generator(0, "x"), num_points=9, radius=0.3), folder / "splats.ply")
    return {
        "other.npz": "has no array `coords`.*it has points",
        "flat.npz": r"shape \[50, 2\] instead of \[N, 3\]",
        "short.npz": r"50 points, but R, G, B have \[\[9\]",
        "nan.npz": "of its 50 points are not finite",
        "two.npz": "holds 2 points; at least 4",
        "same.npz": "all of its points lie in one place",
        "code.npz": "no NPZ of plain arrays",
        "torn.npz": "is damaged or no NPZ",
        "torn.ply": "is truncated",
        "x.obj": r"lines of \[2, 3\] numbers",
        "y.obj": "line 1: 'v 1 two 3' is not a point",
        "empty.obj": "holds no points",
        "torn.glb": "is damaged or cut off",
        "points.xyz": "'.xyz' is not a format of points; use one of .ply",
        "splats.ply": "is a model of Gaussians; go on from it with gaussians=",
        "none.ply": "no file at .*none.ply; check the path",
    }


def test_a_wrong_file_is_one_clear_line(tmp_path: Path) -> None:
    for name, said in bad_files(tmp_path).items():
        with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
            point_cloud(generator(0, "init"), file=str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


# --- where the points go


def picture(height: int = 40, width: int = 20, elevation: float = 0.0, azimuth: float = 0.0) -> Reference:
    rgba = torch.zeros(1, 64, 64, 4)
    rgba[:, 32 - height // 2 : 32 + height // 2, 32 - width // 2 : 32 + width // 2] = torch.tensor([0.9, 0.2, 0.1, 1])
    return Reference(rgba, orbit(elevation, azimuth, 2.0, height=64))


def test_the_longer_side_of_the_silhouette_is_met() -> None:
    cloud = torch.tensor([0.1, 0.5, 2.0]) * (torch.rand(3000, 3, generator=generator(0, "x")) - 0.5) + 7
    for elevation, azimuth in ((0, 0), (-30, 90)):
        reference = picture(elevation=elevation, azimuth=azimuth)
        out = placed(cloud, reference)
        assert ((out.amax(0) + out.amin(0)) / 2).abs().max() < 1e-5
        c2w = reference.cameras.c2w[0]
        sides = [float((out @ c2w[:3, k]).max() - (out @ c2w[:3, k]).min()) for k in (0, 1)]
        world = 40 * 2 * 2 * math.tan(math.radians(49.1) / 2) / 64  # pixels at the distance of the origin
        assert max(sides) == pytest.approx(world, rel=1e-3)
    assert float(placed(cloud, None).norm(dim=1).max()) == pytest.approx(0.5)


def test_axes() -> None:
    front, up = torch.tensor([[0.0, -1, 0]]), torch.tensor([[0.0, 0, 1]])  # Blender's, Point-E's and Shap-E's
    torch.testing.assert_close(turned_points(front, "z", 0), torch.tensor([[0.0, 0, 1]]))
    torch.testing.assert_close(turned_points(up, "z", 30), torch.tensor([[0.0, 1, 0]]))
    ours = torch.tensor([[0.0, 0, 1]])
    torch.testing.assert_close(turned_points(ours, "y", 90), torch.tensor([[1.0, 0, 0]]), atol=1e-6, rtol=0)
    seen_from = orbit(0, 90, 2.0).position  # what faces azimuth 90 is nearest to the camera there
    assert (turned_points(ours, "y", 90) - seen_from).norm() == pytest.approx(1.0)


def test_points_are_thinned_and_topped_up() -> None:
    xyz, rgb = torch.from_numpy(XYZ).float(), torch.from_numpy(RGB).float()
    few, colours = counted(xyz, rgb, 20, generator(0, "x"), 0.01, 0.2)
    where = (few[:, None] == xyz).all(-1).nonzero()[:, 1]
    assert len(few) == 20 == len(where.unique()) and torch.equal(colours, rgb[where])
    more, colours = counted(xyz, rgb, 400, generator(0, "x"), 0.01, 0.2)
    assert torch.equal(more[:50], xyz) and torch.equal(colours[:50], rgb)
    distance, parent = torch.cdist(more[50:], xyz).min(1)
    assert distance.max() <= 0.01 + 1e-6 and 0.006 < distance.mean() < 0.009  # 3/4 of the radius in a ball
    lighter = colours[50:] - rgb[parent]
    assert lighter.min() >= 0 and lighter.max() <= 0.2 + 1e-6 and len(parent.unique()) > 40


def test_a_cloud_becomes_gaussians(tmp_path: Path) -> None:
    write("npz", tmp_path)
    raw = point_cloud(generator(0, "init"), picture(), file=str(tmp_path / "points.npz"), fit=False, opacity=0.3)
    x = activate(raw)
    torch.testing.assert_close(x.means, torch.from_numpy(XYZ).float())
    torch.testing.assert_close(rgb_from_sh(x.sh, None)[0], torch.from_numpy(RGB).float())
    assert float(x.opacities[0]) == pytest.approx(0.3)
    again = [point_cloud(generator(4, "init"), file=str(tmp_path / "points.npz"), num_points=77) for _ in range(2)]
    assert len(again[0]) == 77 and torch.equal(again[0].means, again[1].means)


def test_points_on_a_mesh_have_its_colours(tmp_path: Path) -> None:
    texture = torch.zeros(64, 64, 3)
    texture[:32, :, 0] = texture[32:, :, 2] = 1  # red above, blue below
    save_mesh(shapes.ball(texture, radius=0.4), tmp_path / "ball.glb")
    raw = activate(point_cloud(generator(0, "init"), file=str(tmp_path / "ball.glb"), num_points=900))
    assert (raw.means.norm(dim=1) - 0.5).abs().max() < 0.01
    rgb = rgb_from_sh(raw.sh, None)[0]
    high, low = raw.means[:, 1] > 0.05, raw.means[:, 1] < -0.05
    assert (rgb[high] - torch.tensor([1.0, 0, 0])).abs().max() < 0.01 and high.sum() > 300
    assert (rgb[low] - torch.tensor([0, 0, 1.0])).abs().max() < 0.01 and low.sum() > 300


# --- the visual hull


def disc(radius: float, azimuths: list[float]) -> Reference:
    """A ball at the origin: exactly the rays that pass it at less than `radius`. Every view has its own colour."""
    cameras = orbit([0] * len(azimuths), azimuths, 2.0, height=128)
    y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    tangent = (((x - 64) ** 2 + (y - 64) ** 2).sqrt() / cameras.K[0, 0, 0]).atan().sin() * 2
    inside = (tangent < radius).float()
    views = [torch.cat([torch.eye(3)[v].expand(128, 128, 3), inside[..., None]], -1) for v in range(len(azimuths))]
    return Reference(torch.stack(views), cameras)


def test_the_hull_of_a_ball_from_three_sides() -> None:
    reference = disc(0.4, [0, 90, 180])
    x = activate(visual_hull(generator(0, "init"), reference, num_points=4000))
    # the cones' own equation: the angle at the camera between point and origin
    for eye in reference.cameras.position:
        cosine = torch.nn.functional.cosine_similarity(x.means - eye, -eye.expand_as(x.means))
        assert float(cosine.acos().max()) < math.asin(0.4 / 2) + 0.01
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-0.8, 0.8, 60)] * 3, indexing="ij"), -1).reshape(-1, 3)
    angles = [
        torch.nn.functional.cosine_similarity(grid - e, -e.expand_as(grid)).acos() for e in reference.cameras.position
    ]
    truth = (torch.stack(angles) < math.asin(0.2)).all(0)
    assert (in_silhouettes(grid, reference.rgba[..., 3] > 0.5, reference.cameras) ^ truth).float().mean() < 0.004
    near = torch.cdist(x.means, reference.cameras.position)
    rgb = rgb_from_sh(x.sh, None)[0]
    assert torch.equal(rgb.argmax(1), near.argmin(1))
    box, of_truth = x.means.abs().amax(0), grid[truth].abs().amax(0)
    assert ((box / of_truth) > 0.85).all()  # all of it is filled


def test_one_picture_inflates() -> None:
    x = activate(visual_hull(generator(0, "init"), disc(0.4, [0]), num_points=3000))
    radius = x.means.norm(dim=1)  # a disc inflates to a ball; the mean radius of a ball is 3/4 of its own
    assert float(radius.max()) < 0.45 and float(radius.mean()) == pytest.approx(0.75 * 0.4, rel=0.06)
    assert (x.means.abs().amax(0) > 0.37).all()
    shallow = activate(visual_hull(generator(0, "init"), disc(0.4, [0]), num_points=3000, max_depth=0.5))
    assert float(shallow.means[:, 2].abs().max()) == pytest.approx(0.5 * float(x.means[:, 2].abs().max()), rel=0.1)
    xy, _ = project(shallow.means, orbit(0, 0, 2.0, height=128))
    assert (xy[0] - 64).norm(dim=1).max() < 32


def test_pictures_that_fit_nothing() -> None:
    with pytest.raises(ValueError, match="needs a picture: input=PICTURE, or init=ball"):
        visual_hull(generator(0, "init"))
    blank = picture()
    with pytest.raises(ValueError, match="picture 1 has no opaque pixel"):
        visual_hull(generator(0, "init"), Reference(torch.zeros_like(blank.rgba), blank.cameras))
    rgba = torch.zeros(2, 64, 64, 4)
    rgba[0, :8], rgba[1, -8:] = 1, 1  # above in one, below in the other
    apart = Reference(rgba, orbit([0, 0], [0, 90], 2.0, height=64))
    with pytest.raises(ValueError, match="lie inside all 2 silhouettes; check elevation and azimuth"):
        visual_hull(generator(0, "init"), apart, num_points=100)
