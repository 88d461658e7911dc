"""docs/densify.md names every rule, its example works; experiments and ablations of densification compose."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
import torch

from dg.core.densify import Statistics
from dg.core.rng import generator
from tests.config.test_groups import CONF, composed, picture  # noqa: F401 - a fixture
from tests.config.test_options_docs import example, options, rows
from tests.unit.test_densify import raw_with

EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))
ABLATIONS = sorted(p.stem for p in (CONF / "ablation").glob("*.yaml"))


def test_the_page_names_every_rule_with_its_source() -> None:
    assert set(rows("densify")) == options("densify")
    for option, row in rows("densify").items():
        comment = (CONF / "densify" / f"{option}.yaml").read_text().splitlines()[0]
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", comment):
            assert number in row[-1], (option, number)


def test_the_example(tmp_path: Path) -> None:
    rule = example("densify", tmp_path).HalveOnce(at=7)
    raw, stats = raw_with([0.1] * 5, [0.1, 0.9, 0.5, 0.2, 0.7]), Statistics.zeros(5)
    assert rule.edit(6, 100, raw, stats, generator(0, "e")) is None and rule.penalty(raw) is None
    result = rule.edit(7, 100, raw, stats, generator(0, "e"))
    assert result.edit.keep.tolist() == [False, True, True, False, True] and result.prunes == 2
    assert rule.final(raw, stats).edit.keep.equal(torch.ones(5, dtype=torch.bool)) and not rule.gathers(7)


@pytest.mark.parametrize(
    ("experiment", "ablation"), [*product(EXPERIMENTS, ["no_densify"]), *product(["release"], ABLATIONS)]
)
def test_every_ablation_composes_with_every_experiment(picture: Path, experiment: str, ablation: str) -> None:  # noqa: F811
    config = composed(picture, f"experiment={experiment}", f"ablation={ablation}")
    if ablation == "no_densify":
        assert config["densify"] == {"_target_": "dg.core.densify.NoDensity"}


def test_the_experiments_numbers(picture: Path) -> None:  # noqa: F811
    """B.4 and B.5 of the facts about DreamGaussian: today's release against the first."""
    release, first = (composed(picture, f"experiment={name}")["densify"] for name in ("release", "first_release"))
    changed = {k for k in release if release[k] != first[k]}
    assert changed == {"percent_dense", "extent", "grad_threshold"}
    assert release["percent_dense"] * release["extent"] == pytest.approx(0.04)
    assert first["percent_dense"] * first["extent"] == pytest.approx(0.05) == first["prune_scale"] * first["extent"]
    assert (release["grad_threshold"], first["grad_threshold"]) == (0.01, 0.5)
    for numbers in (release, first):
        assert numbers["opacity_reset_interval"] == 700 and not numbers["spare_last_interval"]


def test_a_rule_is_wrapped_by_name(picture: Path) -> None:  # noqa: F811
    config = composed(picture, "densify=no_floaters", "densify@densify.rule=mcmc", "densify.rule.growth=0.1")["densify"]
    assert config["rule"]["_target_"].endswith("MCMCDensity") and config["rule"]["growth"] == 0.1
