"""conf/sweep, sweeps/wandb.yaml, the launchers' configs and sweeps/README.md: all that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from dg.runtime import compose, launch, sweep
from dg.runtime.errors import UserError
from dg.runtime.truth import PREFIX
from tests.runs import CONF

ROOT = Path(__file__).resolve().parents[2]


def test_wandbs_definition_makes_commands_that_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    """As W&B's agent does: the first value of every parameter; every option of those that are listed."""
    from wandb.sdk.launch.sweeps import utils

    asked = yaml.safe_load((ROOT / "sweeps" / "wandb.yaml").read_text())
    assert set(asked) == {"name", "program", "method", "metric", "parameters", "command"}
    assert asked["method"] in ("bayes", "grid", "random") and asked["metric"]["goal"] in ("maximize", "minimize")
    assert (ROOT / asked["program"]).is_file()
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    ranges = {k: v.get("values", [v.get("min"), v.get("max")]) for k, v in asked["parameters"].items()}
    for index in range(max(map(len, ranges.values()))):
        values = {k: {"value": v[min(index, len(v) - 1)]} for k, v in ranges.items()}
        words = utils.create_sweep_command_args({"args": values})
        words |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [asked["program"]]}
        line: list[str] = []
        for part in utils.create_sweep_command(list(asked["command"])):
            line += words[part[2:-1]] if re.fullmatch(r"\$\{\w+\}", part) else [part]
        assert line[:3] == ["/usr/bin/env", "python", "train.py"]
        config = launch.prepare(compose.compose(CONF, "train", line[3:]), CONF)
        assert config["name"] == "wandb/abc123" and config["objective"] == asked["metric"]["name"]
        assert config["densify"].get("rule", config["densify"])["grad_threshold"] in (0.002, 0.05)
    assert asked["metric"]["name"].startswith(PREFIX)


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF / "sweep").glob("*.yaml") if p.stem != "none"))
def test_every_value_of_a_sweep_composes(name: str) -> None:
    config = compose.compose(CONF, "train", [f"sweep={name}"])
    assert str(config.hydra.mode).endswith("MULTIRUN")
    groups = compose.groups(CONF)
    for override in compose.parse(sweep.params(config)):
        assert override.is_sweep_override(), override.input_line
        if override.key_or_group in groups:  # that each of them composes: tests/config
            options = list(override.sweep_string_iterator())
            assert len(options) > 1 and all((CONF / override.key_or_group / f"{o}.yaml").is_file() for o in options)
        else:
            assert OmegaConf.select(config, override.key_or_group) is not None, override.input_line


def test_every_overlay_is_in_a_sweep() -> None:
    listed = "".join((CONF / "sweep" / f"{name}.yaml").read_text() for name in ("ablations", "reviewers", "deviations"))
    for overlay in (CONF / "ablation").glob("*.yaml"):
        assert re.search(rf"\b{overlay.stem}\b", listed), overlay.stem


LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm", "ray")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_composes_or_says_what_it_needs(launcher: str) -> None:
    from importlib.util import find_spec

    package = {"joblib": "hydra_joblib_launcher", "ray": "hydra_ray_launcher", "basic": None}
    wanted = package.get(launcher, "hydra_submitit_launcher")
    if wanted is None or find_spec(f"hydra_plugins.{wanted}") is not None:
        config = compose.compose(CONF, "train", [f"hydra/launcher={launcher}"])
        assert launcher.partition("_")[0] in str(config.hydra.launcher._target_).lower()
        return
    name = wanted.replace("_", "-")
    with pytest.raises(UserError, match=f"hydra/launcher={launcher} needs the package {name}.*pip install {name}"):
        compose.compose(CONF, "train", [f"hydra/launcher={launcher}"])


def test_the_page_has_every_sweep_and_launcher() -> None:
    text = (ROOT / "sweeps" / "README.md").read_text()
    for name in (CONF / "sweep").glob("*.yaml"):
        assert name.stem == "none" or f"sweep={name.stem}" in text, name.stem
    for launcher in LAUNCHERS[1:]:
        assert f"hydra/launcher={launcher}" in text
    for line in re.findall(r"^    python train\.py (.+?)(?:\s+#.*)?$", text, re.MULTILINE):
        words = [w for w in line.split() if w != "-m"]
        parsed = [o for o in compose.parse(words) if not o.is_sweep_override() and "launcher" not in o.key_or_group]
        if parsed:
            compose.compose(CONF, "train", [o.input_line for o in parsed])
