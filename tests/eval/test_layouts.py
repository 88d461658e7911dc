"""Data sets as they are published: read from trees in their layouts, conventions checked against formulas of theirs."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch

from dg.core.camera import orbit, project, spherical
from dg.eval.layouts import eschernet, gpteval3d, magic123, syncdreamer, t3bench
from dg.eval.layouts.converted import UNIT, picture_at_size
from dg.eval.layouts.frames import elevation_from_above, elevation_from_polar
from dg.eval.layouts.pictures import read_views, shrunk
from dg.eval.layouts.plain_pickle import read_numbers
from dg.eval.placement import resized
from dg.eval.protocol import TruthDepth
from dg.eval.visible import from_depth, from_mesh, thinned, visible_samples
from dg.io.images import read_png, write_png
from dg.io.mesh import load_mesh, save_mesh
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_mesh
from tests.eval import trees
from tests.eval.shipped import protocol
from tests.eval.solids import lopsided

SOME = tuple(sorted(trees.GSO_TURNS))


@pytest.fixture
def few(monkeypatch):
    """The readers with six of the thirty objects."""
    monkeypatch.setattr(syncdreamer, "OBJECTS", SOME)
    monkeypatch.setattr(eschernet, "OBJECTS", SOME)


# --- SyncDreamer -----------------------------------------------------------------------------------------------------


def test_gso30_has_thirty_objects():
    assert len(set(syncdreamer.OBJECTS)) == len(syncdreamer.OBJECTS) == 30
    assert set(syncdreamer._TURNED_DEG) <= set(syncdreamer.OBJECTS)
    for name, turn in trees.GSO_TURNS.items():
        assert syncdreamer.mesh_yaw_deg(name) == -turn


@pytest.mark.usefixtures("few")
def test_gso30_pictures(tmp_path):
    trees.syncdreamer(tmp_path, SOME, meshes=False)
    items = syncdreamer.read_nvs(tmp_path, tmp_path / "cache")
    assert [i.name for i in items] == list(SOME)
    item = items[2]
    assert item.image == tmp_path / "gso-eval" / item.name / "000.png" and item.truth is None
    assert (item.elevation_deg, item.radius, item.recenter) == (-30, 1.5, False)
    assert len(item.truth_views.pictures) == 16 and item.truth_views.pictures[7].name == "007.png"
    elevation, azimuth, radius = spherical(item.truth_views.cameras)
    torch.testing.assert_close(elevation, torch.full((16,), -30.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(azimuth % 360, torch.arange(16) * 22.5, atol=1e-3, rtol=0)
    torch.testing.assert_close(radius, torch.full((16,), 1.5))
    views = protocol("gso30_nvs").views.cameras()  # the protocol's own cameras are the same
    torch.testing.assert_close(views.c2w, item.truth_views.cameras.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(views.K, item.truth_views.cameras.K, atol=1e-3, rtol=0)
    assert float(views.K[0, 0, 0]) == pytest.approx(280, abs=1e-3)


@pytest.mark.usefixtures("few")
def test_gso30_meshes_project_where_syncdreamer_sees_them(tmp_path):
    """Its own chain: centred, longest side 1, turned by -angle about z, cameras in the z-up world."""
    trees.syncdreamer(tmp_path, SOME)
    vertices, _ = trees.z_up_solid()
    for item in syncdreamer.read_mesh(tmp_path, tmp_path / "cache"):
        theirs = trees.turned_z(trees.normalised(vertices), -trees.GSO_TURNS[item.name])
        ours = load_mesh(item.truth).vertices
        for k in (0, 3, 10):
            pose = trees.blender_pose(trees.place(22.5 * k, 30, 1.5))
            expected = trees.seen_by_blender(theirs, pose, 280, 256)
            pixels, depth = project(ours, item.truth_depth.cameras[[k]])
            found = np.concatenate([pixels[0].numpy(), depth[0, :, None].numpy()], 1)
            np.testing.assert_allclose(_sorted(found), _sorted(expected), atol=2e-3)


def _sorted(rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(rows[:, 2])]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_camera_16_is_read_as_numbers_and_checked(tmp_path, module):
    trees.camera_16(tmp_path / "camera-16.pkl", module)
    found, ours = syncdreamer.read_cameras(tmp_path / "camera-16.pkl"), syncdreamer.cameras()
    torch.testing.assert_close(found.c2w, ours.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.K, ours.K, atol=1e-3, rtol=0)
    trees.syncdreamer(tmp_path, SOME, meshes=False)
    trees.camera_16(tmp_path / "meta_info" / "camera-16.pkl", module)
    assert syncdreamer.read_nvs(tmp_path, tmp_path / "cache")
    trees.camera_16(tmp_path / "meta_info" / "camera-16.pkl", module, shift=1.0)
    with pytest.raises(ValueError, match=r"camera-16\.pkl: its cameras are not the published ones"):
        syncdreamer.read_nvs(tmp_path, tmp_path / "cache")


class Evil:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("protocol_version", [0, 2, 4])
def test_a_pickle_is_never_run(tmp_path, protocol_version):
    mark, path = tmp_path / "it_ran", tmp_path / "camera-16.pkl"
    path.write_bytes(pickle.dumps([Evil(str(mark))], protocol=protocol_version))
    with pytest.raises(ValueError, match=r"camera-16\.pkl.*mkdir.*not run"):
        read_numbers(path)
    assert not mark.exists()
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(ValueError, match="not run"):
        read_numbers(path)


@pytest.mark.usefixtures("few")
def test_gso30_says_what_is_missing(tmp_path):
    trees.syncdreamer(tmp_path, SOME)
    (tmp_path / "gso-eval-meshes" / "sofa" / "meshes" / "model.obj").unlink()
    with pytest.raises(FileNotFoundError, match="sofa: its mesh"):
        syncdreamer.read_mesh(tmp_path, tmp_path / "cache")
    for k in (3, 5):
        (tmp_path / "gso-eval" / "train" / f"{k:03d}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"train: .*003\.png and 1 more missing .*SyncDreamer"):
        syncdreamer.read_nvs(tmp_path, tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="gso-eval is missing"):
        syncdreamer.read_nvs(tmp_path / "cache", tmp_path / "cache")


def test_depths_become_points_of_the_surface(tmp_path):
    mesh, raster, cameras = resized(lopsided(), UNIT), CpuMeshRasterizer(), syncdreamer.cameras()[[0, 5, 11]]
    seen = render_mesh(mesh, cameras, raster, torch.zeros(3))
    paths = []
    for i in range(len(cameras)):  # what is empty gets the far end, as Blender's depth does
        depth = torch.where(seen.alpha[i] > 0.5, seen.depth[i], torch.tensor(2.4))[..., 0]
        paths.append(tmp_path / f"{i:03d}-depth.png")
        trees.Image.fromarray(((depth - 0.6) / 1.8 * 65535).round().numpy().astype(np.uint16)).save(paths[-1])
    truth = TruthDepth(tuple(paths), cameras, 0.6, 2.4, (0.63, 2.37))
    points, own = from_depth(truth), from_mesh(mesh, cameras, raster)
    assert abs(len(points) - len(own)) < 0.01 * len(own) and len(own) > 10_000
    samples = visible_samples(mesh, cameras, raster, truth)
    off = visible_samples(mesh, cameras, raster).tree.query(samples.points)[0]
    assert np.median(off) < 1e-4 and off.max() < 0.01  # a pixel on the border of two cells may fall into either
    assert np.abs(np.abs(samples.normals).max(1) - 1).max() < 1e-6  # every face of the solid is square to an axis
    # every point lies on the solid's surface, and none on the side away from all three cameras
    from dg.eval.shape import sample_surface

    surface = sample_surface(mesh, 200_000)
    assert surface.tree.query(samples.points)[0].max() < 0.012
    bottom = surface.points[:, 1] < surface.points[:, 1].min() + 1e-6
    assert samples.tree.query(surface.points[bottom])[0].max() > 0.1


def test_depths_of_another_kind_are_refused(tmp_path):
    cameras = syncdreamer.cameras()[[0]]
    trees.png(tmp_path / "a.png", size=256)
    trees.png(tmp_path / "b.png", 3000, size=8, mode="I;16")
    for name, message in (("a.png", "16 bits"), ("b.png", "the cameras are")):
        with pytest.raises(ValueError, match=message):
            from_depth(TruthDepth((tmp_path / name,), cameras, 0.6, 2.4, (0.63, 2.37)))


def test_thinning_keeps_means():
    points = torch.tensor([[0.0, 0, 0], [0.002, 0, 0], [0.02, 0, 0]])
    torch.testing.assert_close(thinned(points, 0.01), torch.tensor([[0.001, 0, 0], [0.02, 0, 0]]))
    assert len(thinned(points[:0], 0.01)) == 0


# --- EscherNet -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few")
def test_escher_gso30_projects_where_blender_sees_it(tmp_path):
    trees.eschernet(tmp_path, SOME)
    item = eschernet.read(tmp_path, tmp_path / "cache")[0]
    azimuth, elevation, distance = trees.ESCHER_INPUT
    assert item.elevation_deg == pytest.approx(-elevation) and item.radius == pytest.approx(distance)
    assert item.frame_azimuth_deg == pytest.approx(azimuth) and item.image.name == "000.png" and not item.recenter
    assert item.truth_views.numbers == tuple(range(10, 25)) and len(item.truth_views.pictures) == 15
    assert read_png(item.truth_views.pictures[4]).shape == (256, 256, 4)
    torch.testing.assert_close(read_png(item.truth_views.pictures[4])[0, 0, 0], torch.tensor(140 / 255))
    vertices, _ = trees.z_up_solid()
    ours = load_mesh(item.truth).vertices
    front = orbit(item.elevation_deg, 0.0, item.radius, fovy_deg=item.fovy_deg, height=256)
    focal = 35 / 32 * 256
    places = trees.escher_positions()
    views = [(front, places[0]), *((item.truth_views.cameras[[k]], places[10 + k]) for k in range(15))]
    for camera, position in views:
        expected = trees.seen_by_blender(trees.normalised(vertices), trees.blender_pose(position), focal, 256)
        pixels, depth = project(ours, camera)
        found = np.concatenate([pixels[0].numpy(), depth[0, :, None].numpy()], 1)
        np.testing.assert_allclose(_sorted(found), _sorted(expected), atol=5e-3)


@pytest.mark.usefixtures("few")
def test_escher_gso30_mistakes(tmp_path):
    trees.eschernet(tmp_path, SOME)
    path = tmp_path / "GSO30" / SOME[1] / "render_mvs_25" / "model" / "012.npy"
    np.save(path, np.array([Evil(str(tmp_path / "it_ran"))], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"012\.npy"):
        eschernet.read(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "it_ran").exists()
    np.save(path, np.eye(3))
    with pytest.raises(ValueError, match="not a 3 x 4 camera"):
        eschernet.read(tmp_path, tmp_path / "cache")


# --- Magic123, T3Bench, GPTEval3D ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "count"), [("realfusion15", 15), ("nerf4", 4)])
@pytest.mark.parametrize("below", ["data/{}", "{}", "."])
def test_magic123_pictures(tmp_path, dataset, count, below):
    for name in magic123.OBJECTS[dataset]:
        for file in ("rgba", "depth", "normal"):
            trees.png(tmp_path / below.format(dataset) / name / f"{file}.png")
    items = magic123.read(tmp_path, dataset)
    assert len(items) == count == len(protocol(dataset).objects)
    assert [i.name for i in items] == list(protocol(dataset).objects)
    assert all(i.image.name == "rgba.png" and i.image.parent.name == i.name and i.recenter for i in items)
    items[1].image.unlink()
    with pytest.raises(FileNotFoundError, match=f"{dataset}: .*{items[1].name}"):
        magic123.read(tmp_path, dataset)


@pytest.mark.parametrize("below", ["data", "."])
def test_t3bench_prompts(tmp_path, below):
    (tmp_path / below).mkdir(exist_ok=True)
    for group in ("single", "surr", "multi"):
        (tmp_path / below / f"prompt_{group}.txt").write_text(f"A cactus, {group}\nA doll's face\n\n", encoding="utf-8")
    items = t3bench.read(tmp_path)
    assert [i.name for i in items] == [f"{g}_{i:03d}" for g in ("single", "surr", "multi") for i in (0, 1)]
    assert items[1].prompt == "A doll's face" and items[1].image is None
    assert t3bench.folder_name("A doll's face") == "A_doll's_face"
    with pytest.raises(ValueError, match="groups: surround is none of"):
        t3bench.read(tmp_path, ["surround"])
    (tmp_path / below / "prompt_multi.txt").unlink()
    with pytest.raises(FileNotFoundError, match="prompts of group multi"):
        t3bench.read(tmp_path)


def test_gpteval3d_is_written_as_its_own_reader_wants_it(tmp_path):
    (tmp_path / "prompts.json").write_text(json.dumps(["a red box", "a ball", "nothing"]))
    save_mesh(lopsided(scale=7), tmp_path / "meshes" / "0.glb")
    save_mesh(lopsided(), tmp_path / "meshes" / "a_ball.obj")
    missing = gpteval3d.export(tmp_path, "ours", tmp_path / "meshes", CpuMeshRasterizer(), seed=3, views=5, size=48)
    assert missing == ["prompt_002"]
    # what gpteval3d/utils/t23d_tournament.py asks for: integer folders, as many rgb_%d.png as normal_%d.png, from 0
    method = tmp_path / "methods" / "ours"
    assert sorted(int(d.name) for d in method.iterdir()) == [0, 1]
    for prompt in ("0", "1"):
        names = {p.name for p in (method / prompt / "3").iterdir()}
        assert names == {f"{kind}_{i}.png" for kind in ("rgb", "normal") for i in range(5)}
    rgb, normal = (read_png(method / "0" / "3" / f"{kind}_1.png") for kind in ("rgb", "normal"))
    assert rgb.shape == normal.shape == (48, 48, 3)
    torch.testing.assert_close(rgb[0, 0], torch.ones(3))
    torch.testing.assert_close(normal[0, 0], torch.zeros(3))
    first, last = (read_png(method / "0" / "3" / f"rgb_{i}.png") for i in (0, 4))  # 0 and 360 degrees
    torch.testing.assert_close(first, last, atol=0.02, rtol=0)
    assert [i.prompt for i in gpteval3d.read(tmp_path)] == ["a red box", "a ball", "nothing"]


def test_gpteval3d_normals_point_up_in_its_world():
    up = torch.zeros(1, 1, 1, 3)
    up[..., 1] = 1  # our up
    torch.testing.assert_close(
        gpteval3d.normal_colours(up, torch.ones(1, 1, 1, 1))[0, 0, 0], torch.tensor([0.5, 0.5, 1])
    )
    front = torch.zeros(1, 1, 1, 3)
    front[..., 2] = 1  # our front is its +x
    colours = gpteval3d.normal_colours(front, torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(colours[0, 0, 0], torch.tensor([1, 0.5, 0.5]))


def test_gpteval3d_command(tmp_path, capsys):
    assert gpteval3d.main([str(tmp_path), "--method", "m", "--meshes", str(tmp_path)]) == 2
    assert "prompts.json" in capsys.readouterr().err
    (tmp_path / "prompts.json").write_text('["a"]')
    assert gpteval3d.main([str(tmp_path), "--method", "m", "--meshes", str(tmp_path)]) == 2
    assert "no mesh for any of 1 prompts" in capsys.readouterr().err


# --- conventions and pictures ----------------------------------------------------------------------------------------


def test_elevations():
    assert elevation_from_above(30) == -30  # SyncDreamer's
    assert elevation_from_polar(60) == -30 and elevation_from_polar(90) == 0  # EscherNet's theta, Magic123's polar
    height = float(orbit(elevation_from_above(30), 0.0, 2.0).position[0, 1])
    assert height == pytest.approx(1.0)


def test_pictures_come_to_one_size_and_background(tmp_path):
    half = torch.zeros(4, 4, 4)
    half[:, :2] = torch.tensor([1.0, 0, 0, 1])  # red and opaque at the left; black and transparent at the right
    write_png(tmp_path / "a.png", half)
    write_png(tmp_path / "b.png", half[..., :3])
    cameras = orbit(0.0, [0.0, 0.0], height=2)
    rgb, alpha = read_views([tmp_path / "a.png"] * 2, cameras, 1.0)
    torch.testing.assert_close(rgb[0, 0], torch.tensor([[1.0, 0, 0], [1, 1, 1]]))
    torch.testing.assert_close(alpha[1, 0, :, 0], torch.tensor([1.0, 0]))
    rgb, alpha = read_views([tmp_path / "a.png", tmp_path / "b.png"], cameras, 1.0)
    assert alpha is None
    torch.testing.assert_close(rgb[1, 0], torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
    # what is transparent lends no colour when a picture shrinks
    torch.testing.assert_close(shrunk(half, (1, 1))[0, 0], torch.tensor([1.0, 0, 0, 0.5]))


def test_pictures_of_the_right_size_are_not_copied(tmp_path):
    trees.png(tmp_path / "a.png", size=8)
    assert picture_at_size(tmp_path / "a.png", tmp_path, "x", 8) == tmp_path / "a.png"
    small = picture_at_size(tmp_path / "a.png", tmp_path, "x", 4)
    assert read_png(small).shape == (4, 4, 4) and small == picture_at_size(tmp_path / "a.png", tmp_path, "x", 4)
