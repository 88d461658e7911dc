"""Several reference pictures: how they are asked for, which one a view is told of, and what the losses see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from dg.core.camera import orbit, spherical
from dg.data.image import load_reference, together
from dg.data.objects import make, picture
from dg.io.images import write_png
from dg.priors.nearest import nearest_reference
from dg.priors.zero123 import Zero123
from dg.priors.zero123_mini import Zero123Mini
from dg.runtime import pictures
from dg.runtime.errors import UserError
from dg.runtime.folder import config_hash
from dg.types import Reference
from tests import tiny_checkpoints
from tests.runs import BARE, exit_code_of, run, series


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A robot seen from the front, and from its side and a little above."""
    at, robot = tmp_path_factory.mktemp("in"), make("robot")
    views = {"front": (0.0, 0.0), "side": (-10.0, 90.0)}
    for name, (elevation, azimuth) in views.items():
        write_png(at / f"{name}.png", picture(robot, 128, elevation, azimuth))
    return [str(at / f"{name}.png") for name in views]


def asked(**keys: object) -> dict:
    return {"input": ["a.png", "b.png"], "elevation": 0, "azimuth": [0, 90], **keys}


def test_what_is_asked_for() -> None:
    Picture = pictures.Picture
    assert pictures.pictures(asked(elevation=[0, -10])) == [Picture("a.png", 0, 0), Picture("b.png", -10, 90)]
    assert pictures.pictures(asked(elevation=-20))[1] == Picture("b.png", -20, 90)
    assert pictures.pictures(asked(input="a.png", azimuth=0)) == [Picture("a.png", 0, 0)]
    assert pictures.pictures(asked(input="a.png", azimuth=[30], elevation=[5])) == [Picture("a.png", 5, 30)]
    assert pictures.pictures(asked(input=None, azimuth=0)) == []
    assert pictures.pictures(asked(input="a.png", azimuth=0, elevation="auto")) == [Picture("a.png", None, 0)]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"elevation": [0]}, r"elevation=\[0\] has 1 entries for 2 pictures; give one each"),
        ({"azimuth": [0, 90, 180]}, r"azimuth=\[0,90,180\] has 3 entries for 2 pictures"),
        ({"input": "a.png"}, r"azimuth=\[0,90\] has 2 entries for 1 picture;"),
        ({"azimuth": 0}, r"input names 2 pictures seen from one place; give azimuth=\[0,90,\.\.\]"),
        ({"azimuth": [0, 360]}, "seen from one place"),
        ({"elevation": [0, -95]}, r"elevation=-95 is outside -90\.\.90"),
        ({"elevation": [0, "up"]}, "up is no number of degrees"),
        ({"elevation": "auto"}, "elevation=auto is for one picture"),
        ({"input": []}, r"input=\[\] names no picture"),
    ],
)
def test_mistakes(keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pictures.pictures(asked(**keys))


def test_the_nearest_in_azimuth() -> None:
    references = orbit([0, -10, 5], [0, 90, -170], 2.0)
    views = orbit([40, 0, -30, 0, 10, 0, 0], [44, 46, 89, 180, -80, 45, -100], 2.0)
    assert nearest_reference(views, references).tolist() == [0, 1, 1, 2, 0, 0, 2]  # 45 lies between: the first


def two(files: list[str]) -> Reference:
    return together(
        [load_reference(files[0], azimuth_deg=0), load_reference(files[1], azimuth_deg=90, elevation_deg=-10)]
    )


def test_references_stand_where_they_were_seen_from(files: list[str]) -> None:
    both = two(files)
    elevation, azimuth, _ = spherical(both.cameras)
    torch.testing.assert_close(
        torch.stack([elevation, azimuth]), torch.tensor([[0.0, -10.0], [0.0, 90.0]]), atol=1e-3, rtol=0
    )
    assert both.rgba.shape == (2, 512, 512, 4) and not torch.equal(*both.rgba)
    assert both.source == Path(files[0])


@pytest.mark.parametrize("kind", ["zero123", "zero123_mini", "zero123_mini_guided"])
def test_each_view_is_told_of_its_nearest_reference(kind: str, files: list[str], tmp_path: Path) -> None:
    """The same as asking about each picture alone."""
    if kind == "zero123":
        prior = Zero123(checkpoint=str(tiny_checkpoints.zero123(tmp_path)), image_size=64)
    else:
        prior = Zero123Mini(unconditional=kind.endswith("guided"))
    both, angles, white = two(files), ([-20, 0, 10], [20, 100, 60]), torch.ones(3, 3)
    views = orbit(*angles, 2.0, height=64)
    z = torch.randn(prior.encode(torch.rand(3, 3, 64, 64)).shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([300, 500, 700])
    together_ = prior.predict(z, t, prior.condition(both, None, views, white))
    for i, r in enumerate((0, 1, 1)):
        alone = Reference(both.rgba[r : r + 1], both.cameras[[r]])
        one = slice(i, i + 1)
        answer = prior.predict(z[one], t[one], prior.condition(alone, None, views[one], white[one]))
        torch.testing.assert_close(together_.cond[one], answer.cond, atol=2e-4, rtol=1e-3)
        if answer.uncond is not None:
            torch.testing.assert_close(together_.uncond[one], answer.uncond, atol=2e-4, rtol=1e-3)


def test_a_run_from_two_pictures(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wanted = [*BARE, "prior=silhouette", "elevation=[0,-10]", "azimuth=[0,90]", "recenter=false", "iters=3", "name=two"]
    made = run(tmp_path, [*wanted, f"input=[{','.join(files)}]"])
    assert (made / "mesh.glb").is_file()
    config = yaml.safe_load((made / "config.yaml").read_text())
    assert config["input"] == files and config_hash(config) != config_hash(config | {"azimuth": [0, 80]})
    moved = Path(files[1]).with_name("moved.png")
    moved.write_bytes(Path(files[1]).read_bytes())
    assert config_hash(config) == config_hash(config | {"input": [files[0], str(moved)]})
    # The known view's loss is the mean over both: against each alone, before the first step has an effect
    losses = {}
    alike = [*BARE, "prior=silhouette", "recenter=false", "stages=[gaussians]", "iters=3", "init.radius=0.4"]
    for name, file, elevation, azimuth in (("a", files[0], 0, 0), ("b", files[1], -10, 90)):
        own = [f"input={file}", f"elevation={elevation}", f"azimuth={azimuth}", f"name={name}"]
        losses[name] = series(run(tmp_path, [*alike, *own]))[0]["train/loss/rgb"]
    again = run(tmp_path, [*alike, "elevation=[0,-10]", "azimuth=[0,90]", f"input=[{','.join(files)}]", "name=again"])
    mean = series(again)[0]["train/loss/rgb"]
    assert mean == pytest.approx((losses["a"] + losses["b"]) / 2, rel=1e-4)
    assert exit_code_of(tmp_path, [*BARE, f"input=[{files[0]},none.png]", "azimuth=[0,9]", "name=x"]) == 2
    assert "input=none.png: there is no such file" in capsys.readouterr().err
