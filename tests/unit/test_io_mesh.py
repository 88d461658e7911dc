"""Mesh files: round trips, what other programs write, and what goes wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dg.core.camera import orbit
from dg.core.meshes import face_areas, signed_volume, unique_rows, vertex_normals, weld
from dg.core.rng import generator
from dg.io.mesh import load_mesh, save_mesh
from dg.io.mesh_ply import vertex_colours
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_mesh
from dg.types import Mesh

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def cube(texture: torch.Tensor | None = None) -> Mesh:
    """A cube whose six sides lie side by side in the texture: every edge is a seam."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    vertices, faces, uv = corners, [], []
    for axis in range(3):
        for sign in (0, 1):
            ring = [i for i in range(8) if (i >> (2 - axis)) & 1 == sign]
            a, b, c, d = ring[0], ring[1], ring[3], ring[2]
            faces += [[a, b, c], [a, c, d]] if sign == (axis == 1) else [[a, c, b], [a, d, c]]
            cell = (2 * axis + sign) / 6
            square = {a: (0.02, 0.02), b: (0.15, 0.02), c: (0.15, 0.9), d: (0.02, 0.9)}
            uv += [[(cell + square[i][0], square[i][1]) for i in f] for f in faces[-2:]]
    faces = torch.tensor(faces)
    points, index = torch.unique(torch.tensor(uv).reshape(-1, 2), dim=0, return_inverse=True)
    if texture is None:
        texture = (torch.rand(8, 12, 3, generator=generator(0, "cube")) * 255).round() / 255
    return Mesh(vertices, faces, points, index.reshape(-1, 3), texture)


def picture(mesh: Mesh, azimuth: float = 30.0) -> torch.Tensor:
    cameras = orbit(-25.0, azimuth, 2.5, height=64)
    return render_mesh(mesh, cameras, CpuMeshRasterizer(), torch.ones(3)).rgb


def chunks(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    magic, version, length, text, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON") and text % 4 == 0
    size, kind = struct.unpack("<I4s", data[20 + text : 28 + text])
    assert kind == b"BIN\0" and size % 4 == 0 and 28 + text + size == len(data)
    return json.loads(data[20 : 20 + text]), data[28 + text :]


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_what_was_saved_is_loaded(tmp_path, suffix):
    mesh = cube()
    save_mesh(mesh, tmp_path / f"a.{suffix}")
    got = load_mesh(tmp_path / f"a.{suffix}")
    assert torch.equal(got.vertices, mesh.vertices) and torch.equal(got.faces, mesh.faces)
    torch.testing.assert_close(got.uv[got.faces_uv], mesh.uv[mesh.faces_uv], atol=1e-7, rtol=0)
    assert torch.equal(got.texture, mesh.texture)  # the same bytes
    assert signed_volume(got.vertices, got.faces) == 1
    files = {"glb": ["a.glb"], "obj": ["a.mtl", "a.obj", "a_albedo.png"]}[suffix]
    assert sorted(p.name for p in tmp_path.iterdir()) == files


def test_glb_is_laid_out_as_the_specification_asks(tmp_path):
    mesh = cube()
    save_mesh(mesh, tmp_path / "a.glb")
    document, data = chunks(tmp_path / "a.glb")
    assert len(document["buffers"]) == 1 and document["buffers"][0]["byteLength"] == len(data)
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    (material,) = document["materials"]
    assert material["doubleSided"] and material["extensions"] == {"KHR_materials_unlit": {}}
    assert document["extensionsUsed"] == ["KHR_materials_unlit"] and "alphaMode" not in material
    attributes = document["meshes"][0]["primitives"][0]["attributes"]

    def read(number: int) -> np.ndarray:
        accessor = document["accessors"][number]
        view = document["bufferViews"][accessor["bufferView"]]
        kind = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
        values = np.frombuffer(data, kind, accessor["count"] * width, view["byteOffset"])
        assert values.nbytes == view["byteLength"]
        return values.reshape(-1, width)

    positions, normals = read(attributes["POSITION"]), read(attributes["NORMAL"])
    accessor = document["accessors"][attributes["POSITION"]]
    assert accessor["min"] == positions.min(0).tolist() and accessor["max"] == positions.max(0).tolist()
    assert len(positions) == 24  # three sides meet in each corner, each has its own uv
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    # copies of one corner share its normal: it was made before the split
    for corner in np.unique(positions, axis=0):
        assert len(np.unique(normals[(positions == corner).all(1)], axis=0)) == 1


def test_obj_text(tmp_path):
    save_mesh(cube(), tmp_path / "b.obj")
    text, material = (tmp_path / "b.obj").read_text().splitlines(), (tmp_path / "b.mtl").read_text()
    assert text[0] == "mtllib b.mtl" and "usemtl defaultMat" in text
    assert [sum(line.startswith(k + " ") for line in text) for k in ("v", "vn", "f")] == [8, 8, 12]
    assert "d 1\n" in material and "Tr" not in material and "map_Kd b_albedo.png\n" in material
    us, vs = zip(*(map(float, line.split()[1:]) for line in text if line.startswith("vt ")), strict=True)
    assert set(np.round(vs, 6)) == {0.98, 0.1} and max(us) <= 1  # v is flipped


def test_ply_carries_the_texture_as_vertex_colours(tmp_path):
    ramp = torch.linspace(0, 1, 256)[None, :, None].expand(4, 256, 3).clone()
    ramp[..., 1] = 0.25
    mesh = cube(ramp)
    save_mesh(mesh, tmp_path / "a.ply")
    read = trimesh.load(tmp_path / "a.ply", process=False)
    expected = (vertex_colours(mesh) * 255).round()
    np.testing.assert_array_equal(read.visual.vertex_colors[:, :3], expected)
    # each vertex: the mean over its corners of u, and green .25 everywhere
    mean = torch.zeros(8).index_add(0, mesh.faces.reshape(-1), mesh.uv[mesh.faces_uv].reshape(-1, 2)[:, 0])
    mean /= torch.bincount(mesh.faces.reshape(-1))
    torch.testing.assert_close(vertex_colours(mesh)[:, 0], mean, atol=5e-3, rtol=0)
    again = load_mesh(tmp_path / "a.ply")
    assert torch.equal(again.vertices, mesh.vertices) and torch.equal(again.faces, mesh.faces)


def test_colours_are_clamped_and_rounded(tmp_path):
    texture = torch.tensor([[-1.0, 2.0, 0.5], [0.4999 / 255, 0.5001 / 255, float("nan")]]).reshape(1, 2, 3)
    save_mesh(cube(texture), tmp_path / "a.obj")
    pixels = np.asarray(Image.open(tmp_path / "a_albedo.png"))
    assert pixels.tolist() == [[[0, 255, 128], [0, 1, 0]]]


def test_vertex_colours_become_a_texture_that_shows_them(tmp_path):
    """A sphere with a colour per vertex: each corner looks its own colour up, and the middle of a face the mean."""
    ball = trimesh.creation.icosphere(2, 0.5)
    colours = np.random.default_rng(0).integers(100, 156, (len(ball.vertices), 4), np.uint8)
    colours[:, 0] = (colours[:, 0] - 100) * 4  # so steep that its linear extension is clamped: exact in corners only
    ball.visual.vertex_colors = colours
    for name in ("a.ply", "a.glb", "a.obj"):
        ball.export(tmp_path / name)
        mesh = load_mesh(tmp_path / name)
        expected = torch.tensor(colours[:, :3] / 255.0, dtype=torch.float32)
        nearest = torch.cdist(mesh.vertices, torch.tensor(ball.vertices, dtype=torch.float32)).argmin(1)
        corner = expected[nearest][mesh.faces]
        for weights in torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]):
            points = torch.einsum("k,fkc->fc", weights, mesh.uv[mesh.faces_uv])
            own = torch.arange(len(points)).expand(3, -1).T  # a mesh whose vertices are the points to look up
            flat = Mesh(points, own, points, own, mesh.texture)
            got, wanted = vertex_colours(flat), torch.einsum("k,fkc->fc", weights, corner)
            torch.testing.assert_close(got[:, 1:], wanted[:, 1:], atol=2e-3, rtol=0)
            torch.testing.assert_close(got[:, 0], wanted[:, 0], atol=2e-3 if weights.max() == 1 else 0.25, rtol=0)


def test_linear_vertex_colours_of_other_writers(tmp_path):
    """glTF says linear; only trimesh's files are read as they stand."""
    ball = trimesh.creation.icosphere(1, 0.5)
    ball.visual.vertex_colors = np.tile(np.array([[55, 0, 255, 255]], np.uint8), (len(ball.vertices), 1))
    ball.export(tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    (tmp_path / "b.glb").write_bytes(
        data.replace(b"https://github.com/mikedh/trimesh", b"https://github.com/someone/else00")
    )
    torch.testing.assert_close(load_mesh(tmp_path / "a.glb").texture[0, 0], torch.tensor([55 / 255, 0, 1.0]))
    linear = ((0.055 + load_mesh(tmp_path / "b.glb").texture[0, 0, 0]) / 1.055) ** 2.4
    torch.testing.assert_close(linear, torch.tensor(55 / 255))


def box(offset, colour=None, image=None, factor=None, uv_scale=1.0):
    mesh = trimesh.creation.box((0.4, 0.4, 0.4))
    mesh.apply_translation(offset)
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=colour if image is None else factor, baseColorTexture=image
    )
    uv = (mesh.vertices[:, :2] - mesh.vertices[:, :2].min(0)) / 0.4 * uv_scale
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return mesh


def test_scene_of_several_materials(tmp_path):
    """A red box (plain), a checkered one (picture) and a mirrored copy of it under a node: one mesh, one texture."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :8], pixels[8:, 8:], pixels[:8, 8:] = (0, 255, 0), (0, 0, 255), (255, 255, 255)
    scene = trimesh.Scene()
    scene.add_geometry(box((-0.5, 0, 0), colour=[255, 0, 0, 255]))
    checkered = box((0, 0, 0), image=Image.fromarray(pixels))
    scene.add_geometry(checkered, geom_name="checkered")
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 0.5
    scene.graph.update(frame_to="mirrored", geometry="checkered", matrix=mirror)
    scene.export(tmp_path / "scene.glb")
    mesh = load_mesh(tmp_path / "scene.glb")
    assert len(mesh.faces) == 36 and len(mesh.vertices) == 24
    torch.testing.assert_close(signed_volume(mesh.vertices, mesh.faces), torch.tensor(3 * 0.4**3))
    assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1

    shot = render_mesh(mesh, orbit(0.0, 0.0, 2.5, height=128), CpuMeshRasterizer(), torch.ones(3)).rgb[0]
    scale = 128 / 2 / 0.456781 / 2.3  # pixels per unit on the front side

    def at(x: float, y: float) -> torch.Tensor:
        return shot[round(64 - y * scale), round(64 + x * scale)]

    close = lambda x, rgb: torch.testing.assert_close(x, torch.tensor(rgb), atol=0.02, rtol=0)  # noqa: E731
    close(at(-0.5, 0), [1.0, 0, 0])
    # trimesh's v counts from the bottom: upper left of the picture is upper left of the box
    close(at(-0.1, 0.1), [0.0, 1, 0])
    close(at(0.1, -0.1), [0.0, 0, 1])
    close(at(0.1, 0.1), [1.0, 1, 1])
    close(at(0.6, 0.1), [0.0, 1, 0])  # mirrored: its green is on the right
    close(at(0.4, 0.1), [1.0, 1, 1])


def test_factor_multiplies_in_linear_light(tmp_path):
    grey = Image.fromarray(np.full((4, 4, 3), 188, np.uint8))  # 0.503 linear
    box((0, 0, 0), image=grey, factor=[128, 255, 0, 255]).export(tmp_path / "a.glb")
    texture = load_mesh(tmp_path / "a.glb").texture
    linear = ((188 / 255 + 0.055) / 1.055) ** 2.4
    expected = [1.055 * (linear * 128 / 255) ** (1 / 2.4) - 0.055, 188 / 255, 0.0]
    torch.testing.assert_close(texture[0, 0], torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [3.0, 2.5, 0.7])
def test_tiled_textures_are_repeated(tmp_path, scale):
    """uv beyond [0, 1] look the same after loading as the repeating original."""
    pixels = (np.random.default_rng(1).random((8, 8, 3)) * 255).astype(np.uint8)
    original = box((0, 0, 0), image=Image.fromarray(pixels), uv_scale=scale)
    original.visual.uv += [-1.3, 5.6]
    original.export(tmp_path / "a.glb")
    mesh = load_mesh(tmp_path / "a.glb")
    assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1
    # look up texel centres of the repeated picture at the faces' middles
    wanted = torch.tensor(original.visual.uv[original.faces].mean(1))
    wanted[:, 1] = 1 - wanted[:, 1]
    h, w = 8, 8
    repeated = torch.tensor(np.tile(pixels, (3, 3, 1)) / 255.0)
    point = wanted % 1 + 1  # in the middle of three copies
    expected = torch.nn.functional.grid_sample(
        repeated.permute(2, 0, 1)[None], (point / 3 * 2 - 1)[None, None], align_corners=False
    )[0, :, 0].T
    grid = (mesh.uv[mesh.faces_uv].mean(1).double() * 2 - 1)[None, None]
    got = torch.nn.functional.grid_sample(
        mesh.texture.double().permute(2, 0, 1)[None], grid, align_corners=False, padding_mode="border"
    )[0, :, 0].T
    order = [trimesh_order(original, mesh)[i] for i in range(len(mesh.faces))]
    near_border = ((point % 1 - 0.5).abs() > 0.5 - 0.5 / min(h, w)).any(1)  # there clamping at the border may differ
    torch.testing.assert_close(got[~near_border], expected[order][~near_border], atol=2e-3, rtol=0)


def trimesh_order(original, mesh: Mesh) -> list[int]:
    centres = torch.tensor(original.triangles_center, dtype=torch.float32)
    return torch.cdist(mesh.vertices[mesh.faces].mean(1), centres).argmin(1).tolist()


def test_wavefront_files_of_others(tmp_path):
    """Quads, a material without a picture, a missing picture, no material at all."""
    quad = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl lost\nKd 0 1 0\nmap_Kd nowhere.png\n")
    (tmp_path / "a.obj").write_text("mtllib m.mtl\n" + quad + "usemtl red\nf 1/1 2/2 3/3 4/4\n")
    (tmp_path / "b.obj").write_text("mtllib m.mtl\n" + quad + "usemtl lost\nf 1/1 2/2 3/3\n")
    (tmp_path / "c.obj").write_text(quad + "f 1/1 2/2 3/3\n")
    (tmp_path / "d.obj").write_text("mtllib gone.mtl\n" + quad + "usemtl red\nf 1 2 3\n")
    a, b, c, d = (load_mesh(tmp_path / f"{n}.obj") for n in "abcd")
    assert len(a.faces) == 2 and (a.texture == torch.tensor([1.0, 0, 0])).all()
    assert (b.texture == torch.tensor([0.0, 1, 0])).all()
    assert c.texture is None and c.uv is not None
    assert d.texture is None and d.uv is None


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_a_mesh_without_colours(tmp_path, suffix):
    mesh = Mesh(cube().vertices, cube().faces)
    save_mesh(mesh, tmp_path / f"a.{suffix}")
    got = load_mesh(tmp_path / f"a.{suffix}")
    assert torch.equal(got.vertices, mesh.vertices) and torch.equal(got.faces, mesh.faces)
    assert got.texture is None or (got.texture - 0.5).abs().max() < 3 / 255


def test_files_that_cannot_be_used(tmp_path):
    save_mesh(cube(), tmp_path / "whole.glb")
    whole = (tmp_path / "whole.glb").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"missing\.glb"):
        load_mesh(tmp_path / "missing.glb")
    cases = {
        "empty.glb": (b"", "empty"),
        "head.glb": (whole[:10], "cut off"),
        "json.glb": (whole[:100], "cut off"),
        "tail.glb": (whole[:-100], "cut off"),
        "noise.ply": (b"this is no mesh", "cut off"),
        "points.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        "text.obj": (b"nothing here", "no faces"),
        "flat.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 1 2\n", "no face"),
        "a.xyz123": (b"x", "not a known mesh format"),
        "cloud.ply": (
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
            b"property float opacity\nend_header\n0 0 0 1\n",
            "gaussians=",
        ),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message) as error:
            load_mesh(tmp_path / name)
        assert name in str(error.value)


def test_meshes_that_cannot_be_saved(tmp_path):
    mesh = cube()
    bad = {
        "no faces": Mesh(mesh.vertices, mesh.faces[:0]),
        "uv coordinates": Mesh(mesh.vertices, mesh.faces, texture=mesh.texture),
        "not finite": Mesh(mesh.vertices * float("nan"), mesh.faces),
        "outside": Mesh(mesh.vertices[:4], mesh.faces),
    }
    for message, broken in bad.items():
        with pytest.raises(ValueError, match=message):
            save_mesh(broken, tmp_path / "a.glb")
    with pytest.raises(ValueError, match=r"\.stl"):
        save_mesh(mesh, tmp_path / "a.stl")
    assert list(tmp_path.iterdir()) == []


def test_normals_volume_and_areas():
    mesh = cube()
    normals = vertex_normals(mesh.vertices, mesh.faces)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(8))
    assert ((normals * mesh.vertices).sum(-1) > 0).all()
    torch.testing.assert_close(face_areas(mesh.vertices, mesh.faces), torch.full((12,), 0.5))
    torch.testing.assert_close(signed_volume(mesh.vertices, mesh.faces.flip(1)), torch.tensor(-1.0))
    lone = vertex_normals(torch.zeros(4, 3), torch.tensor([[0, 1, 2]]))
    assert torch.equal(lone, torch.tensor([0.0, 0, 1]).expand(4, 3))
    ball = trimesh.creation.icosphere(3, 1.0)
    ball_normals = vertex_normals(torch.tensor(ball.vertices), torch.tensor(np.array(ball.faces)))
    torch.testing.assert_close(ball_normals, torch.tensor(ball.vertices), atol=2e-2, rtol=0)


def test_normals_weigh_by_area_and_have_gradients():
    """Two faces at a right angle, areas 3 and 1: the shared vertices lean three to one."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 6, 0], [0, 0, 2.0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 3, 1]])
    expected = torch.tensor([0.0, 1, 3], dtype=torch.float64)
    torch.testing.assert_close(vertex_normals(vertices, faces)[0], expected / expected.norm())
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), vertices.requires_grad_())


def test_weld_keeps_order_and_seams():
    vertices = torch.tensor(
        [[9.0, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, 0, 0], [0, 1, 0], [-1, 0, 0], [7, 7, 7]]
    )
    faces = torch.tensor([[1, 2, 3], [4, 5, 6], [1, 4, 2]])
    uv = torch.rand(8, 2, generator=generator(0, "uv"))
    got = weld(Mesh(vertices, faces, uv))
    assert got.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0]]
    assert got.faces.tolist() == [[0, 1, 2], [0, 2, 3]]  # the third had lost its area
    assert got.faces_uv.tolist() == [[1, 2, 3], [4, 5, 6]] and torch.equal(got.uv, uv)


@pytest.mark.parametrize("name", ["spot", "teapot", "CesiumMilkTruck"])
def test_real_objects_look_like_their_pictures(tmp_path, name):
    if not (SHARED / "objects" / f"{name}.glb").is_file():
        pytest.skip("needs ../shared/data")
    mesh = load_mesh(SHARED / "objects" / f"{name}.glb")
    got = render_mesh(mesh, orbit(0.0, 0.0, 2.0, height=256), CpuMeshRasterizer(), torch.ones(3), ssaa=2)
    view = Image.open(SHARED / "images" / f"{name}_view.png").convert("RGBA")
    rgba = torch.tensor(np.asarray(view), dtype=torch.float32).reshape(256, 2, 256, 2, 4).mean((1, 3)) / 255
    expected = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    assert -10 * (got.rgb[0] - expected).square().mean().log10() > 38  # dB
    save_mesh(mesh, tmp_path / "again.glb")
    again = load_mesh(tmp_path / "again.glb")
    assert torch.equal(again.faces, mesh.faces)
    torch.testing.assert_close(picture(again), picture(mesh), atol=2e-3, rtol=0)


def test_quantised_positions_are_refused(tmp_path):
    path = tmp_path / "ball.gltf"
    trimesh.creation.icosphere(1).export(path)
    content = json.loads(path.read_text())
    content["extensionsUsed"] = content["extensionsRequired"] = ["KHR_mesh_quantization"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="quantised positions"):
        load_mesh(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_unique_rows_are_those_that_torch_finds(columns, dtype):
    values = torch.tensor([-1e30, -2.5, -1e-40, -0.0, 0.0, 1e-40, 0.3, 1.0, 7e9], dtype=dtype)
    rows = values[torch.randint(len(values), (200, columns), generator=generator(columns, "rows"))]
    expected, which = torch.unique(rows + 0.0, dim=0, return_inverse=True)
    found, index = unique_rows(rows)
    assert torch.equal(found, expected)
    assert torch.equal(index, which)
    assert len(expected) < len(rows)
    assert [len(x) for x in unique_rows(rows[:0])] == [0, 0]
