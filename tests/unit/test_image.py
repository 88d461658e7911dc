import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dg.core.camera import spherical
from dg.data.captions import caption_for
from dg.data.decode import read_picture
from dg.data.image import load_reference, load_rgba, reduced, straight

IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
slow_files = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLOUR = (200, 100, 50)


def cut(h=64, w=64, box=(16, 48, 20, 44), hidden=(0, 0, 0)):
    rgba = np.zeros((h, w, 4), np.uint8)
    rgba[..., :3] = hidden
    rgba[box[0] : box[1], box[2] : box[3]] = (*COLOUR, 255)
    return rgba


def write(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


def on_grey(mode="RGB", side=96):
    """A coloured box on grey, without alpha."""
    array = np.full((side, side, 3), 190, np.uint8)
    array[24:72, 30:66] = COLOUR
    return Image.fromarray(array).convert(mode)


def test_a_picture_with_alpha_becomes_a_reference(tmp_path):
    reference = load_reference(write(tmp_path / "a.png", cut()), elevation_deg=-20, radius=2.5, size=128)
    assert reference.rgba.shape == (1, 128, 128, 4) and reference.rgba.dtype == torch.float32
    assert reference.source == tmp_path / "a.png"
    cameras = reference.cameras
    assert (len(cameras), cameras.width, cameras.height) == (1, 128, 128)
    elevation, azimuth, radius = (float(x) for x in spherical(cameras))
    assert elevation == pytest.approx(-20, abs=1e-4) and azimuth == pytest.approx(0, abs=1e-4)
    assert radius == pytest.approx(2.5, abs=1e-5)
    alpha = reference.rgba[0, ..., 3]
    rows = torch.nonzero(alpha.amax(1) > 0.5)
    assert int(rows[-1] - rows[0]) + 1 == 102  # int(128 * 0.8)
    torch.testing.assert_close(reference.rgba[0, 64, 64, :3], torch.tensor(COLOUR) / 255, atol=1e-5, rtol=0)


@pytest.mark.parametrize("recenter", [True, False])
@pytest.mark.parametrize("size", [37, 64, 200])
def test_hidden_colours_do_not_leak(tmp_path, recenter, size):
    """Whatever lies under alpha 0: the reference is the same, and no edge pixel is darker or lighter."""
    results = []
    for i, hidden in enumerate([(0, 0, 0), (255, 255, 255), (255, 0, 255)]):
        path = write(tmp_path / f"{i}.png", cut(hidden=hidden))
        results.append(load_reference(path, recenter=recenter, size=size).rgba)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    rgb = results[0][0, ..., :3]  # everywhere, under alpha 0 too
    assert float((rgb - torch.tensor(COLOUR) / 255).abs().max()) < 2e-3


def test_without_recentring_the_framing_stays(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    path = write(tmp_path / "a.png", rgba)
    same = load_reference(path, recenter=False, size=64).rgba[0].numpy()
    visible = rgba[..., 3] > 0
    np.testing.assert_allclose(same[..., 3] * 255, rgba[..., 3], atol=1e-3)
    np.testing.assert_allclose(same[visible][:, :3] * 255, rgba[visible][:, :3], atol=0.02)
    half = load_reference(path, recenter=False, size=32).rgba[0].numpy()
    np.testing.assert_allclose(half[..., 3] * 255, rgba[..., 3].reshape(32, 2, 32, 2).mean((1, 3)), atol=1e-2)


@pytest.mark.parametrize(("h", "w"), [(48, 96), (96, 48)])
def test_other_shapes_are_padded_not_stretched(tmp_path, h, w):
    path = write(tmp_path / "a.png", cut(h, w, (12, 36, 12, 36)))
    alpha = load_reference(path, recenter=False, size=96).rgba[0, ..., 3]
    found = torch.nonzero(alpha > 0.5)
    (top, left), (bottom, right) = found.amin(0).tolist(), found.amax(0).tolist()
    assert (bottom - top + 1, right - left + 1) == (24, 24)
    assert (top, left) == (12 + (96 - h) // 2, 12 + (96 - w) // 2)


def test_straight_alpha_inverts_premultiplication():
    rng = np.random.default_rng(0)
    rgba = rng.random((20, 20, 4)).astype(np.float32)
    rgba[:, 10:, 3] = 0
    premultiplied = rgba.copy()
    premultiplied[..., :3] *= rgba[..., 3:]
    out = straight(premultiplied)
    clear = rgba[..., 3] > 0.01
    np.testing.assert_allclose(out[clear], rgba[clear], atol=1e-4)
    np.testing.assert_array_equal(out[5, 10:, :3], np.broadcast_to(out[5, 9, :3], (10, 3)))
    assert (straight(np.zeros((4, 4, 4), np.float32)) == 0).all()


# What Pillow reads ----------------------------------------------------------------------------------------------------


def palette_with_transparency():
    image = Image.fromarray(cut()[..., :3]).quantize(8)
    index = np.asarray(image)[0, 0]
    image.info["transparency"] = int(index)
    return image


ALPHA_KINDS = {
    "RGBA": (lambda: Image.fromarray(cut()), "png"),
    "LA": (lambda: Image.fromarray(cut()).convert("LA"), "png"),
    "palette": (palette_with_transparency, "png"),
    "WebP": (lambda: Image.fromarray(cut()), "webp"),
    "TIFF": (lambda: Image.fromarray(cut()), "tiff"),
    "colour key": (lambda: Image.fromarray(cut()[..., :3]), "png"),
    "GIF": (palette_with_transparency, "gif"),
}


@pytest.mark.parametrize("kind", ALPHA_KINDS)
def test_transparency_of_every_kind(tmp_path, kind):
    make, extension = ALPHA_KINDS[kind]
    options = {"colour key": {"transparency": (0, 0, 0)}, "WebP": {"lossless": True}}.get(kind, {})
    rgba = load_rgba(write(tmp_path / f"a.{extension}", make(), **options))
    np.testing.assert_array_equal(rgba[..., 3], cut()[..., 3])
    expected = COLOUR if kind != "LA" else (123, 123, 123)
    assert np.abs(rgba[32, 32, :3].astype(int) - expected).max() <= 8


OPAQUE_KINDS = {
    "RGB": (on_grey, "png", COLOUR),
    "JPEG": (on_grey, "jpg", COLOUR),
    "grey": (lambda: on_grey("L"), "png", (124,) * 3),
    "CMYK": (lambda: on_grey("CMYK"), "jpg", COLOUR),
    "palette": (lambda: on_grey().quantize(16), "png", COLOUR),
    "BMP": (on_grey, "bmp", COLOUR),
    "opaque alpha": (lambda: on_grey("RGBA"), "png", COLOUR),
    "opaque LA": (lambda: on_grey("LA"), "png", (124,) * 3),
    "16 bits": (lambda: Image.fromarray(np.asarray(on_grey("L")).astype(np.uint16) * 257), "png", (124,) * 3),
    "float": (lambda: Image.fromarray(np.asarray(on_grey("L")).astype(np.float32) / 255), "tiff", (124,) * 3),
    "1 bit": (lambda: on_grey("L").point(lambda v: 255 * (v > 150)).convert("1"), "png", (0, 0, 0)),
}


@pytest.mark.parametrize("kind", OPAQUE_KINDS)
def test_pictures_without_alpha_lose_their_background(tmp_path, kind, caplog):
    make, extension, colour = OPAQUE_KINDS[kind]
    path = write(tmp_path / f"a.{extension}", make())
    picture = read_picture(path)
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8  # opaque alpha counts as none
    with caplog.at_level(logging.INFO, "dg"):
        rgba = load_rgba(path)
    assert f"{path}: no alpha: background removed by" in caplog.text and "pass a picture with alpha" in caplog.text
    truth = np.zeros((96, 96), bool)
    truth[24:72, 30:66] = True
    assert ((rgba[..., 3] > 127) != truth).mean() < 0.01
    assert np.abs(rgba[48, 48, :3].astype(int) - colour).max() <= 10


def test_exif_orientation_is_applied(tmp_path):
    image = on_grey()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    path = write(tmp_path / "a.png", image.crop((0, 0, 96, 60)), exif=exif)
    expected = np.rot90(np.asarray(image.crop((0, 0, 96, 60))), -1)
    np.testing.assert_array_equal(read_picture(path), expected)


def test_an_embedded_profile_is_converted(tmp_path):
    """A profile whose red and blue primaries are swapped: converted colours swap, too."""
    swapped = io.BytesIO(bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()))
    data = bytearray(swapped.getvalue())
    red, blue = data.find(b"rXYZ"), data.find(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    description = data.find("sRGB".encode("utf-16-be"))
    data[description : description + 8] = "swap".encode("utf-16-be")
    rgba = cut()
    out = read_picture(write(tmp_path / "a.png", rgba, icc_profile=bytes(data)))
    assert np.abs(out[32, 32].astype(int) - (*COLOUR[::-1], 255)).max() <= 3
    np.testing.assert_array_equal(out[..., 3], rgba[..., 3])


def test_a_broken_profile_is_ignored_and_said(tmp_path, caplog):
    out = read_picture(write(tmp_path / "a.png", cut(), icc_profile=b"nonsense"))
    np.testing.assert_array_equal(out[32, 32], (*COLOUR, 255))
    assert "colour profile" in caplog.text


def test_the_first_frame_of_an_animation_with_a_warning(tmp_path, caplog):
    frames = [Image.fromarray(cut()), Image.fromarray(cut(box=(0, 10, 0, 10)))]
    path = write(tmp_path / "a.png", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_picture(path)[..., 3], cut()[..., 3])
    assert "2 frames" in caplog.text


def test_one_pixel(tmp_path):
    path = write(tmp_path / "a.png", np.array([[[10, 20, 30, 200]]], np.uint8))
    rgba = load_reference(path, size=10).rgba[0]
    assert int((rgba[..., 3] > 0).sum()) == 64 and float(rgba[5, 5, 3]) == pytest.approx(200 / 255, abs=1e-5)
    with pytest.raises(ValueError, match=r"b\.png: has no alpha and 1x1 pixels are too few"):
        load_reference(write(tmp_path / "b.png", np.zeros((1, 1, 3), np.uint8)))


def test_large_pictures_are_reduced_before_matting(tmp_path, monkeypatch):
    seen = []

    def fake(rgb):
        seen.append(rgb.shape)
        return np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 200, np.uint8)], -1), "test"

    monkeypatch.setattr("dg.data.image.cut_out", fake)
    big = Image.new("RGB", (8000, 1000), (9, 90, 200))
    load_reference(write(tmp_path / "a.jpg", big), size=64)
    load_reference(write(tmp_path / "a.png", big), size=64)
    assert seen == [(128, 1024, 3)] * 2
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    assert reduced(picture, 90) is picture
    means = picture.reshape(20, 3, 30, 3, 3).mean((1, 3))
    np.testing.assert_allclose(reduced(picture, 30), means, atol=0.51)


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_every_mistake_is_one_line(tmp_path):
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)).save(png, "PNG")
    files = {
        "empty.png": (b"", "is empty"),
        "cut.png": (png.getvalue()[:-3000], "damaged or cut short"),
        "head.png": (png.getvalue()[:20], "damaged or cut short"),
        "text.png": (b"hello, this is text", "not a picture that can be read"),
        "photo.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "a HEIC photo"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            load_reference(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"missing\.png: no such file"):
        load_reference(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="is a folder"):
        load_reference(tmp_path)
    for recenter in (True, False):
        with pytest.raises(ValueError, match="fully transparent"):
            load_reference(write(tmp_path / "clear.png", np.zeros((8, 8, 4), np.uint8)), recenter=recenter)
    with pytest.raises(ValueError, match=r"plain\.png: has no alpha and no object stands out"):
        load_reference(write(tmp_path / "plain.png", np.full((40, 40, 3), 100, np.uint8)))


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"border": 1.0}, {"elevation_deg": 91}, {"radius": 0}, {"fovy_deg": 180}, {"radius": float("nan")}],
)
def test_numbers_out_of_range(tmp_path, wrong):
    path = write(tmp_path / "a.png", cut())
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        load_reference(path, **wrong)


@slow_files
@given(
    data=st.binary(max_size=300),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF", b"BM"]),
)
def test_random_bytes(tmp_path, data, head):
    path = tmp_path / "a.bin"
    path.write_bytes(head + data)
    try:
        picture = read_picture(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert picture.dtype == np.uint8 and picture.ndim == 3


@slow_files
@given(
    cut_at=st.integers(0, 400),
    flip=st.integers(0, 400),
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]),
)
def test_damaged_files(tmp_path, cut_at, flip, kind):
    buffer = io.BytesIO()
    on_grey(side=32).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    data[flip % len(data)] ^= 0x55
    path = tmp_path / "a.bin"
    path.write_bytes(data[: max(1, len(data) - cut_at)])
    try:
        read_picture(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@slow_files
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "PA", "YCbCr", "HSV", "LAB"]),
    h=st.integers(1, 24),
    w=st.integers(1, 24),
    seed=st.integers(0, 9),
    recenter=st.booleans(),
)
def test_small_pictures_of_every_mode(tmp_path, mode, h, w, seed, recenter):
    rng = np.random.default_rng(seed)
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray((rng.random((h, w)) * 60000).astype(kind))
    else:
        rgba = Image.fromarray(rng.integers(0, 256, (h, w, 4), np.uint8))
        image = rgba if mode in ("RGBA", "LA", "PA") else rgba.convert("RGB")
        image = {"PA": lambda i: i.convert("P").convert("PA"), "LAB": to_lab}.get(mode, lambda i: i.convert(mode))(
            image
        )
    path = tmp_path / ("a.png" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "a.tiff")
    try:
        image.save(path)
    except OSError:
        path = write(tmp_path / "a.png", image.convert("RGBA"))
    assert read_picture(path).shape[:2] == (h, w)
    try:
        rgba = load_reference(path, size=24, recenter=recenter).rgba
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert rgba.shape == (1, 24, 24, 4) and bool(torch.isfinite(rgba).all())
        assert float(rgba.min()) >= 0 and float(rgba.max()) <= 1


def to_lab(image):
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return ImageCms.applyTransform(image, transform)


# Captions -------------------------------------------------------------------------------------------------------------


def test_captions(tmp_path):
    picture = write(tmp_path / "cat_rgba.png", cut())
    assert caption_for(picture) is None
    (tmp_path / "cat_caption.txt").write_text("a cat,\n wooden ", encoding="utf-8-sig")
    assert caption_for(picture) == "a cat, wooden"
    assert caption_for(write(tmp_path / "dog.png", cut())) is None  # the original opens the picture as text here
    (tmp_path / "cat_caption.txt").write_bytes(b"\xff\xfe\xe9")
    with pytest.raises(ValueError, match=r"cat_caption\.txt: not UTF-8"):
        caption_for(picture)


@pytest.mark.skipif(not IMAGES.is_dir(), reason="reference pictures (../shared) are not here")
def test_a_true_front_view_stays_in_place():
    path = IMAGES / "spot_view.png"
    truth = np.asarray(Image.open(path))
    rgba = load_reference(path, recenter=False, size=512).rgba[0].numpy()
    visible = truth[..., 3] > 0
    assert np.abs(rgba[visible] * 255 - truth[visible]).max() < 0.01
    assert (rgba[~visible][:, 3] == 0).all()
