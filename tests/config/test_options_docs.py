"""docs/distill.md and docs/anneal.md: complete tables, true figures, working examples; README.md names all options."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from dg.core.diffusion import scaled_linear_alpha_bar
from dg.core.distill import SDS
from dg.core.rng import generator
from dg.runtime import compose
from dg.runtime.build import build
from tests.unit.test_distill_variants import normal, resting_point

ROOT = Path(__file__).resolve().parents[2]
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


def options(group: str) -> set[str]:
    return {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}


def rows(group: str) -> dict[str, list[str]]:
    """The table's lines by option, as cells."""
    lines = (ROOT / "docs" / f"{group}.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells if not row[0].endswith("=`")}


PAGES = {"prior": "priors", "refine": "loss", "ablation": "ablations", "protocol": "protocols"}
PAGES |= {group: group for group in ("distill", "anneal", "densify", "init", "loss", "mesh")}
UNCHANGED = ("none", "auto", "default", "csv", "tensorboard", "wandb", "fast", "anomaly", "profile", "trace")


def told(group: str) -> dict[str, str]:
    """Of the group's page, all options that stand in a table, with the last cell of their line."""
    lines = (ROOT / "docs" / f"{PAGES.get(group, 'options')}.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    found = [(name, cells[-1]) for cells in table for name in re.findall(r"`([\w=]+)`", cells[0])]
    if group in PAGES and group != "refine":
        return {name: source for name, source in found if "=" not in name}
    return {name.partition("=")[2]: source for name, source in found if name.startswith(f"{group}=")}


@pytest.mark.parametrize("group", sorted(compose.groups(ROOT / "conf") - {"sweep"}))
def test_every_option_of_every_group_stands_in_a_table_with_its_source(group: str) -> None:
    """sweep's page is sweeps/README.md (test_sweeps.py)."""
    listed = {name for name in options(group) if not name.startswith("_")}
    assert set(told(group)) == listed - ({"none"} if group == "ablation" else set())
    for option, source in told(group).items():
        assert source or option in UNCHANGED, f"{group}={option} has no source"


def test_the_readmes_table_leaves_no_option_out() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = readme[readme.index("| group | options |") :].split("\n\n")[0].splitlines()[2:]
    seen = set()
    for row in rows:
        groups, _, text = row.strip("| ").partition(" | ")
        for group in re.findall(r"`(\w+)`", groups):
            seen.add(group)
            shown = set(re.findall(r"`(\w+)`", text))
            if group != "ablation":  # five by name, the others' number
                missing = {o for o in options(group) if not o.startswith("_")} - shown
                assert missing <= ({"text"} if group == "loss" else {"none"} if group == "sweep" else set()), group
    overlays = options("ablation") - {"none"}
    (count,) = re.findall(r"the reviewers' (\w+):", readme)
    numbers = ["sixteen", "seventeen", "eighteen", "nineteen", "twenty", "twenty-one", "twenty-two"]
    assert numbers.index(count) + 16 == len(overlays) - 5
    assert seen >= set(PAGES) - {"protocol"}


def example(group: str, folder: Path) -> ModuleType:
    """The page's Python, imported as a user's module would be."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{group}.md").read_text(), re.DOTALL)
    (folder / f"{group}_example.py").write_text(code)
    spec = importlib.util.spec_from_file_location(f"{group}_example", folder / f"{group}_example.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def component(group: str, option: str):
    node = yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text())
    return build({k: v for k, v in node.items() if not str(v).startswith("${")}, group)


@pytest.mark.parametrize("group", ["distill", "anneal"])
def test_page_and_readme_name_every_option_with_its_source(group: str) -> None:
    assert set(rows(group)) == options(group)
    for option, row in rows(group).items():
        comment = (ROOT / "conf" / group / f"{option}.yaml").read_text().splitlines()[0]
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", comment):
            assert number in row[-1], (option, number)
    (line,) = [x for x in (ROOT / "README.md").read_text().splitlines() if x.startswith(f"| `{group}` |")]
    assert set(re.findall(r"`(\w+)`", line)) == options(group) | {group}


@pytest.mark.parametrize("option", sorted(options("anneal")))
def test_the_table_of_annealings(option: str) -> None:
    anneal, told = component("anneal", option), rows("anneal")[option][1]
    for i, frac in enumerate(FRACTIONS):
        expected = told.split(", ")[i] if "," in told else told
        if ".." in expected:
            draw = generator(0, option)
            ts = [anneal(frac, draw, 1000) for _ in range(3000)]
            lo, hi = map(int, expected.split(".."))
            assert lo <= min(ts) < lo + 5 and hi - 5 < max(ts) <= hi
        else:
            assert anneal(frac, generator(0, option), 1000) == int(expected)


@pytest.mark.parametrize("option", sorted(options("distill")))
def test_the_table_of_distillations(option: str) -> None:
    method, (_, needs, count, rests, _) = component("distill", option), rows("distill")[option]
    assert resting_point(method, 300) == pytest.approx(float(rests), abs=0.005)
    asked: list[int] = []

    def watched(z_t, t):
        asked.append(int(t))
        return replace(normal(z_t, t), own=torch.zeros_like(z_t))

    z, alpha_bar = torch.zeros(1, 1, 2, 2), scaled_linear_alpha_bar()
    method.loss(watched, z, torch.tensor([980]), z, alpha_bar)
    assert len(asked) == int(count.split()[-1])

    def conditional(z_t, t):
        return replace(normal(z_t, t), uncond=None, own=torch.zeros_like(z_t))

    if needs == "yes":
        with pytest.raises(ValueError, match=f"distill={option} "):
            method.loss(conditional, z, torch.tensor([980]), z, alpha_bar)
    else:
        assert torch.isfinite(method.loss(conditional, z, torch.tensor([980]), z, alpha_bar))


def test_the_figures_in_the_text() -> None:
    unguided = {m: resting_point(replace(component("distill", m), guidance_scale=1.0), 300) for m in ("sds", "sdi")}
    assert unguided == pytest.approx({"sds": 0.80, "sdi": 0.81}, abs=0.005)
    assert resting_point(component("distill", "csd"), 100) == pytest.approx(1.23, abs=0.005)


def test_the_example_of_a_distillation(tmp_path: Path) -> None:
    method = example("distill", tmp_path).ClippedSDS(limit=0.5, weighting="uniform", scale_to_elements=None)
    z, t = torch.linspace(-2, 2, 16).reshape(1, 1, 4, 4), torch.tensor([300])
    eps = torch.randn(z.shape, generator=generator(0, "example"))
    plain = SDS(weighting="uniform", scale_to_elements=None).gradient(normal, z, t, eps, scaled_linear_alpha_bar())
    bounded = method.gradient(normal, z, t, eps, scaled_linear_alpha_bar())
    assert plain.abs().max() > 0.5
    assert torch.equal(bounded, plain.clamp(-0.5, 0.5))


def test_the_example_of_an_annealing(tmp_path: Path) -> None:
    anneal = example("anneal", tmp_path).CosineAnneal()
    assert [anneal(frac, generator(0, "example"), 1000) for frac in (0.0, 0.5, 1.0)] == [980, 500, 20]
