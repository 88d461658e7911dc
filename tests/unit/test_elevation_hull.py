"""The elevation of a picture from views that a prior turns about the vertical it sees: an exact prior of that kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dg.core.camera import orbit, spherical
from dg.core.diffusion import per_sample, scaled_linear_alpha_bar
from dg.core.rng import generator
from dg.data.objects import make, picture
from dg.io.images import write_png
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_colours
from dg.runtime import compose, launch
from dg.runtime.errors import UserError
from dg.runtime.manifest import Manifest
from dg.stages.elevation import search
from dg.stages.elevation_hull import alpha_on_white, error_of_hulls, hull_error, told
from dg.types import Condition, Prediction, Reference
from tests.runs import BARE, CONF


class Turned:
    """Knows views of a mesh relative to a picture taken at `true` degrees, as Zero123 would with perfect weights.

    `wobble`: each view scaled by up to so much, and shifted by 0.6 of that, at random.
    """

    views_per_sample, image_size, relative_views = 1, 64, True

    def __init__(self, mesh, true: float, wobble: float = 0.0) -> None:
        self.mesh, self.true, self.wobble = mesh, true, wobble
        self.alpha_bar = scaled_linear_alpha_bar()

    def condition(self, reference, prompt, cameras, background):
        (e, a, r), (e0, a0, _) = spherical(cameras), spherical(reference.cameras)
        half = 2 * float(torch.rad2deg(torch.atan(cameras.height / (2 * cameras.K[0, 1, 1]))))
        seen = orbit((self.true + e - e0).tolist(), (a - a0).tolist(), float(r[0]), fovy_deg=half, height=64)
        rgb, _ = render_colours(self.mesh, seen, CpuMeshRasterizer(), torch.ones(3), ssaa=2)
        return Condition(cameras, background, 2 * self._moved(rgb.permute(0, 3, 1, 2)) - 1)

    def _moved(self, rgb):
        draw = generator(0, "wobble")
        scale, shift = (2 * torch.rand(len(rgb), k, generator=draw) - 1 for k in (1, 2))
        turn = torch.eye(2)[None] * (1 + self.wobble * scale)[..., None]
        grid = F.affine_grid(torch.cat([turn, 0.6 * self.wobble * shift[..., None]], 2), list(rgb.shape), False)
        return 1 - F.grid_sample(1 - rgb, grid, align_corners=False)

    def encode(self, rgb):
        return 2 * F.interpolate(rgb, (64, 64), mode="bilinear", antialias=True) - 1

    def decode(self, z):
        return (z / 2 + 0.5).clamp(0, 1)

    def predict(self, z_t, t, cond):
        alpha_bar = per_sample(self.alpha_bar[t], z_t)
        return Prediction((z_t - alpha_bar.sqrt() * cond.extra) / (1 - alpha_bar).sqrt())


def reference(name: str, true: float) -> Reference:
    """Whoever loads the picture does not know its elevation: 0 is as good as any."""
    return Reference(picture(make(name), 128, true)[None], orbit(0.0, 0.0, 2.0, height=128))


@pytest.mark.parametrize(
    ("name", "true", "wobble"),
    [("robot", -33.0, 0.0), ("robot", -33.0, 0.05), ("robot", 12.0, 0.05), ("mug", -18.0, 0.05)],
)
def test_views_of_one_solid_tell_the_elevation(name: str, true: float, wobble: float) -> None:
    found = search(error_of_hulls(Turned(make(name), true, wobble), reference(name, true)))
    assert found.elevation_deg == pytest.approx(true, abs=9) and told(found.curve)


def test_a_ball_tells_nothing() -> None:
    """It looks the same from everywhere: the curve is flat."""
    line = torch.linspace(-1, 1, 64)
    disc = ((line[:, None] ** 2 + line**2).sqrt() < 0.5).float().expand(8, -1, -1)
    curve = {e: hull_error(disc, orbit(e, [45.0 * i for i in range(8)], 2.0, height=64)) for e in (-40.0, 0.0, 20.0)}
    assert not told(curve)


def test_nothing_of_consistent_silhouettes_is_uncovered_and_much_of_others() -> None:
    cameras = orbit(-20.0, [45.0 * i for i in range(8)], 2.0, height=64)
    _, alpha = render_colours(make("robot"), cameras, CpuMeshRasterizer(), torch.ones(3), ssaa=2)
    assert hull_error(alpha[..., 0], cameras) < 0.005
    assert hull_error(alpha[..., 0].flip(1), cameras) > 0.02


def test_alpha_of_white_parts_inside() -> None:
    rgb = torch.ones(1, 3, 20, 20)
    rgb[:, 1, 5:15, 5:15] = 0
    rgb[..., 8:12, 8:12] = 1  # a white window
    alpha = alpha_on_white(rgb)
    assert alpha[0, 10, 10] == 1 and alpha[0, 2, 2] == 0 and alpha.sum() == 100


class Shelf:
    """Hands out a prior that no config describes."""

    def __init__(self, prior: Any) -> None:
        self.prior = prior

    def get(self, config: Any, device: str, build: Any) -> Any:
        return self.prior


def test_a_run_records_what_it_found_and_refuses_what_it_cannot_tell(tmp_path: Path) -> None:
    from dg.runtime.pipeline import run

    write_png(tmp_path / "in.png", picture(make("robot"), 128, -20.0))
    wanted = [*BARE, "elevation=auto", "iters=1", "stages=[gaussians]", "init.num_points=60", "recenter=false"]
    wanted += [f"input={tmp_path / 'in.png'}", f"outdir={tmp_path}"]

    def go(name: str, prior: Any) -> Manifest:
        plain = launch.prepare(compose.compose(CONF, "train", [*wanted, f"name={name}"]), CONF)
        run(launch.Job(plain, "test", []), Shelf(prior))
        return Manifest.load(tmp_path / name)

    record = go("found", Turned(make("robot"), -20.0)).elevation
    assert record["elevation_deg"] == pytest.approx(-20, abs=9) and len(record["curve"]) >= 9

    class Empty(Turned):
        def decode(self, z):
            return torch.ones_like(z)  # nothing to be seen on any view

    with pytest.raises(UserError, match=r"elevation=auto finds nothing.*elevation=DEGREES"):
        go("nothing", Empty(make("robot"), -20.0))
