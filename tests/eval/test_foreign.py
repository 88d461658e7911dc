"""Other people's results: found in every layout, turned into our frame, missing ones missed, mistakes named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dg.core.camera import orbit
from dg.eval import human
from dg.eval.axes import KNOWN, best_quarter_turn, quarter_turns, read_axes, rotation_x
from dg.eval.foreign import open_method
from dg.eval.layouts.converted import UNIT
from dg.eval.placement import resized, turned
from dg.eval.protocol import Item, Protocol, TruthViews, ViewSpec
from dg.io.images import read_png
from dg.io.mesh import load_mesh, save_mesh
from tests.eval import trees
from tests.eval.solids import lopsided

VIEWS = ViewSpec((0, 0), (0, 180), size=4)
PROTOCOL = Protocol("toy", list, VIEWS, ("psnr_db",), ("psnr_db",))
CAT = Item("cat")


def method(folder: Path, text: str = "name: M") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "method.yaml").write_text(text)
    return folder


def mesh(path: Path) -> None:
    save_mesh(lopsided(), path)


def splats(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("ply\nformat binary_little_endian 1.0\nproperty float rot_3\nend_header\n")


# --- where results lie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "layout", "stage"),
    [
        ("cat.glb", "meshes", "mesh"),
        ("cat.obj", "meshes", "mesh"),
        ("cat.ply", "meshes", "mesh"),
        ("cat_mesh.obj", "meshes", "mesh"),
        ("cat_rgba.obj", "meshes", "mesh"),
        ("cat/mesh.ply", "meshes", "mesh"),
        ("cat/mesh/mesh.obj", "meshes", "mesh"),
        ("cat/meshes/model.obj", "meshes", "mesh"),
        ("mesh-ortho-cat/save/it3000-mc192.obj", "wonder3d", "mesh"),
        ("cat@20240101-120000/save/it10000-export/model.obj", "threestudio", "mesh"),
        ("cat_model.ply", "splats", "splats"),
        ("cat/gaussians.ply", "splats", "splats"),
        ("cat/point_cloud/iteration_7000/point_cloud.ply", "splats", "splats"),
        ("cat/000.png", "numbered", "renders"),
        ("cat/rgb_0.png", "numbered", "renders"),
        ("cat/results/images/df_ep0100_0000_lambertian.png", "magic123", "renders"),
    ],
)
def test_layouts_are_recognised(tmp_path, file, layout, stage):
    path = method(tmp_path) / file
    {"mesh": mesh, "splats": splats, "renders": trees.png}[stage](path)
    found = open_method(tmp_path)
    assert (found.layout.shape, found.stage) == (
        open_method(method(tmp_path, f"{{name: M, layout: {layout}}}")).layout.shape,
        stage,
    )
    assert found.files(CAT) == (path,)
    assert found.files(Item("dog")) == () and found.result(Item("dog"), PROTOCOL) is None
    assert found.files(Item("ca")) == ()  # the beginning of a name is another object


def test_newest_of_several_counts(tmp_path):
    for n in (7000, 30000):
        splats(method(tmp_path) / f"cat/point_cloud/iteration_{n}/point_cloud.ply")
    assert open_method(tmp_path).files(CAT)[0].parent.name == "iteration_30000"


def test_prompts_with_underscores(tmp_path):
    for time in ("20240101", "20240202"):
        mesh(method(tmp_path) / f"A_doll's_face@{time}/save/it100-export/model.obj")
    (path,) = open_method(tmp_path).files(Item("single_060", prompt="A doll's face"))
    assert path.parts[-4] == "A_doll's_face@20240202"
    assert open_method(tmp_path).files(Item("single_061", prompt="A doll")) == ()


def test_gpteval3d_by_prompt_and_seed(tmp_path):
    for prompt in (0, 12):
        for seed in (0, 3):
            for i in range(4):
                trees.png(method(tmp_path) / f"{prompt}/{seed}/rgb_{i}.png", 10 * i + seed)
                trees.png(tmp_path / f"{prompt}/{seed}/normal_{i}.png")
    found = open_method(method(tmp_path, "{name: M, seed: 3}"))
    assert [p.name for p in found.files(Item("prompt_012"))] == [f"rgb_{i}.png" for i in range(4)]
    renders = found.result(Item("prompt_012"), PROTOCOL).renders
    torch.testing.assert_close(renders.rgb[:, 0, 0, 0] * 255, _seen([3, 23]))  # every second of four


def _seen(grey: list[int]) -> torch.Tensor:
    """Grey values that are also alpha, over white."""
    alpha = torch.tensor(grey) / 255
    return (alpha * alpha + 1 - alpha) * 255


def test_pictures_are_ordered_by_number_and_thinned(tmp_path):
    for i in (10, 9, 0, 1, 2, 3):
        trees.png(method(tmp_path) / f"cat/{i}.png", 10 * i, mode="RGB")
    renders = open_method(tmp_path).result(CAT, PROTOCOL).renders
    torch.testing.assert_close(renders.rgb[:, 0, 0, 0] * 255, torch.tensor([0.0, 30.0]))
    assert renders.alpha is None and renders.rgb.shape == (2, 4, 4, 3)
    trees.png(tmp_path / "cat/11.png")
    with pytest.raises(ValueError, match="7 pictures for 2 views"):
        open_method(tmp_path).result(CAT, PROTOCOL)


def test_magic123_takes_the_colours_alone(tmp_path):
    folder = method(tmp_path) / "cat-magic/results/images"
    for i in range(4):
        for kind in ("lambertian", "depth", "normal"):
            trees.png(folder / f"df_ep0100_{i:04d}_{kind}.png")
    trees.png(tmp_path / "catfish/results/images/df_0000_lambertian.png")
    files = open_method(tmp_path).files(CAT)
    assert [p.name for p in files] == [f"df_ep0100_{i:04d}_lambertian.png" for i in range(4)]


def test_strips_and_numbers_of_true_views(tmp_path):
    """EscherNet's 25 views side by side, of which the data set's views 10 to 24 count; and one file for each."""
    strip = np.zeros((4, 100, 3), np.uint8)
    for i in range(25):
        strip[:, 4 * i : 4 * i + 4] = 10 * i
        trees.png(method(tmp_path / "single") / "cat" / f"{i:03d}.png", 10 * i, mode="RGB")
    (method(tmp_path / "strip") / "cat").mkdir()
    Image.fromarray(strip).save(tmp_path / "strip" / "cat" / "0.png")
    cameras = orbit(0.0, [24.0 * i for i in range(15)], height=4)
    item = replace(CAT, truth_views=TruthViews((), cameras, tuple(range(10, 25))))
    for kind in ("single", "strip"):
        renders = open_method(tmp_path / kind).result(item, PROTOCOL).renders
        torch.testing.assert_close(renders.rgb[:, 0, 0, 0] * 255, torch.arange(100.0, 250.0, 10.0))


# --- method.yaml -----------------------------------------------------------------------------------------------------


def test_method_yaml(tmp_path):
    text = "name: TripoSR\naxes: blender\nseed: 4\nseconds: 0.5\nhardware: A100\nvram_gb: 6\nlicence: MIT\n"
    mesh(method(tmp_path, text) / "cat.glb")
    found = open_method(tmp_path)
    assert (found.name, found.seed, found.seconds, found.hardware) == ("TripoSR", 4, 0.5, "A100")
    assert (found.vram_gb, found.licence, found.stage) == (6, "MIT", "mesh")
    torch.testing.assert_close(found.result(CAT, PROTOCOL).axes, KNOWN["blender"].matrix(CAT))
    before = found.checksum()
    assert before == open_method(tmp_path).checksum()
    (tmp_path / "cat.glb").write_bytes(b"other")
    assert found.checksum() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: x", "there is no key nam; did you mean name"),
        ("name: x\nlicense: MIT", "no key license; did you mean licence"),
        ("seed: 1", "lacks a name"),
        ("name: x\naxes: dreamgausian", "axes=dreamgausian is not known; did you mean dreamgaussian"),
        ("name: x\naxes: [[1, 0, 0], [0, 1, 0]]", "three rows of three numbers"),
        ("name: x\naxes: [[1, 0, 0], [0, 1, 0], [1, 0, 1]]", "is no rotation"),
        ("name: x\nlayout: strp", "layout=strp is not known; did you mean strip"),
        ("name: x\nseconds: fast", "seconds=fast must be a number"),
        ("name: x\nvram_gb: -1", "vram_gb=-1 must be a number of at least 0"),
        ("name: x\nlicence: [MIT]", "licence=.* must be text"),
        ("name: [", "is no YAML"),
        ("- a", "must hold keys"),
    ],
)
def test_mistakes_in_method_yaml(tmp_path, text, message):
    mesh(method(tmp_path, text) / "cat.glb")
    with pytest.raises(ValueError, match=message) as error:
        open_method(tmp_path)
    assert "method.yaml" in str(error.value) and "\n" not in str(error.value)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_method(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match=r"no method\.yaml"):
        open_method(tmp_path)
    with pytest.raises(FileNotFoundError, match="no results in a known layout"):
        open_method(method(tmp_path))


# --- frames ----------------------------------------------------------------------------------------------------------


def about(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


RENAME = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # the z-up world's +x is our front


@pytest.mark.parametrize("azimuth", [0.0, 77.0, -140.0])
@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("dreamgaussian", lambda a: about("x", 90) @ about("y", a + 90)),
        ("one-2-3-45", lambda a: about("z", a + 60)),
        ("syncdreamer", lambda a: about("z", a)),
        ("realfusion", lambda a: about("z", a)),
        ("wonder3d", lambda a: about("z", a)),
        ("eschernet", lambda a: np.eye(3)),
    ],
)
def test_axes_are_eschernets_recipes(name, recipe, azimuth):
    """Method -> the data set's z-up world, as its evaluator turns them -> ours, with the input view at the front."""
    item = Item("cat", frame_azimuth_deg=azimuth)
    expected = RENAME @ about("z", -azimuth) @ recipe(azimuth)
    np.testing.assert_allclose(KNOWN[name].matrix(item).numpy(), expected, atol=1e-6)


def test_a_level_dreamgaussian_is_tilted():
    """Another evaluator's recipe: X by 90, the front to +x (azimuth 0), then Y by minus the elevation from above."""
    item = Item("cat", elevation_deg=-30)
    expected = RENAME @ about("y", -30) @ about("z", 0 + 90) @ about("x", 90)
    np.testing.assert_allclose(KNOWN["dreamgaussian_level"].matrix(item).numpy(), expected, atol=1e-6)
    front = KNOWN["dreamgaussian_level"].matrix(item) @ torch.tensor([0.0, 0, 1])
    camera = orbit(-30.0, 0.0, 1.0).position[0]
    torch.testing.assert_close(front, camera, atol=1e-6, rtol=0)


def test_a_matrix_may_scale_and_mirror():
    given = [[0, 2, 0], [0, 0, 2], [2, 0, 0]]
    torch.testing.assert_close(read_axes(given, "x").matrix(CAT), torch.tensor(given).float())
    assert all(torch.linalg.det(axes.matrix(CAT)).item() == pytest.approx(1, abs=1e-5) for axes in KNOWN.values())


def test_ten_quarter_turns():
    turns = quarter_turns()
    assert len({tuple(t.flatten().tolist()) for t in turns}) == len(turns) == 10
    for turn in turns:
        torch.testing.assert_close(turn @ turn.T, torch.eye(3))
        assert torch.linalg.det(turn).item() == pytest.approx(1)
    assert any(torch.equal(t, rotation_x(90.0).round()) for t in turns)


def test_the_best_quarter_turn_is_found(tmp_path):
    truth = lopsided()
    for axes in (quarter_turns()[i] for i in (0, 2, 4, 9)):
        given = turned(lopsided(scale=3.0), axes.T)
        back = best_quarter_turn(given, truth, torch.eye(3))
        found = resized(turned(given, back), UNIT).vertices
        torch.testing.assert_close(found, resized(truth, UNIT).vertices, atol=1e-5, rtol=0)
    save_mesh(turned(lopsided(), quarter_turns()[4].T), method(tmp_path, "{name: S, axes: shap-e}") / "cat.obj")
    save_mesh(turned(truth, KNOWN["data_set"].matrix(CAT)), tmp_path / "truths" / "cat.obj")
    result = open_method(tmp_path).result(replace(CAT, truth=tmp_path / "truths" / "cat.obj"), PROTOCOL)
    placed = turned(load_mesh(result.mesh), result.axes).vertices
    expected = load_mesh(tmp_path / "truths" / "cat.obj").vertices
    torch.testing.assert_close(placed, expected, atol=1e-5, rtol=0)


# --- scores by people ------------------------------------------------------------------------------------------------


def test_human_scores(tmp_path):
    path = tmp_path / "study.csv"
    rows = [
        "robot,ours,quality,4,anna",
        "robot,ours,quality,2,ben",
        "mug,ours,quality,5,anna",
        "mug,theirs,likeness,1.5,",
    ]
    path.write_text("object,method,question,score,rater\n" + "\n".join(rows) + "\n")
    found = human.read(path)
    assert found[1] == human.Judgement("robot", "ours", "quality", 2.0, "ben")
    table = human.opinions(found)
    assert table["ours"]["quality"] == human.Opinion(mean=4.0, count=3, objects=2, raters=2)  # (3 + 5) / 2
    assert table["theirs"]["likeness"].mean == 1.5
    assert human.unknown(found, ["ours", "thiers"], ["robot", "mug"]) == [
        "no method theirs on the board; did you mean thiers?"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("object,method,score\n", "line 1: lacks question"),
        ("object,method,question,score,ratter\n", "line 1: there is no column 'ratter'; did you mean rater"),
        ("object,method,question,score\na,b,c,high\n", "line 2: score=high must be a number"),
        ("object,method,question,score\na,b,c,1\na,,c,1\n", "line 3: method is empty"),
        ("object,method,question,score\na,b,c\n", "line 2: has more or fewer cells"),
        ("object,method,question,score\na,b,c,1,2\n", "line 2: has more or fewer cells"),
        ("object,method,question,score\n", "holds no judgements"),
        ("object,method,question,score,rater\na,b,c,1,x\na,b,c,2,x\n", "line 3: x has judged this before, in line 2"),
    ],
)
def test_mistakes_in_human_scores(tmp_path, text, message):
    path = tmp_path / "study.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        human.read(path)
    assert message in str(error.value) and "study.csv" in str(error.value)
    with pytest.raises(FileNotFoundError, match="human="):
        human.read(tmp_path / "none.csv")


def test_nothing_is_lost_on_the_way(tmp_path):
    trees.png(method(tmp_path) / "cat/000.png", 77, mode="RGB")
    trees.png(tmp_path / "cat/001.png", 78, mode="RGB")
    renders = open_method(tmp_path).result(CAT, PROTOCOL).renders
    torch.testing.assert_close(renders.rgb[1], read_png(tmp_path / "cat/001.png"))
