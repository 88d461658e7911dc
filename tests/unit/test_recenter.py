import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dg.data.recenter import Box, bounding_box, placement, recentred, resampled, squared, weights


def opaque(h, w, colour=(200, 100, 50)):
    return np.broadcast_to(np.array([*colour, 255], np.uint8), (h, w, 4)).copy()


@pytest.mark.parametrize(
    ("box", "expected"),
    [((199, 59), (204, 60, 26, 98)), ((99, 199), (101, 204, 77, 26))],  # spec G.1, size 256, border 0.2
)
def test_placement_of_the_specification(box, expected):
    assert placement(*box, 256, 0.2) == expected


def test_the_longer_side_is_204_for_every_height():
    """int() instead of rounding gives the original 203 for 21, 42, 47, 84, ..."""
    assert [int(h * (204 / h)) for h in (21, 42, 47, 84)] == [203] * 4
    for h in range(1, 1000):
        assert placement(h, 1, 256)[0] == 204
        assert placement(1, h, 256)[1] == 204


def test_the_box_includes_its_last_row_and_column():
    alpha = np.zeros((256, 256), np.uint8)
    alpha[20:220, 50:110] = 255  # rows 20..219: the original calls that 199 x 59
    box = bounding_box(alpha)
    assert (box.top, box.bottom, box.left, box.right) == (20, 220, 50, 110)
    assert placement(box.height, box.width, 256) == (204, 61, 26, 97)  # 60 * 204 / 200 = 61.2; with 199 x 59: 60 at 98
    alpha[:] = 0
    alpha[7, 9] = 255
    assert bounding_box(alpha) == Box(7, 8, 9, 10)


def test_the_threshold_ignores_dust():
    alpha = np.zeros((40, 40), np.uint8)
    alpha[10:30, 10:30] = 255
    alpha[0, 0], alpha[39, 5] = 4, 30
    assert bounding_box(alpha) == Box(10, 40, 5, 30)
    assert bounding_box(alpha, 0.0) == Box(0, 40, 0, 30)
    assert bounding_box(alpha, 0.2) == Box(10, 30, 10, 30)
    assert bounding_box(alpha / np.float32(255), 0.2) == Box(10, 30, 10, 30)
    with pytest.raises(ValueError, match="opaque"):
        bounding_box(alpha, 1.0)


@pytest.mark.parametrize(("size", "border"), [(0, 0.2), (256, 1.0), (256, -0.1), (256, float("nan"))])
def test_impossible_frames(size, border):
    with pytest.raises(ValueError, match=r"size|border"):
        placement(10, 10, size, border)


@settings(max_examples=60)
@given(
    h=st.integers(1, 90),
    w=st.integers(1, 90),
    size=st.integers(1, 80),
    border=st.floats(0, 0.95),
    pad=st.integers(0, 9),
)
def test_recentred_fills_its_frame_and_is_centred(h, w, size, border, pad):
    picture = np.zeros((h + 2 * pad, w + pad, 4), np.uint8)
    picture[pad : pad + h, :w] = opaque(h, w)
    out = recentred(picture, size, border)
    rows, columns = np.flatnonzero(out[..., 3].max(1) > 1e-3), np.flatnonzero(out[..., 3].max(0) > 1e-3)
    for found, before in ((rows, h), (columns, w)):
        n = found[-1] - found[0] + 1
        assert n <= max(1, int(size * (1 - border) + 1e-6))
        assert abs(found[0] + found[-1] + 1 - size) <= 1  # centred to half a pixel
        assert n == max(1, int(before * max(1, int(size * (1 - border) + 1e-6)) / max(h, w) + 0.5))
    inside = out[..., 3] > 0.5
    if inside.any():
        straight = out[inside][:, :3] / out[inside][:, 3:]
        np.testing.assert_allclose(straight, np.broadcast_to(np.array([200, 100, 50]) / 255, straight.shape), atol=2e-3)


def slow_area(values, start, stop, n):
    """The definition: each output pixel's mean over 240 points of the piecewise constant input."""
    points = start + (stop - start) * (np.arange(n * 240) + 0.5) / (n * 240)
    cell = np.floor(points).astype(int)
    inside = (cell >= 0) & (cell < len(values))
    return np.where(inside, values[cell.clip(0, len(values) - 1)], 0).reshape(n, 240).mean(1)


@pytest.mark.parametrize(
    ("length", "start", "stop", "n"), [(37, 0, 37, 10), (37, 3, 30, 9), (10, -5.5, 15.5, 7), (8, 0, 8, 8)]
)
def test_shrinking_is_the_area_mean(length, start, stop, n):
    values = np.random.default_rng(0).random(length)
    np.testing.assert_allclose(weights(start, stop, length, n) @ values, slow_area(values, start, stop, n), atol=5e-3)


def test_growing_is_linear_and_keeps_the_border():
    ramp = np.arange(6, dtype=np.float32)
    out = weights(0, 6, 6, 24) @ ramp
    centres = (np.arange(24) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(out, centres.clip(0, 5), atol=1e-6)


def test_same_size_is_the_identity():
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 4), np.uint8)
    picture[..., 3] = 255
    np.testing.assert_array_equal(np.round(resampled(picture, Box(0, 20, 0, 30), 20, 30) * 255), picture)


def test_hidden_colours_have_no_part_in_means():
    a, b = opaque(64, 64), opaque(64, 64)
    for picture, hidden in ((a, (255, 0, 255)), (b, (0, 0, 0))):
        picture[:, ::3] = (*hidden, 0)
    one, two = (resampled(p, Box(0, 64, 0, 64), 20, 20) for p in (a, b))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(
        one[..., :3] / one[..., 3:], np.broadcast_to(np.array([200, 100, 50]) / 255, (20, 20, 3)), atol=1e-5
    )


@pytest.mark.parametrize(("h", "w"), [(40, 20), (20, 40), (41, 20), (7, 64)])
def test_squared_pads_and_never_distorts(h, w):
    out = squared(opaque(h, w), 64)
    scale = 64 / max(h, w)
    assert out[..., 3].sum() == pytest.approx(h * w * scale**2, rel=1e-4)
    rows, columns = out[..., 3].sum(1), out[..., 3].sum(0)
    centre = lambda m: ((np.arange(64) + 0.5) * m).sum() / m.sum()  # noqa: E731
    assert centre(rows) == pytest.approx(32, abs=1e-3)
    assert centre(columns) == pytest.approx(32, abs=1e-3)


def test_strips_do_not_show(monkeypatch):
    picture = np.random.default_rng(2).integers(0, 256, (50, 70, 4), np.uint8)
    whole = resampled(picture, Box(3, 47, 2, 66), 20, 30)
    monkeypatch.setattr("dg.data.recenter.STRIP_VALUES", 1000)
    np.testing.assert_allclose(resampled(picture, Box(3, 47, 2, 66), 20, 30), whole, atol=1e-6)
