"""Overlays change exactly what their files name, refuse to be mixed up, and docs/ablations.md lists them."""

from __future__ import annotations

import re
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest

from dg.runtime import compose, launch
from dg.runtime.ablation import Overlay, chosen_by, clash, leaves, read
from dg.runtime.errors import UserError
from tests.config import test_groups as groups
from tests.config.test_groups import CONF, ROOT, picture  # noqa: F401 - a fixture

OVERLAYS = {path.stem: read(path) for path in sorted((CONF / "ablation").glob("*.yaml"))}
ASKING = [name for name in OVERLAYS if name != "none"]
SOURCE = r"arXiv \d{4}\.\d{5}|OpenReview \w+|[\w-]+/[\w-]+#\d+|pull request \d+|[Tt]he release"


def composed(picture: Path, *overrides: str) -> dict[str, Any]:  # noqa: F811
    """With a prior whose profile leaves every group as train.yaml has it."""
    return groups.composed(picture, "prior=silhouette", *overrides)


def changed(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """The leaf keys with another value, or on one side only."""

    def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
        return found

    x, y, missing = flat(a), flat(b), object()
    return {key for key in x.keys() | y.keys() if x.get(key, missing) != y.get(key, missing)}


@pytest.fixture(scope="module")
def plain(picture: Path) -> dict[str, Any]:  # noqa: F811
    return composed(picture)


def named(overlay: Overlay, plain: dict[str, Any], picture: Path) -> set[str]:  # noqa: F811
    """What the file says: its keys, and what its options would change if they were chosen on the command line."""
    swapped = [changed(plain, composed(picture, f"{group}={option}")) for group, option in overlay.swaps.items()]
    return set(overlay.keys).union(*swapped)


@pytest.mark.parametrize("name", ASKING)
def test_it_changes_what_its_file_names_and_nothing_else(name: str, plain: dict[str, Any], picture: Path) -> None:  # noqa: F811
    expected = named(OVERLAYS[name], plain, picture)
    assert expected and changed(plain, composed(picture, f"ablation={name}")) == expected


def test_none_changes_nothing(plain: dict[str, Any], picture: Path) -> None:  # noqa: F811
    assert OVERLAYS["none"].swaps == {} and OVERLAYS["none"].keys == ()
    assert composed(picture, "ablation=none") == plain == composed(picture, "ablation=[none]")


@pytest.mark.parametrize("name", ASKING)
def test_it_says_what_it_asks_and_whose_question_it_is(name: str) -> None:
    about = OVERLAYS[name].about
    assert re.search(SOURCE, about), about
    assert "?" in about or about.startswith(("Our deviation, undone", "A shorter")), about


def test_two_that_change_the_same_are_refused_and_all_others_compose(picture: Path) -> None:  # noqa: F811
    refused = {pair for pair in combinations(ASKING, 2) if clash([OVERLAYS[x] for x in pair])}
    assert {("few_gaussians", "many_gaussians"), ("no_densify", "opacity_reset"), ("no_texture", "sds_texture")} <= {
        tuple(sorted(pair)) for pair in refused
    }
    assert ("no_anneal", "no_densify") not in refused and ("long_texture", "sds_texture") not in refused
    for pair in sorted(refused)[::7]:
        with pytest.raises(UserError, match=f"^ablation: {pair[0]} and {pair[1]} both change .*take one of them$"):
            composed(picture, f"ablation=[{','.join(pair)}]")


def test_their_order_does_not_matter(plain: dict[str, Any], picture: Path) -> None:  # noqa: F811
    names = ("no_anneal", "few_gaussians", "double_refine_noise")
    every = [composed(picture, f"ablation=[{','.join(order)}]") for order in permutations(names)]
    assert all(config == every[0] for config in every)
    assert changed(plain, every[0]) == set().union(*(named(OVERLAYS[name], plain, picture) for name in names))


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        (({"densify": "none"}, ()), ({}, ("densify.interval",)), "densify"),
        (({}, ("refine.loss.t_end_ratio",)), ({"refine": "sds"}, ()), "refine"),
        (({}, ("refine.lr",)), ({}, ("refine.lr",)), "refine.lr"),
        (({}, ("refine.lr",)), ({}, ("refine.lr_end",)), None),
        (({"densify": "none"}, ()), ({"anneal": "sqrt"}, ()), None),
    ],
)
def test_clashes_by_hand(a: tuple, b: tuple, what: str | None) -> None:
    one, other = Overlay("a", "", *a), Overlay("b", "", *b)
    assert clash([one, other]) == (("a", "b", what) if what else None)


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    head = "# @package _global_\n# Why?\n# Me.\ndefaults:\n  - override /loss: text\n  - _self_\n"
    file.write_text(f"{head}a:\n  b: 1\n  c: {{}}\nd: [1]\n")
    found = read(file)
    assert (found.name, found.about, dict(found.swaps)) == ("mine", "Why? Me.", {"loss": "text"})
    assert found.keys == ("a.b", "a.c", "d") == tuple(leaves({"a": {"b": 1, "c": {}}, "d": [1]}))
    file.write_text("defaults:\n  - /loss: text\n")
    with pytest.raises(ValueError, match="may only hold"):
        read(file)


def test_the_page_lists_every_overlay_with_its_keys_and_source() -> None:
    lines = (ROOT / "docs" / "ablations.md").read_text().splitlines()
    table = {c[0].strip("` "): c[1:] for c in (x.strip("|").split("|") for x in lines if x.startswith("| `"))}
    table.pop("ablation=")
    assert set(table) == set(ASKING)
    for name, (_, keys, source) in table.items():
        overlay = OVERLAYS[name]
        wanted = {f"{group}={option}" for group, option in overlay.swaps.items()} | set(overlay.keys)
        assert set(re.findall(r"`([\w.=]+)`", keys)) == wanted, name
        for number in re.findall(r"\d{4}\.\d{5}|#\d+|UyNXMqnN3c|pull request \d+", overlay.about):
            assert number in source, (name, number)


def test_the_pages_example(tmp_path: Path, picture: Path, plain: dict[str, Any]) -> None:  # noqa: F811
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ablations.md").read_text(), re.DOTALL)
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "narrow.yaml").write_text(text)
    config = compose.compose(
        CONF, "train", [f"input={picture}", "prior=silhouette", "ablation=[narrow,no_anneal]"], [str(tmp_path)]
    )
    found = launch.prepare(config, CONF)
    assert found["camera"]["min_elevation"] == 0.5 * plain["camera"]["min_elevation"] == -15
    overlay = read(tmp_path / "ablation" / "narrow.yaml")
    assert changed(plain, found) == {*overlay.keys, "anneal._target_"}
    (tmp_path / "ablation" / "narrower.yaml").write_text(text)
    config = compose.compose(CONF, "train", [f"input={picture}", "ablation=[narrow,narrower]"], [str(tmp_path)])
    with pytest.raises(UserError, match=r"narrow and narrower both change camera\.min_elevation"):
        launch.prepare(config, CONF)


def test_an_overlay_that_the_priors_profile_has_already_says_so(
    picture: Path,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = "ablation=no_anneal changes nothing: the profile of prior=zero123_mini has anneal=uniform"
    plain = groups.composed(picture, "prior=zero123_mini")
    assert groups.composed(picture, "prior=zero123_mini", "ablation=[no_anneal]") == plain
    assert [r.getMessage() for r in caplog.records] == [said]
    caplog.clear()
    composed(picture, "ablation=no_anneal")
    groups.composed(picture, "ablation=[no_densify,fast_anneal]")
    assert caplog.records == []


def test_a_profiles_options_yield_to_overlays_and_the_command_line(picture: Path) -> None:  # noqa: F811
    def anneal(*words: str) -> tuple[str, float]:
        node = groups.composed(picture, *words)["anneal"]
        return node["_target_"].rpartition(".")[2], node["t_max"]

    assert anneal() == ("UniformAnneal", 0.8)
    assert anneal("anneal=linear") == ("LinearAnneal", 0.8)
    assert anneal("anneal=linear", "anneal.t_max=0.98") == ("LinearAnneal", 0.98)
    assert anneal("ablation=fast_anneal") == ("LinearAnneal", 0.8)
    assert anneal("prior=silhouette") == ("LinearAnneal", 0.98)
    assert anneal("prior=zero123") == ("LinearAnneal", 0.98)


def test_what_a_priors_file_chooses(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [base, {net: small}, {override /anneal@_global_.anneal: uniform}, _self_]\n")
    assert chosen_by([tmp_path / "absent.yaml", file]) == {"anneal": "uniform"}
    file.write_text("weight: 1\n")
    assert chosen_by([file]) == chosen_by([tmp_path / "absent.yaml"]) == {}
