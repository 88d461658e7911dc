"""The files of a board: complete, escaped, self-contained, and the same numbers in each."""

import base64
import csv
import gzip
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from dg.eval.board import readme_table, replace_between, summary_rows, write_board
from dg.eval.board.__main__ import main
from dg.eval.board.markdown import BEGIN, END
from dg.eval.board.page import ASSETS
from dg.eval.board.pictures import Plan, strip
from dg.eval.board.published import published
from dg.eval.board.table import boards
from dg.eval.board.webmesh import WebMesh, to_glb, web_mesh
from dg.eval.human import Judgement
from dg.eval.records import append
from dg.io.mesh import save_mesh
from dg.io.mesh_write import split_seams
from dg.types import Mesh
from tests.eval.board_records import BASELINE, HEADLINE, ITEMS, NASTY, NEW, OLD, records, write
from tests.shapes import ball


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("board")
    write(found, records(hash_=OLD, items=ITEMS[:2]) + records())
    said = "".join(f"mug,silhouette,back looks right,{score},r{score}\n" for score in (2, 3, 4))
    (found / "human.csv").write_text("object,method,question,score,rater\n" + said)
    made = write_board(found, headline=HEADLINE, baseline=BASELINE, title="A <b>", human=found / "human.csv")
    assert [p.name for p in made] == ["leaderboard.md", "leaderboard.csv", "objects.csv", "leaderboard.html"]
    assert all(p.is_file() for p in made) and not list(found.glob(".tmp-*"))
    return found


class Page(HTMLParser):
    """Every start tag with its attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.words = [], [], []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"

    def handle_data(self, data):
        (self.scripts if self._script else self.words).append(data)
        self._script = False


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "leaderboard.html").read_text())


def test_csv_holds_the_numbers_of_the_boards(folder):
    lines = list(csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_text())))
    columns, rows = summary_rows(
        boards(records(hash_=OLD, items=ITEMS[:2]) + records(), headline=HEADLINE, baseline=BASELINE)
    )
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        for name, value in zip(columns, row, strict=True):
            assert line[name] == ("" if value is None else str(value))
    cases = list(csv.DictReader(io.StringIO((folder / "objects.csv").read_text())))
    assert len(cases) == len(records()) + len(records(hash_=OLD, items=ITEMS[:2]))
    failed = [case for case in cases if case["failure"]]
    assert [(c["method"], c["item"], c["seed"]) for c in failed] == [(NASTY, "mug", "0")]
    assert json.loads(cases[0]["blanks"]) == {"lpips_vgg": "weights of VGG are not on this machine"}


def test_markdown_tables_are_whole_and_escaped(folder):
    text = (folder / "leaderboard.md").read_text()
    assert "<script" not in re.sub("`[^`\n]*`", "", text)  # in a code span it is text
    assert "A &lt;b&gt;" in text
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(blocks) > 8
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    assert text.index(NEW) < text.index("# Older versions") < text.index(OLD) < text.index("# As published")
    assert "the mesh is empty: &lt;b&gt;no&lt;/b&gt; face left" in text
    assert "weights of VGG" not in text.split("<details>")[0]  # a headline footnote only where a headline is blank
    assert "splats have no surface" in text and "3.00 (3 by 3 people)" in text


def test_page_asks_nobody_for_anything(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "action", "data"):
            value = attributes.get(name) or ""
            if value.startswith("data:"):
                continue
            assert ":" not in value and not value.startswith("//"), (tag, value[:80])
            assert tag == "a" or not value, (tag, value[:80])
        assert "url(" not in (attributes.get("style") or "")
    style = (ASSETS / "board.css").read_text()
    assert "url(" not in style and "@import" not in style
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "http" not in policy and "unsafe-inline' " not in policy


def test_what_records_hold_is_text(page):
    text = "".join(page.words)
    assert NASTY in text and "the mesh is empty: <b>no</b> face left" in text
    assert not any("alert" in script and len(script) < 100 for script in page.scripts)
    assert [tag for tag, _ in page.tags].count("script") == 3  # a mesh, the viewer, ours
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_page_holds_each_mesh_once_and_the_viewer(page, folder):
    packed = [s for s in page.scripts if s.startswith("H4sI")]
    assert len(packed) == 1  # all records share one file
    assert gzip.decompress(base64.b64decode(packed[0]))[:4] == b"glTF"
    assert sum("model-viewer" in s and len(s) > 500_000 for s in page.scripts) == 1
    assert (folder / "leaderboard.html").stat().st_size < 3e6


def test_page_shows_every_object_with_input_truth_and_methods(page):
    cards = [a["data-item"] for tag, a in page.tags if tag == "article"]
    assert cards == list(ITEMS)
    tiles = [a["data-method"] for tag, a in page.tags if tag == "figure"]
    assert tiles.count("input") == tiles.count("truth") == tiles.count("views_only") == len(ITEMS)
    assert tiles.count("zero123_mini") == 3 * len(ITEMS)


def test_published_tables_are_there_apart(folder, page):
    text = "".join(page.words)
    assert "arXiv:2309.16653v1" in text and "nothing here is ranked" in text
    table = next(t for t in published() if t.id == "dreamgaussian_table_1")
    assert ("DreamGaussian", "0.738", "2 min") in table.rows and (
        "DreamGaussian, stage 1 only",
        "0.678",
        "1 min",
    ) in table.rows
    assert "0.738" not in (folder / "leaderboard.csv").read_text()


def test_a_broken_published_table_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("- {id: t, title: x, source: y, columns: [a, b], rows: [[1]]}")
    with pytest.raises(ValueError, match="a row of t has 1 cells"):
        published(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- {id: t, title: x, columns: [a], rows: []}")
    with pytest.raises(ValueError, match="t lacks 'source'"):
        published(tmp_path / "b.yaml")


def test_missing_files_and_broken_meshes_leave_a_page(tmp_path):
    write(tmp_path, records(items=ITEMS[:1]), views=2)
    (tmp_path / "ball.glb").write_bytes(b"no mesh")
    for picture in (tmp_path / "pictures").iterdir():
        picture.unlink()
    write_board(tmp_path, headline=HEADLINE, baseline="nobody", formats=("html",))
    text = (tmp_path / "leaderboard.html").read_text()
    assert "no picture" in text and "the mesh cannot be shown" in text and str(tmp_path) not in text


def test_files_outside_of_the_folder_are_shown_but_not_linked(tmp_path):
    board = tmp_path / "board"
    write(board, records(items=ITEMS[:1])[:1], views=1)
    outside = (board / "ball.glb").rename(tmp_path / "ball.glb")
    for name in (str(outside), "../ball.glb"):
        append(board / "records.jsonl", replace(records()[0], mesh=name))
        write_board(board, headline=HEADLINE, formats=("html",))
        text = (board / "leaderboard.html").read_text()
        assert 'data-mesh="mesh-0"' in text and 'class="file"' not in text and str(tmp_path) not in text


def test_a_link_is_a_path_whatever_a_record_says(tmp_path):
    name = 'javascript:alert(1)"><img src=x>.glb'
    write(tmp_path, records(items=ITEMS[:1])[:1], views=1)
    append(tmp_path / "records.jsonl", replace(records()[0], mesh=name))
    write_board(tmp_path, headline=HEADLINE, formats=("html",))
    links = [a["href"] for tag, a in Page((tmp_path / "leaderboard.html").read_text()).tags if tag == "a"]
    assert links == ["javascript%3Aalert%281%29%22%3E%3Cimg%20src%3Dx%3E.glb"]


def test_pictures_that_changed_are_read_again(tmp_path):
    found = write(tmp_path, records(items=ITEMS[:1])[:1], views=2)[0]
    before = strip(tmp_path, found.pictures, Plan())
    assert strip(tmp_path, found.pictures, Plan()) == before
    path = tmp_path / found.pictures[0]
    Image.new("RGB", (128, 128), "black").save(path)
    os.utime(path, (1, 1))
    assert strip(tmp_path, found.pictures, Plan()) != before


def test_no_records_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no records"):
        write_board(tmp_path, headline=HEADLINE)
    append(tmp_path / "records.jsonl", records()[0])
    with pytest.raises(ValueError, match="there is no pdf"):
        write_board(tmp_path, headline=HEADLINE, formats=("pdf",))


def test_people_rank_nothing_and_unknown_names_warn(tmp_path, folder):
    write(tmp_path, records(items=ITEMS[:2]), views=1)
    said = [Judgement("robot", "silhouette", "liked", score) for score in (5.0, 4.0)]
    said.append(Judgement("sofa", "silhouet", "liked", 1.0))
    with pytest.warns(UserWarning, match="human: no .* on the board") as found:
        write_board(tmp_path, headline=HEADLINE, human=said, formats=("md",))
    assert len(found) == 2  # the method and the object
    text = (tmp_path / "leaderboard.md").read_text()
    assert "human: liked" in text and "| 4.50 (2) |" in text
    assert text.index("| 1 | zero123") < text.index("| 3 | silhouette")


def test_readme_table_is_replaced_between_its_markers(folder):
    readme = folder / "README.md"
    readme.write_text(f"# Before\n\n{BEGIN}\nstale\n{END}\n\nafter\n")
    assert main([str(folder), "--readme", str(readme), "--figures", "psnr_db"]) == 0
    text = readme.read_text()
    assert text.startswith("# Before\n\n" + BEGIN) and text.endswith(END + "\n\nafter\n") and "stale" not in text
    assert "| 1 | zero123\\_mini | mesh | 23." in text and NEW in text and OLD not in text
    before = text
    assert main([str(folder), "--readme", str(readme), "--figures", "psnr_db"]) == 0
    assert readme.read_text() == before


def test_readme_needs_markers_and_a_board(folder, tmp_path, capsys):
    (tmp_path / "README.md").write_text("nothing")
    assert main([str(folder), "--readme", str(tmp_path / "README.md")]) == 2
    assert f"must hold {BEGIN}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no records of protocol nerf4; there are synthetic_gt"):
        readme_table(records(), headline=HEADLINE, protocol="nerf4")
    with pytest.raises(ValueError):
        replace_between(f"{END} {BEGIN}", "x")


def test_command_writes_the_board_as_it_was(folder):
    before = {name: (folder / name).read_bytes() for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.html")}
    for name in before:
        (folder / name).unlink()
    assert main([str(folder)]) == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_command_without_a_board_says_what_it_needs(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "--headline" in capsys.readouterr().err


def test_strip_shrinks_with_the_budget(tmp_path):
    found = write(tmp_path, records(items=ITEMS[:1])[:1], views=6)[0]
    assert strip(tmp_path, found.pictures, Plan()).views == 6
    assert strip(tmp_path, found.pictures, Plan(views=3)).views == 3
    assert strip(tmp_path, ("none.png",), Plan()) is None and strip(tmp_path, (), Plan()) is None
    assert Plan.within(8, 100).views == 16 and Plan.within(8, 10_000) == Plan(1, 96)


def colourful(rings=16):
    ramp = torch.linspace(0, 1, 32)
    texture = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), 1 - ramp.expand(32, 32)], -1)
    return ball(texture, rings=rings, centre=(0.3, -0.2, 5.0))


def attribute(glb, name):
    """An attribute of the only primitive as the glTF specification reads normalised integers, the node applied to
    positions; "indices" for those."""
    length = int.from_bytes(glb[12:16], "little")
    document, chunk = json.loads(glb[20 : 20 + length]), glb[28 + length :]
    primitive = document["meshes"][0]["primitives"][0]
    entry = document["accessors"][primitive["indices"] if name == "indices" else primitive["attributes"][name]]
    view = document["bufferViews"][entry["bufferView"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[entry["type"]]
    kind = np.dtype({5123: "<u2", 5125: "<u4", 5120: "i1"}[entry["componentType"]])
    step, start = view.get("byteStride", width * kind.itemsize), view["byteOffset"]
    assert start % 4 == 0 and (name == "indices" or step % 4 == 0)
    rows = [np.frombuffer(chunk, kind, width, start + i * step) for i in range(entry["count"])]
    values = np.stack(rows)
    if not entry.get("normalized"):
        return values
    values = values / np.iinfo(kind).max
    node = document["nodes"][0]
    return values * np.array(node["scale"]) + np.array(node["translation"]) if name == "POSITION" else values


def test_web_mesh_is_the_mesh():
    mesh = colourful()
    glb, whole = to_glb(mesh, 10_000, 64), split_seams(mesh)
    faces = attribute(glb, "indices").reshape(-1, 3)
    assert np.abs(attribute(glb, "POSITION")[faces] - whole.vertices[whole.faces]).max() < 2e-5
    assert np.abs(attribute(glb, "TEXCOORD_0")[faces] - whole.uv[whole.faces]).max() < 2e-5
    start = glb.index(b"\xff\xd8\xff")
    picture = np.asarray(Image.open(io.BytesIO(glb[start:])), dtype=np.float32) / 255
    assert picture.shape == mesh.texture.shape and np.abs(picture - mesh.texture.numpy()).mean() < 0.02


def test_web_mesh_gets_coarser_then_gives_up(tmp_path):
    save_mesh(colourful(rings=100), tmp_path / "a.glb")  # nearly 40 000 faces
    fine, coarse = web_mesh(tmp_path / "a.glb", 10**7), web_mesh(tmp_path / "a.glb", 190_000)
    assert isinstance(fine, WebMesh) and isinstance(coarse, WebMesh)
    assert fine.note == "" and re.fullmatch("shown with 10,000 of its 39,60. faces", coarse.note)
    assert len(coarse.base64) <= 190_000
    glb = gzip.decompress(base64.b64decode(coarse.base64))
    positions, colours = attribute(glb, "POSITION"), attribute(glb, "COLOR_0")
    assert len(attribute(glb, "indices")) <= 3 * 10_000
    assert np.linalg.norm(positions - [0.3, -0.2, 5.0], axis=1) == pytest.approx(0.5, abs=0.01)
    assert colours[:, :3].std(0).min() > 0.1 and (colours[:, 3] == 1).all()
    assert web_mesh(tmp_path / "a.glb", 1000) == "too large for the page; open the file"
    assert "cannot be shown" in web_mesh(tmp_path / "none.glb", 1000)


def test_web_mesh_without_colours_is_lit(tmp_path):
    plain = replace(colourful(), uv=None, faces_uv=None, texture=None)
    assert isinstance(plain, Mesh)
    glb = to_glb(plain, 10_000, 64)
    document = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
    assert "NORMAL" in document["meshes"][0]["primitives"][0]["attributes"]
    assert "extensions" not in document["materials"][0]


def test_vendored_viewer_is_what_its_notice_says():
    import hashlib

    notice = (ASSETS / "THIRD_PARTY.md").read_text()
    script = (ASSETS / "model-viewer.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() in notice and "4.4.0" in notice and "Apache License" in notice
