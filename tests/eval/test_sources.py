"""Objects of our own, folders of meshes, and pictures by folder, pattern and list."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dg.data import objects
from dg.eval.layouts import folder, images, synthetic
from dg.eval.layouts.converted import mesh_in_our_frame
from dg.io.images import read_png, write_png
from dg.io.mesh import load_mesh, save_mesh
from tests.eval.solids import lopsided
from tests.shapes import ball

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


# --- ours ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    made: list[str] = []

    def make(name: str):
        made.append(name)
        return ball(torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0)))

    monkeypatch.setattr(objects, "make", make)
    monkeypatch.setattr(synthetic, "PICTURE_PX", 32)
    return made


def test_objects_of_ours_are_made_once(quick, tmp_path):
    first = synthetic.read(tmp_path, ["robot", "mug"])
    assert [item.name for item in first] == ["robot", "mug"] and quick == ["robot", "mug"]
    for item in first:
        assert read_png(item.image).shape == (32, 32, 4) and not item.recenter and item.image_made
        assert item.elevation_deg == 0 and len(load_mesh(item.truth).faces)
    assert synthetic.read(tmp_path, ["robot", "mug"]) == first and quick == ["robot", "mug"]
    first[1].truth.write_bytes(first[1].truth.read_bytes()[:-5])  # a broken file is noticed and made anew
    synthetic.read(tmp_path, ["robot", "mug"])
    assert quick == ["robot", "mug", "mug"]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_objects_made_by_other_code_are_not_taken(quick, tmp_path, monkeypatch):
    synthetic.read(tmp_path, ["robot"])
    monkeypatch.setattr(synthetic, "code_version", lambda: "other")
    synthetic.read(tmp_path, ["robot"])
    assert quick == ["robot", "robot"]


def test_unknown_object_of_ours(tmp_path):
    with pytest.raises(ValueError, match="no object robt; did you mean robot"):
        synthetic.read(tmp_path, ["robt"])


# --- folders of meshes -----------------------------------------------------------------------------------------------


def test_folder_without_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "PICTURE_PX", 64)
    root = tmp_path / "in"
    save_mesh(lopsided(scale=3.0, shift=(5.0, 0.0, 0.0)), root / "thing.obj")
    save_mesh(lopsided(), root / "other" / "mesh.glb")
    items = {item.name: item for item in folder.read(root, tmp_path / "cache")}
    assert set(items) == {"thing", "other"}
    mesh = load_mesh(items["thing"].truth)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    torch.testing.assert_close(low + high, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close((high - low).max(), torch.tensor(1.0))
    alpha = read_png(items["thing"].image)[..., 3]
    assert 0.02 < float(alpha.mean()) < 0.6 and not items["thing"].recenter
    stamp = items["thing"].image.stat().st_mtime_ns
    again = {item.name: item for item in folder.read(root, tmp_path / "cache")}
    assert again == items and again["thing"].image.stat().st_mtime_ns == stamp
    save_mesh(lopsided(scale=2.0), root / "thing.obj")  # another mesh of that name gets another picture
    assert {item.name: item for item in folder.read(root, tmp_path / "cache")}["thing"].image != items["thing"].image


def test_folder_with_pictures_leaves_meshes_alone(tmp_path):
    save_mesh(lopsided(), tmp_path / "objects" / "a.glb")
    save_mesh(lopsided(), tmp_path / "objects" / "a.obj")  # of two files of one name the GLB is taken
    write_png(tmp_path / "images" / "a_view.png", torch.ones(8, 8, 4))
    (item,) = folder.read(tmp_path, tmp_path / "cache", elevation=-10)
    assert item.truth == tmp_path / "objects" / "a.glb" and item.image == tmp_path / "images" / "a_view.png"
    assert item.elevation_deg == -10 and not item.image_made and not (tmp_path / "cache").exists()


def test_folder_without_meshes(tmp_path):
    with pytest.raises(FileNotFoundError, match="no mesh there"):
        folder.read(tmp_path, tmp_path / "cache")


@pytest.mark.skipif(not DATA.is_dir(), reason="no reference data in ../shared")
def test_reference_data_is_such_a_folder(tmp_path):
    items = folder.read(DATA, tmp_path)
    assert [i.name for i in items] == ["CesiumMan", "CesiumMilkTruck", "Duck", "fuze", "spot", "teapot"]
    assert all(i.image.name == f"{i.name}_view.png" for i in items)


def test_converted_meshes_are_kept(tmp_path):
    save_mesh(lopsided(), tmp_path / "a.obj")
    first = mesh_in_our_frame(tmp_path / "a.obj", tmp_path, "a", unit=True)
    assert first == mesh_in_our_frame(tmp_path / "a.obj", tmp_path, "a", unit=True)
    assert first != mesh_in_our_frame(tmp_path / "a.obj", tmp_path, "a", unit=True, yaw_deg=90)


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shots(tmp_path) -> Path:
    for name in ("cat_rgba.png", "dog.png", "cat.png", "notes.txt", "sub/fish.png"):
        write_png(tmp_path / "shots" / name, torch.ones(4, 4, 4)) if name.endswith("png") else (
            tmp_path / "shots" / name
        ).write_text("")
    return tmp_path / "shots"


def test_pictures_of_a_folder(shots):
    items = images.read(shots, elevation=-5, recenter=False)
    assert [(i.name, i.image.name) for i in items] == [
        ("cat", "cat.png"),
        ("cat_rgba", "cat_rgba.png"),
        ("dog", "dog.png"),
    ]
    assert all(i.elevation_deg == -5 and not i.recenter and i.truth is None for i in items)


def test_pictures_by_pattern_and_one_alone(shots):
    assert [i.name for i in images.read(f"{shots}/**/[df]*.png")] == ["dog", "fish"]
    assert [i.name for i in images.read(shots / "dog.png")] == ["dog"]


@pytest.mark.parametrize(
    ("given", "message"),
    [("nowhere", "no such folder"), ("shots/*.gif", "no such folder"), ("shots/notes.txt", "neither a picture")],
)
def test_no_pictures(shots, given, message):
    with pytest.raises(FileNotFoundError, match=message):
        images.read(shots.parent / given)
    (shots.parent / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture in it"):
        images.read(shots.parent / "empty")


def test_list_as_csv(shots):
    text = "image,elevation,prompt,truth,name,recenter\n"
    text += 'cat.png,-30,"a cat, sitting",,tom,false\ndog.png,,,sub/fish.png,,\n,,a red cube,,,\n'
    (shots / "set.csv").write_text("\ufeff" + text, encoding="utf-8")
    tom, dog, cube = images.read(shots / "set.csv", elevation=7)
    assert (tom.name, tom.elevation_deg, tom.prompt, tom.recenter) == ("tom", -30, "a cat, sitting", False)
    assert (dog.name, dog.elevation_deg, dog.prompt, dog.recenter) == ("dog", 7, None, True)
    assert dog.truth == shots / "sub" / "fish.png" and dog.image == shots / "dog.png"
    assert (cube.name, cube.image, cube.prompt) == ("a_red_cube", None, "a red cube")


def test_list_as_jsonl(shots):
    lines = [{"image": "cat.png", "elevation": -30.5, "recenter": False}, {"prompt": "a cube", "truth_yaw": 90}]
    (shots / "set.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    cat, cube = images.read(shots / "set.jsonl")
    assert (cat.name, cat.elevation_deg, cat.recenter) == ("cat", -30.5, False)
    assert (cube.name, cube.truth_yaw_deg) == ("a_cube", 90)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,elevatoin\ncat.png,3\n", "line 1: there is no column 'elevatoin'; did you mean elevation"),
        ("a.csv", "image\ncat.png\nlost.png\n", "line 3: image='lost.png': there is no such file"),
        ("a.csv", "image,elevation\ncat.png,high\n", "line 2: elevation=high must be a number"),
        ("a.csv", "image,elevation\ncat.png,nan\n", "line 2: elevation=nan must be a number"),
        ("a.csv", "image,elevation\ncat.png,120\n", "line 2: elevation=120 is outside"),
        ("a.csv", "image,prompt\ncat.png,one,two\n", "line 2: more cells"),
        ("a.csv", "image,prompt\ncat.png\n", "line 2: fewer cells"),
        ("a.csv", "image\ncat.png\ncat.png\n", "line 3: the name cat is taken by line 2"),
        ("a.csv", "image,name\ncat.png,../x\n", "line 2: name=../x must not hold a path"),
        ("a.csv", "image,recenter\ncat.png,maybe\n", "line 2: recenter=maybe must be true or false"),
        ("a.csv", "name\nx\n", "line 2: needs an image or a prompt"),
        ("a.csv", "image\n", "holds no rows"),
        ("a.csv", "", "holds no rows"),
        ("a.jsonl", '{"image": "cat.png"}\n{"image":\n', "line 2: is no JSON"),
        ("a.jsonl", "[1]\n", "line 1: must be an object"),
        ("a.jsonl", '{"image": 3}\n', "line 1: image=3 must be text"),
        ("a.jsonl", '{"image": "cat.png", "elevation": true}\n', "line 1: elevation=True must be a number"),
    ],
)
def test_mistakes_in_a_list_name_file_and_line(shots, name, text, message):
    (shots / name).write_text(text)
    with pytest.raises(ValueError) as error:
        images.read(shots / name)
    assert message in str(error.value) and name in str(error.value)


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20).map(str.strip)
ROWS = st.lists(
    st.tuples(WORDS.filter(bool), st.floats(-90, 90, width=32), st.booleans()),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(ROWS, st.sampled_from(["csv", "jsonl"]))
def test_what_is_written_is_read(rows, kind):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"set.{kind}"
        if kind == "csv":
            buffer = io.StringIO(newline="")
            writer = csv.writer(buffer)
            writer.writerow(["name", "prompt", "elevation", "recenter"])
            writer.writerows([f"n{i}", p, repr(e), str(r)] for i, (p, e, r) in enumerate(rows))
            path.write_bytes(buffer.getvalue().encode())
        else:
            dicts = [{"name": f"n{i}", "prompt": p, "elevation": e, "recenter": r} for i, (p, e, r) in enumerate(rows)]
            path.write_text("\n".join(json.dumps(d, ensure_ascii=i % 2 == 0) for i, d in enumerate(dicts)), "utf-8")
        items = images.read(path)
    assert [(i.prompt, i.elevation_deg, i.recenter) for i in items] == rows
    assert [i.name for i in items] == [f"n{i}" for i in range(len(rows))]


@settings(max_examples=120)
@given(st.one_of(st.binary(max_size=80), st.text("image,prompt\n\"'{}[]:-0é \t\r\0", max_size=80).map(str.encode)))
def test_any_bytes_are_items_or_one_clear_line(content):
    with tempfile.TemporaryDirectory() as place:
        for name in ("set.csv", "set.jsonl"):
            path = Path(place) / name
            path.write_bytes(content)
            try:
                for item in images.read(path):
                    assert item.prompt and math.isfinite(item.elevation_deg) and "/" not in item.name
            except ValueError as error:
                assert name in str(error) and "\n" not in str(error)
