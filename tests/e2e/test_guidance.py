"""preview.guidance_every: pictures of what the prior is shown and says, and nothing at all without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dg.core.camera import orbit
from dg.core.distill import SDS
from dg.io.images import read_png
from dg.io.ply import read_ply
from dg.priors.point import PointPrior
from dg.runtime.guidance import COLUMNS, around_grey, pictures
from dg.stages.score import Score
from dg.stages.views import NovelView
from tests.runs import BARE, run

STAGE = (*BARE, "stages=[gaussians]", "iters=4", "init.num_points=60", "preview.size=48")


def test_what_the_pictures_show() -> None:
    """A prior whose data is white left and black right, asked about grey: x0 is the data, the pull goes there."""
    target = torch.zeros(3, 8, 8)
    target[:, :, :4] = 1
    rgb = torch.full((1, 8, 8, 3), 0.5, requires_grad=True)
    score = Score(
        prior=PointPrior(target_rgb=target, image_size=8),
        distill=SDS(),
        anneal=lambda frac, draw, steps: 300,
        reference=None,
        prompt=None,
        seed=0,
    )
    score.looks = {}
    loss, _ = score.loss(1, 0.5, NovelView(SimpleNamespace(rgb=rgb), orbit(0, 0, 2.0, height=8), torch.ones(1, 3)))
    loss.backward()
    (look,) = score.looks.values()
    shown = pictures(look)
    assert tuple(shown) == COLUMNS and look.t == 300
    torch.testing.assert_close(shown["render"], torch.full((1, 3, 8, 8), 0.5))
    torch.testing.assert_close(shown["x0"][0], target, atol=1e-5, rtol=0)
    assert shown["gradient"][..., :4].min() > 0.9 and shown["gradient"][..., 4:].max() < 0.1
    a = score.prior.alpha_bar[300]
    assert (look.z_t - a.sqrt() * 0.5).std() == pytest.approx((1 - a).sqrt().item(), rel=0.2)


def test_no_change_is_grey() -> None:
    assert torch.equal(around_grey(torch.zeros(1, 3, 4, 4)), torch.full((1, 3, 4, 4), 0.5))


@pytest.mark.parametrize("more", [["prior=point", "distill=sdi"], ["prior=zero123_mini", "camera.batch_size=2"]])
def test_strips_in_the_folder_change_nothing_else(more: list[str], tmp_path: Path) -> None:
    plain = run(tmp_path, [*STAGE, *more, "name=plain"])
    watched = run(tmp_path, [*STAGE, *more, "name=watched", "preview.guidance_every=3"])
    made = sorted(watched.glob("guidance/*"))
    assert [path.name for path in made] == ["step_00003.png", "step_00004.png"]
    assert not (plain / "guidance").exists()
    views = 2 if "camera.batch_size=2" in more else 1
    height, width = read_png(made[0]).shape[:2]
    assert width > 4 * 48 and views * 48 < height < (views + 2) * 100
    assert torch.equal(read_ply(plain / "gaussians.ply").means, read_ply(watched / "gaussians.ply").means)


def test_tensorboard_gets_them(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = run(
        tmp_path, [*STAGE, "prior=point", "logger=tensorboard", "preview.guidance_every=2", "preview.log_every=0"]
    )
    place = next(folder.glob("tensorboard/version_*"))
    seen = events.EventAccumulator(str(place), size_guidance={"images": 0}).Reload()
    assert [image.step for image in seen.Images("train/guidance")] == [2, 4]
