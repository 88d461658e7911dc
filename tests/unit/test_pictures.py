"""Pictures, videos and the overview."""

from __future__ import annotations

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from dg.eval.overview import Row, overview
from dg.io.images import read_png, to_uint8, write_png
from dg.io.video import write_mp4


def test_bytes_are_rounded_and_clamped() -> None:
    values = torch.tensor([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 127.6 / 255, 1.0, 2.0]).reshape(1, -1, 1)
    assert to_uint8(values).ravel().tolist() == [0, 0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_round_trip(tmp_path: Path, channels: int) -> None:
    picture = torch.randint(0, 256, (5, 7, channels), generator=torch.Generator().manual_seed(0)) / 255
    write_png(tmp_path / "a.png", picture)
    back = read_png(tmp_path / "a.png")
    assert torch.equal(back, picture if channels > 1 else picture.expand(-1, -1, 3))


def test_palettes_and_grey_with_alpha_become_colours(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("P").save(tmp_path / "p.png")
    assert read_png(tmp_path / "p.png").tolist() == [[[0, 0, 0], [1, 1, 1]]]
    Image.fromarray(np.array([[[255, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert read_png(tmp_path / "la.png").tolist() == [[[1, 1, 1, 0]]]


def test_video_keeps_count_size_and_colour(tmp_path: Path) -> None:
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    write_mp4(tmp_path / "a.mp4", (c.expand(33, 64, 3) for c in colours), 10)
    frames = [np.asarray(f) for f in imageio.get_reader(tmp_path / "a.mp4")]
    assert len(frames) == 3 and frames[0].shape == (32, 64, 3)  # the odd row is gone
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame.mean((0, 1)) / 255 - colour.numpy()).max() < 0.05


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def frames():
        yield torch.zeros(16, 16, 3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_mp4(tmp_path / "a.mp4", frames(), 10)
    assert list(tmp_path.iterdir()) == []


def test_every_picture_of_the_overview_stands_in_its_cell() -> None:
    tile, sides = 64, ("front", "back")
    colours = torch.tensor([[[0.8, 0.2, 0.2], [0.2, 0.8, 0.2]], [[0.2, 0.2, 0.8], [0.8, 0.8, 0.2]]])
    rows = [Row(name, "fact", [c.expand(32, 32, 3) for c in line]) for name, line in zip("ab", colours, strict=True)]
    sheet = overview("title", sides, rows, torch.full((10, 20, 3), 0.5), tile)

    def where(colour: torch.Tensor) -> tuple[float, float, int]:
        hits = ((sheet - colour).abs().amax(-1) < 0.02).nonzero().float()
        return *hits.mean(0).tolist(), len(hits)

    centres = torch.tensor([[where(c)[:2] for c in line] for line in colours])
    areas = [where(c)[2] for c in colours.flatten(0, 1)]
    assert all(area > 0.9 * (tile - 2) ** 2 for area in areas)
    assert torch.allclose(centres[0, :, 0], centres[0, :1, 0].expand(2), atol=1)  # a row is level
    assert torch.allclose(centres[:, 0, 1], centres[:1, 0, 1].expand(2), atol=1)  # a column is upright
    assert centres[1, 0, 0] > centres[0, 0, 0] + tile and centres[0, 1, 1] >= centres[0, 0, 1] + tile
    _, x, area = where(torch.tensor(0.5))
    assert (
        x < centres[0, 0, 1] and area > 0.9 * tile * tile / 2 * 0.9
    )  # the source keeps its shape: twice as wide as high


def test_the_overview_needs_no_source_and_cuts_long_titles() -> None:
    row = Row("splats", "", [torch.zeros(8, 8, 3)])
    assert overview("x" * 500, ["front"], [row], None, 32).shape[1] == 32 + 16
