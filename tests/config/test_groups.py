"""Every option of every group composes, and every key in it is one that its constructor takes."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from dg.runtime import compose, launch, options
from dg.runtime.build import check
from dg.runtime.errors import UserError
from dg.runtime.evaluation.options import EvaluateRoot

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
GROUPS = sorted(compose.groups(CONF))
OPTIONS = [
    (group, path.relative_to(CONF / group).with_suffix("").as_posix())
    for group in GROUPS
    for path in sorted((CONF / group).rglob("*.yaml"))
]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "cat.png"
    path.write_bytes(b"")
    return path


def composed(picture: Path, *overrides: str, script: str = "train") -> dict[str, Any]:
    given = [] if any(o.startswith("input=") for o in overrides) else [f"input={picture}"]
    root = {"train": options.Root, "evaluate": EvaluateRoot}[script]
    return launch.prepare(compose.compose(CONF, script, [*given, *overrides]), CONF, None, root)


def is_base(option: str) -> bool:
    """A file that others inherit from; it leaves a part to them."""
    return option.startswith("_")


def mandatory(group: str, option: str, picture: Path) -> list[str]:
    """Values for the keys that an option leaves to the user."""
    given = {("prior", "oracle"): ["prior.mesh=" + str(picture)], ("task", "text"): ["prompt=a cat"]}
    given[("prior", "oracle_blur")] = given[("prior", "oracle")]
    given |= {("init", name): ["init.file=points.ply"] for name in ("pointcloud", "shape_e")}
    return given.get((group, option), [])


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["/".join(o) for o in OPTIONS])
def test_option_composes_and_fits_its_constructor(group: str, option: str, picture: Path) -> None:
    override, script = f"{group}={option}", "train" if group in _defaults() else "evaluate"
    if is_base(option):
        with pytest.raises(UserError, match=f"{group}.*has no value"):
            composed(picture, override)
        return
    config = composed(picture, override, *mandatory(group, option, picture), script=script)
    for key in GROUPS:
        check(config.get(key), key)


def _defaults(script: str = "train") -> dict[str, Any]:
    listed = yaml.safe_load((CONF / f"{script}.yaml").read_text())["defaults"]
    return {k: v for entry in listed if isinstance(entry, dict) for k, v in entry.items() if "override" not in k}


def test_every_group_is_in_the_defaults_list() -> None:
    assert set(_defaults()) | set(_defaults("evaluate")) == set(GROUPS)
    assert set(_defaults("evaluate")) == {"protocol"}


def test_root_keys_are_described_once(picture: Path) -> None:
    config = composed(picture)
    assert set(config) - set(GROUPS) == {field.name for field in fields(options.Root)}
    text = (CONF / "train.yaml").read_text()
    documented = {
        "input",
        "prompt",
        "negative_prompt",
        "elevation",
        "recenter",
        "name",
        "outdir",
        "stages",
        "gaussians",
    }
    documented |= {"mesh_file", "iters", "iters_refine", "mesh_format", "seed", "device", "resume", "strict"}
    for key in documented:
        assert re.search(rf"^{key}:", text, re.MULTILINE), key


def test_every_key_of_a_profile_is_read_somewhere() -> None:
    readers = "".join(p.read_text() for p in CONF.rglob("*.yaml"))
    readers += "".join(p.read_text() for p in (ROOT / "dg").rglob("*.py"))
    for key in compose.profile_keys(CONF):
        pattern = rf"profile\.{key}\b|profile\W+{key}\b"
        assert re.search(pattern, readers), f"prior.profile.{key} is read by nothing"


@pytest.mark.parametrize(
    ("ablations", "changed"),
    [
        (["none"], set()),
        (["no_densify"], {"densify"}),
        (["no_anneal"], {"anneal"}),
        (["no_ref"], {"loss"}),
        (["no_texture"], {"refine"}),
        (["sds_texture"], {"refine"}),
        (["no_densify", "no_anneal"], {"densify", "anneal"}),
        (["no_densify", "no_anneal", "no_ref"], {"densify", "anneal", "loss"}),
    ],
    ids=lambda x: "+".join(sorted(x)),
)
def test_an_ablation_changes_what_it_names_and_nothing_else(
    picture: Path, ablations: list[str], changed: set[str]
) -> None:
    plain = composed(picture, "prior=silhouette")
    ablated = composed(picture, "prior=silhouette", f"ablation=[{','.join(ablations)}]")
    assert {key for key in plain if plain[key] != ablated[key]} == changed


def test_what_the_ablations_put_in_place(picture: Path) -> None:
    config = composed(picture, "ablation=[no_densify,no_anneal,no_ref]")
    assert config["densify"] == {"_target_": "dg.core.densify.NoDensity"}
    assert config["anneal"]["_target_"] == "dg.core.schedule.UniformAnneal"
    assert config["loss"] == {}


def test_one_ablation_needs_no_brackets_and_the_command_line_beats_it(picture: Path) -> None:
    assert composed(picture, "ablation=no_anneal") == composed(picture, "ablation=[no_anneal]")
    config = composed(picture, "ablation=no_anneal", "anneal=sqrt")
    assert config["anneal"]["_target_"] == "dg.core.schedule.SqrtAnneal"


def test_an_ablation_beats_an_experiment(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /anneal: sqrt\n  - override /densify: none\niters: 77\n"
    )
    config = compose.compose(
        CONF, "train", [f"input={picture}", "experiment=mine", "ablation=no_anneal"], [str(tmp_path)]
    )
    plain = launch.prepare(config, CONF)
    assert plain["iters"] == 77
    assert plain["anneal"]["_target_"] == "dg.core.schedule.UniformAnneal"
    assert plain["densify"]["_target_"] == "dg.core.densify.NoDensity"


def test_losses_of_stage_2_share_their_frame_and_stay_apart(picture: Path) -> None:
    mse, sds = composed(picture, "refine=mse")["refine"], composed(picture, "refine=sds")["refine"]
    assert {k: v for k, v in mse.items() if k != "loss"} == {k: v for k, v in sds.items() if k != "loss"}
    assert len(mse) == 9 and set(mse["loss"]) & set(sds["loss"]) == {"_target_"}
    assert composed(picture, "refine=none")["refine"] == {}


def test_loggers_compose(picture: Path) -> None:
    assert set(composed(picture, "logger=[csv,wandb]")["logger"]) == {"csv", "wandb"}
    assert composed(picture)["logger"] == {}


def test_the_example_picture_is_the_default(picture: Path) -> None:
    config = compose.compose(CONF, "train", [])
    assert compose.resolve(config)["input"] == str(ROOT / "examples" / Path(config.paths.example).name)
