"""docs/loss.md names every loss with its source and weight, and its example works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from dg.core.gaussians import activate, ball
from dg.core.rng import generator
from dg.losses.terms import terms
from dg.losses.weighted import SplatLoss
from dg.runtime.build import build
from tests.config.test_options_docs import ROOT, example, options, rows


def test_the_page_names_every_loss_with_its_source_and_weight() -> None:
    listed = rows("loss")
    of_stage_2 = {key.removeprefix("refine=") for key in listed if "=" in key}
    assert of_stage_2 == {option for option in options("refine") if not option.startswith("_")}
    assert {key for key in listed if "=" not in key} == options("loss")
    for option, row in listed.items():
        if "=" in option:
            continue
        text = (ROOT / "conf" / "loss" / f"{option}.yaml").read_text()
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", text):
            assert number in row[-1], (option, number)
        weights = re.findall(r"weight: \D*?(\d+)", text)
        assert re.findall(r"\d+", row[2]) == weights, option
        if option != "image":
            assert ("growing" in row[2]) == ("ramp: true" in text or "reference_ramp" in text), option


def test_the_example(tmp_path: Path) -> None:
    module = example("loss", tmp_path)  # imported under the page's name, so the config's target is put right
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "loss.md").read_text(), re.DOTALL)
    node = yaml.safe_load(text)
    node["leash"]["_target_"] = node["leash"]["_target_"].replace("my_losses", module.__name__)
    losses = build(node, "loss")
    gaussians = activate(ball(generator(0, "example"), num_points=50, radius=1.0))
    (value,) = terms(losses, SplatLoss, 0.5, gaussians).values()
    beyond = [max(float(p.norm()) - 0.8, 0) ** 2 for p in gaussians.means]
    assert float(value) == pytest.approx(50 * sum(beyond) / 50, rel=1e-4) and float(value) > 0
    assert torch.isfinite(value)
