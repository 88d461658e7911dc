import itertools
import logging
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dg.data import matting
from dg.data.background import model_background, reached, to_lab
from dg.data.edges import foreground_colours, signed_distance, soft_alpha
from dg.data.matting import cut_out, remove_background
from dg.data.robust_fit import basis, fit_frame, fit_robust

IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
SIDE = 192


def shape(side=SIDE):
    """A coloured figure with a ring (a true hole), a thin arm and two legs, antialiased: premultiplied RGBA."""
    k = 4
    canvas = np.zeros((side * k, side * k), np.uint8)
    colour = np.zeros((side * k, side * k, 3), np.uint8)
    s = side * k / 192
    point = lambda x, y: (round(x * s), round(y * s))  # noqa: E731

    def draw(call, value, tone):
        call(canvas, value)
        call(colour, tone)

    draw(lambda im, v: cv2.rectangle(im, point(70, 60), point(120, 125), v, -1), 255, (200, 60, 40))
    draw(lambda im, v: cv2.circle(im, point(95, 42), round(20 * s), v, -1), 255, (240, 200, 150))
    draw(lambda im, v: cv2.circle(im, point(145, 88), round(20 * s), v, round(9 * s)), 255, (40, 90, 200))
    draw(lambda im, v: cv2.line(im, point(72, 75), point(34, 100), v, round(7 * s)), 255, (240, 200, 150))
    draw(lambda im, v: cv2.rectangle(im, point(75, 120), point(88, 165), v, -1), 255, (60, 60, 70))
    draw(lambda im, v: cv2.rectangle(im, point(102, 120), point(115, 165), v, -1), 255, (60, 60, 70))
    opaque = (canvas > 0).astype(np.float32)
    rgb = colour.astype(np.float32) / 255 * opaque[..., None]
    small = lambda x: cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA)  # noqa: E731
    alpha = small(opaque)
    return np.dstack([small(rgb), alpha])  # premultiplied


def backgrounds(side=SIDE):
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    grey = np.ones((side, side, 3))
    shade = 1 - 0.4 * np.exp(-(((x - 0.52) / 0.25) ** 2 + ((y - 0.87) / 0.03) ** 2))
    return {
        "white": grey,
        "off-white gradient": grey * (1 - 0.12 * y[..., None]),
        "grey gradient": (0.45 + 0.33 * (0.9 * y + 0.1 * x))[..., None] * np.array([1, 0.98, 0.95]),
        "vignette": (0.8 - 0.6 * ((x - 0.5) ** 2 + (y - 0.45) ** 2))[..., None] * grey,
        "studio and floor shadow": ((0.42 + 0.28 / (1 + np.exp(-(y - 0.7) * 12))) * shade)[..., None] * grey,
        "white and floor shadow": shade[..., None] * grey,
        "blue": grey * np.array([0.2, 0.4, 0.75]),
        "grain": grey * 0.6 + np.random.default_rng(0).normal(size=(side, side, 3)) * 0.03,
    }


def composed(premultiplied, background):
    rgb = premultiplied[..., :3] + (1 - premultiplied[..., 3:]) * background
    return np.round(rgb.clip(0, 1) * 255).astype(np.uint8)


def iou(alpha, truth):
    return np.minimum(alpha, truth).sum() / np.maximum(alpha, truth).sum()


@pytest.fixture
def own_method(monkeypatch):
    monkeypatch.setattr(matting, "rembg_weights", lambda: None)


@pytest.mark.parametrize("name", backgrounds())
def test_the_object_is_found_on(name, own_method):
    object_ = shape()
    alpha, how = remove_background(composed(object_, backgrounds()[name]))
    assert how == "GrabCut"
    assert alpha.dtype == np.float32 and alpha.shape == (SIDE, SIDE) and alpha.min() >= 0 and alpha.max() <= 1
    assert iou(alpha, object_[..., 3]) > (0.93 if name == "grain" else 0.97)
    if name not in ("white", "white and floor shadow"):  # there a hole cannot be told from a white part
        assert alpha[88, 145] < 0.05  # the ring's hole
    assert alpha[150, 95] < 0.05  # between the legs


@pytest.mark.parametrize("name", ["white", "grey gradient", "blue"])
def test_no_rim_of_the_old_background_remains(name, own_method):
    """On a new background: close to the true object, and no worse than untreated colours with the true alpha."""
    object_ = shape()
    picture = composed(object_, backgrounds()[name])
    rgba, _ = cut_out(picture)
    new = np.array([1.0, 0, 1])
    truth = object_[..., :3] + (1 - object_[..., 3:]) * new
    alpha = rgba[..., 3:] / 255
    over = lambda rgb, a: rgb * a + (1 - a) * new  # noqa: E731
    edge = (object_[..., 3] > 0.02) & (object_[..., 3] < 0.98)
    error = np.abs(over(rgba[..., :3] / 255, alpha) - truth)[edge].mean()
    plain = np.abs(over(picture / 255, object_[..., 3:]) - truth)[
        edge
    ].mean()  # the true alpha, colours left as they are
    assert error < 0.06
    assert error < plain + 0.03
    hidden = rgba[rgba[..., 3] == 0]
    assert (hidden == 0).all()


def test_a_large_picture_is_segmented_small_and_gets_a_sharp_edge(own_method):
    object_ = shape(640)
    alpha, _ = remove_background(composed(object_, backgrounds(640)["grey gradient"]))
    assert alpha.shape == (640, 640)
    assert iou(alpha, object_[..., 3]) > 0.985


def test_the_same_picture_gives_the_same_alpha(own_method):
    picture = composed(shape(), backgrounds()["studio and floor shadow"])
    one, two = remove_background(picture)[0], remove_background(picture)[0]
    np.testing.assert_array_equal(one, two)


def test_an_object_cut_by_the_border_is_kept_and_said(own_method, caplog):
    object_ = np.roll(shape(), 40, axis=0)
    object_[:40] = 0
    # the arm leaves on the left, the legs at the bottom
    object_ = np.concatenate([object_[:, 60:], object_[:, :60] * 0], 1)
    picture = composed(object_, backgrounds()["grey gradient"])
    with caplog.at_level(logging.WARNING, "dg"):
        alpha, _ = remove_background(picture)
    assert iou(alpha, object_[..., 3]) > 0.93
    wide = np.zeros((96, 96, 4), np.float32)
    wide[30:, 20:80] = (0.8, 0.2, 0.1, 1)
    with caplog.at_level(logging.WARNING, "dg"):
        alpha, _ = remove_background(composed(wide, np.full((96, 96, 3), 0.7)))
    assert iou(alpha, wide[..., 3]) > 0.95
    assert "picture's border" in caplog.text


def test_a_white_object_on_white_is_guessed_and_said(own_method, caplog):
    """Only dark marks of a white box are visible: what they enclose is better than the marks alone."""
    box = np.zeros((SIDE, SIDE, 4), np.float32)
    box[50:140, 40:150] = 1
    marks = np.zeros((SIDE, SIDE), bool)
    for y, x in itertools.product((54, 86, 116), (44, 84, 122)):
        marks[y : y + 20, x : x + 24] = True
    box[marks, :3] = (0.1, 0.2, 0.6)
    with caplog.at_level(logging.WARNING, "dg"):
        alpha, _ = remove_background(composed(box, np.ones((SIDE, SIDE, 3))))
    assert iou(alpha, box[..., 3]) > 0.75  # 0.80 measured
    assert iou(marks, box[..., 3]) < 0.45
    assert "light object on a light background" in caplog.text


def test_the_gaps_of_an_object_on_white_stay_open(own_method, caplog):
    """A chair is one piece: nothing is guessed between its legs."""
    chair = np.zeros((SIDE, SIDE, 4), np.float32)
    for part in (np.s_[30:90, 60:66], np.s_[84:96, 60:130], np.s_[96:160, 60:66], np.s_[96:160, 124:130]):
        chair[part] = (0.5, 0.3, 0.1, 1)
    with caplog.at_level(logging.WARNING, "dg"):
        alpha, _ = remove_background(composed(chair, np.ones((SIDE, SIDE, 3))))
    assert iou(alpha, chair[..., 3]) > 0.95
    assert caplog.text == ""


def test_a_plain_picture_has_no_object(own_method):
    with pytest.raises(ValueError, match="no object stands out"):
        remove_background(np.full((64, 64, 3), 180, np.uint8))
    with pytest.raises(ValueError, match="too few"):
        remove_background(np.zeros((1, 300, 3), np.uint8))


def test_the_whole_picture_as_object_is_said(caplog):
    with caplog.at_level(logging.WARNING, "dg"):
        matting.judge(np.ones((50, 50), np.float32))
    assert "pass a picture with alpha" in caplog.text


def test_rembg_is_used_where_its_weights_are_local(monkeypatch, tmp_path):
    calls = []
    fake = types.ModuleType("rembg")
    fake.__spec__ = __import__("importlib.machinery", fromlist=["ModuleSpec"]).ModuleSpec("rembg", None)
    fake.new_session = lambda name: calls.append(name) or "session"

    def remove(image, session, only_mask):
        assert session == "session" and only_mask
        mask = np.zeros((image.height, image.width), np.uint8)
        mask[10:30, 10:30] = 255
        return Image.fromarray(mask)

    fake.remove = remove
    monkeypatch.setitem(sys.modules, "rembg", fake)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setenv("MODEL_CHECKSUM_DISABLED", "1")
    matting.rembg_session.cache_clear()
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert matting.rembg_weights() is None  # installed, but it would download
    (tmp_path / "u2net.onnx").write_bytes(b"weights")
    for _ in range(2):
        alpha, how = remove_background(picture)
    assert how.startswith("rembg") and calls == ["u2net"]  # one session for all pictures
    assert alpha.sum() == 400
    matting.rembg_session.cache_clear()


@pytest.mark.parametrize(
    "error", [SystemExit(1), RuntimeError("INVALID_PROTOBUF\nfailed"), ImportError("no jsonschema")]
)
def test_a_rembg_that_does_not_work_is_said_and_replaced(error, monkeypatch, tmp_path, caplog):
    fake = types.ModuleType("rembg")
    fake.__spec__ = __import__("importlib.machinery", fromlist=["ModuleSpec"]).ModuleSpec("rembg", None)

    def fails(name):
        raise error

    fake.new_session = fails
    monkeypatch.setitem(sys.modules, "rembg", fake)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setenv("MODEL_CHECKSUM_DISABLED", "1")
    (tmp_path / "u2net.onnx").write_bytes(b"damaged")
    matting.rembg_session.cache_clear()
    object_ = shape()
    with caplog.at_level(logging.WARNING, "dg"):
        alpha, how = remove_background(composed(object_, np.float32([0.9, 0.9, 0.9])))
    assert how == "GrabCut" and iou(alpha, object_[..., 3]) > 0.9
    (warning,) = [r.getMessage() for r in caplog.records if "rembg" in r.getMessage()]
    assert "GrabCut instead" in warning and "\n" not in warning


def test_robust_fit_ignores_a_third_of_outliers():
    A = basis(40, 40).reshape(-1, 10)
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(10, 3)) * 10
    values = A @ truth + rng.normal(size=(1600, 3)) * 0.3
    spoiled = values.copy()
    spoiled[rng.permutation(1600)[:500]] += 60
    assert np.abs(A @ fit_robust(A, spoiled) - A @ truth).max() < 0.5
    assert np.abs(A @ np.linalg.lstsq(A, spoiled, rcond=None)[0] - A @ truth).max() > 10


def test_a_frame_fit_does_not_follow_what_touches_the_border():
    A = basis(96, 96)
    values = np.full((96, 96, 3), 70.0)
    values[30:, 20:80] = (45, 60, 50)
    frame = np.ones((96, 96), bool)
    frame[4:-4, 4:-4] = False
    assert np.abs(A @ fit_frame(A[frame], values[frame]) - 70).max() < 0.5
    assert np.abs(A @ fit_robust(A[frame], values[frame]) - 70).max() > 10


def test_the_background_behind_the_object_is_interpolated():
    behind = backgrounds()["grey gradient"]
    model = model_background(composed(shape(), behind).astype(np.float32) / 255)
    assert np.linalg.norm(model.lab - to_lab(behind), axis=-1).max() < 3
    assert model.outside[150, 95] and not model.outside[90, 95]


def test_the_flood_passes_no_narrow_gap():
    passable = np.ones((60, 60), bool)
    passable[20:40, 20:40] = False
    passable[24:36, 24:36] = True
    passable[20:24, 28:31] = True  # a gap of 3 pixels
    assert not reached(passable, 2)[24:36, 24:36].any()
    passable[20:24, 26:34] = True  # of 8
    assert reached(passable, 2)[26:34, 26:34].all()
    assert not reached(np.zeros((9, 9), bool)).any()


def test_soft_alpha_recovers_a_mixture():
    """A disc mixed from two known colours: alpha comes back at the edge, from a mask that is one pixel too large."""
    y, x = np.mgrid[0:80, 0:80]
    truth = np.clip(25.5 - np.hypot(x - 40, y - 40), 0, 1).astype(np.float32)
    front, behind = np.array([0.9, 0.3, 0.1]), np.array([0.2, 0.5, 0.6])
    rgb = (truth[..., None] * front + (1 - truth[..., None]) * behind).astype(np.float32)
    alpha = soft_alpha(rgb, np.hypot(x - 40, y - 40) < 26, 2.5)
    assert np.abs(alpha - truth).max() < 0.12
    assert np.abs(alpha - truth).mean() < 0.003
    colours = foreground_colours(rgb, truth)
    assert np.abs(colours[truth > 0.02] - front).max() < 0.02
    assert signed_distance(truth > 0.5)[40, 40] > 20 > 0 > signed_distance(truth > 0.5)[0, 0]


@pytest.mark.skipif(not IMAGES.is_dir(), reason="reference pictures (../shared) are not here")
def test_the_figurine_on_its_grey_gradient(own_method):
    """A photograph-like picture with a floor shadow: points that belong to the figure, and points that do not."""
    rgb = np.asarray(Image.open(IMAGES / "figurine.jpg").convert("RGB"))
    alpha, _ = remove_background(rgb)
    figure = {
        "face": (150, 380),
        "hair": (330, 480),
        "left hand": (316, 150),
        "right hand": (325, 620),
        "dress": (450, 380),
    }
    figure |= {"left leg": (620, 325), "right leg": (620, 435), "left shoe": (725, 320), "right shoe": (725, 440)}
    empty = {"between the legs": (650, 382), "shadow between": (735, 382), "shadow": (735, 560), "corner": (5, 5)}
    empty |= {"under the arm": (480, 200), "floor": (760, 385), "beside the head": (100, 250)}
    assert {k: v for k, v in figure.items() if alpha[v] < 0.98} == {}
    assert {k: v for k, v in empty.items() if alpha[v] > 0.02} == {}
    assert 0.18 < alpha.mean() < 0.25


@pytest.mark.skipif(not IMAGES.is_dir(), reason="reference pictures (../shared) are not here")
@pytest.mark.parametrize("name", ["catstatue_rgba", "Duck_view", "spot_view"])
def test_real_cut_outs_on_a_grey_gradient(name, own_method):
    rgba = (
        np.asarray(Image.open(IMAGES / f"{name}.png").resize((256, 256), Image.Resampling.BOX)).astype(np.float32) / 255
    )
    rgba[..., :3] *= rgba[..., 3:]
    alpha, _ = remove_background(composed(rgba, backgrounds(256)["grey gradient"]))
    assert iou(alpha, rgba[..., 3]) > 0.95
