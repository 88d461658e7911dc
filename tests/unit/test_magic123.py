"""Several priors at once: the sum of their losses, each with its own weight, guidance and range of t."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dg.core.camera import orbit
from dg.core.distill import SDS
from dg.core.rng import generator
from dg.io.mesh import load_mesh
from dg.priors.magic123 import Magic123, Member, members, stable_diffusion_member, zero123_member
from dg.priors.point import PointPrior
from dg.runtime.build import build, check
from dg.runtime.errors import UserError
from dg.runtime.manifest import Manifest
from dg.stages.score import Score
from dg.stages.views import NovelView
from dg.types import Reference
from tests import tiny_checkpoints
from tests.runs import BARE, run, series

CAMERAS = orbit([0], [30], 2.0, height=64)


def test_the_loss_is_the_weighted_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against each prior alone, at other guidance, weight and t."""
    small, large = PointPrior(image_size=16), PointPrior(image_size=32, blur_px=1.0, noise=0.3)
    parts = {"a": Member(small, 2.0, None, 0.0, 0.1), "b": Member(large, 0.5, 7.0, 0.6, 0.7, prompted=False)}
    rgb = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    asked = []
    for member in parts.values():
        condition = member.prior.condition
        monkeypatch.setattr(
            member.prior, "condition", lambda r, p, c, b, own=condition: (asked.append(p), own(r, p, c, b))[1]
        )
    score = Score(
        prior=Magic123(parts=parts),
        distill=SDS(weight=3.0, guidance_scale=5.0),
        anneal=lambda frac, draw, steps: 500,
        reference=Reference(torch.rand(1, 64, 64, 4), orbit(0, 0, 2.0, height=64)),
        prompt="a cat",
        seed=4,
    )
    novel = NovelView(SimpleNamespace(rgb=rgb), CAMERAS, torch.ones(1, 3))
    loss, logs = score.loss(9, 0.5, novel)
    (got,) = torch.autograd.grad(loss, rgb)
    assert asked == ["a cat", None]
    expected, values = torch.zeros_like(rgb), {}
    for (name, member), t, scale in zip(parts.items(), (100, 600), (5.0, 7.0), strict=True):
        z = member.prior.encode(rgb.permute(0, 3, 1, 2))
        condition = member.prior.condition(score.reference, None, CAMERAS, torch.ones(1, 3))
        eps = torch.randn(z.shape, generator=generator(4, f"noise/{name}", 9))
        distill = replace(score.distill, weight=3.0 * member.weight, guidance_scale=scale)
        one = distill.loss(
            lambda z_t, t_, m=member, c=condition: m.prior.predict(z_t, t_, c),
            z,
            torch.tensor([t]),
            eps,
            member.prior.alpha_bar,
        )
        values[f"loss/score_{name}"] = one.item()
        expected += torch.autograd.grad(one, rgb)[0]
    torch.testing.assert_close(got, expected)
    assert {k: float(v) for k, v in logs.items() if k in values} == pytest.approx(values)
    assert expected.abs().sum() > 0


def test_a_prior_alone_is_its_only_member() -> None:
    prior = PointPrior(image_size=16)
    (only,) = members(prior).values()
    assert members(prior).keys() == {""} and only == Member(prior) and [only.timestep(t) for t in (0, 999)] == [0, 999]


def test_members_are_checked_strictly(tmp_path: Path) -> None:
    node = {
        "_target_": "dg.priors.magic123.zero123_member",
        "checkpoint": "x",
        "weight": 1.0,
        "profile": {},
        "about": {},
    }
    check(node, "prior.parts.zero123")
    for key, value, message in [
        ("wieght", 1.0, "prior.parts.zero123.wieght is no option .*; did you mean weight"),
        ("weight", "much", "prior.parts.zero123.weight=much must be a number"),
        ("pose", "other", "pose=other must be one of zero123, stable_zero123"),
    ]:
        with pytest.raises(UserError, match=message):
            check(node | {key: value}, "prior.parts.zero123")
    folder = str(tiny_checkpoints.zero123(tmp_path))
    with pytest.raises(ValueError, match="0 <= t_min <= t_max <= 1"):
        zero123_member(checkpoint=folder, t_min=0.7, t_max=0.2)
    with pytest.raises(ValueError, match="at least one"):
        Magic123(parts={})


def test_a_members_missing_weights_name_the_members_own_key(tmp_path: Path) -> None:
    node = {"_target_": "dg.priors.magic123.zero123_member", "checkpoint": str(tmp_path)}
    with pytest.raises(UserError, match=r"prior\.parts\.zero123\.checkpoint=.* not found there"):
        build({"_target_": "dg.priors.magic123.Magic123", "parts": {"zero123": node}}, "prior")


def test_a_picture_and_a_prompt_become_a_mesh(tmp_path: Path) -> None:
    checkpoints = {"zero123": tiny_checkpoints.zero123(tmp_path / "z"), "sd": tiny_checkpoints.sd(tmp_path / "s")}
    wanted = [*BARE, "prior=magic123", "prompt=a red robot", "prior.parts.zero123.image_size=64", "iters=2"]
    wanted += [f"prior.parts.{name}.checkpoint={folder}" for name, folder in checkpoints.items()]
    picture = Path(__file__).resolve().parents[2] / "examples" / "robot.png"
    made = run(tmp_path, [*wanted, f"input={picture}", "refine.size=64", "name=run"])
    assert len(load_mesh(made / "mesh.glb").faces) > 0
    facts = Manifest.load(made).prior
    assert facts["prior"] == "Magic123" and facts["parts"]["sd"]["checkpoint"] == str(checkpoints["sd"])
    assert facts["parts"]["zero123"]["licence"] == "MIT"
    first = series(made)[0]
    both = first["train/loss/score_zero123"], first["train/loss/score_sd"]
    assert min(both) > 0 and first["train/loss/score"] == pytest.approx(sum(both), rel=1e-5)
    prior = Magic123(
        parts={
            "zero123": zero123_member(checkpoint=str(checkpoints["zero123"]), image_size=64),
            "sd": stable_diffusion_member(checkpoint=str(checkpoints["sd"])),
        }
    )
    assert prior.image_size == 64 and prior.condition(
        Reference(torch.rand(1, 64, 64, 4), orbit(0, 0, 2.0, height=64)), "a cat", CAMERAS, torch.ones(1, 3)
    ).extra.latent.shape == (1, 4, 8, 8)
