"""Strict building: what is wrong is named, with the nearest right thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from dg.runtime.build import build, check, inert, locate, nearest
from dg.runtime.errors import UserError

HERE = __name__


@dataclass
class Wheel:
    radius: float = 1.0
    kind: Literal["wood", "steel"] = "wood"
    spokes: int | None = None


@dataclass
class Cart:
    wheel: Wheel
    load: int
    names: list[str] = field(default_factory=list)
    gentle: bool = False

    def inert(self, iters: int) -> list[str]:
        return [f"load={self.load} is never reached in {iters} steps"] if self.load > iters else []


class Carrier:
    """Takes the block `profile` itself."""

    def __init__(self, profile: dict) -> None:
        self.profile = profile


def opens(path: str) -> str:
    raise FileNotFoundError(f"no weights at {path}; fetch them with `tool fetch`")


def anything(**options: object) -> dict[str, object]:
    return options


def node(name: str, **keys: object) -> dict[str, object]:
    return {"_target_": f"{HERE}.{name}", **keys}


def test_builds_children_first_and_keeps_plain_containers() -> None:
    cart = build(node("Cart", wheel=node("Wheel", radius=2), load=3, names=["a", "b"]), "cart")
    assert cart == Cart(Wheel(2), 3, ["a", "b"])
    both = build({"one": node("Wheel"), "two": {"x": 1}, "three": [node("Wheel", radius=5)]}, "set")
    assert both == {"one": Wheel(), "two": {"x": 1}, "three": [Wheel(5)]}


def test_given_arguments_win_and_count_as_present() -> None:
    wheel = Wheel(7)
    assert build(node("Cart", load=1), "cart", wheel=wheel).wheel is wheel
    assert build(node("Cart", load=1, wheel=node("Wheel")), "cart", wheel=wheel).wheel is wheel


def test_partial_leaves_the_rest_to_the_caller() -> None:
    make = build(node("Cart", _partial_=True, load=4), "cart")
    assert make(wheel=Wheel()) == Cart(Wheel(), 4)
    with pytest.raises(UserError, match=r"cart\.laod .*did you mean load"):
        build(node("Cart", _partial_=True, laod=4), "cart")


def test_profile_is_data_unless_the_constructor_wants_it() -> None:
    assert build(node("Wheel", profile={"guidance": 5}), "wheel") == Wheel()
    assert build(node("Carrier", profile={"guidance": 5}), "carrier").profile == {"guidance": 5}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (node("Wheel", raduis=1), r"wheel\.raduis is no option of .*Wheel; did you mean radius\?"),
        (node("Wheel", radius="wide"), r"wheel\.radius=wide must be a number"),
        (node("Wheel", spokes=1.5), r"wheel\.spokes=1\.5 must be a whole number or null"),
        (node("Wheel", spokes=True), r"wheel\.spokes=True must be"),
        (node("Wheel", kind="woood"), r"wheel\.kind=woood must be one of wood, steel; did you mean wood\?"),
        (node("Wheel", radius="???"), r"wheel\.radius has no value; give one with wheel\.radius="),
        (node("Cart"), r"wheel lacks wheel, load"),
        (node("Cart", wheel=node("Wheel", x=1), load=1), r"wheel\.wheel\.x is no option"),
        ({"_target_": f"{HERE}.Whel"}, r"has no Whel; did you mean Wheel\?"),
        ({"_target_": "dg.raster.dens.DenseRasterizer"}, r"wheel\._target_=.*dg\.raster has no dens"),
        ({"_target_": "nothing_like_this.Thing"}, r"there is no module nothing_like_this"),
        ({"_target_": f"{HERE}.HERE"}, "is not something that can be called"),
        ({"_target_": "???"}, r"wheel.* has no value"),
    ],
)
def test_mistakes_are_found_without_building(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(wrong, "wheel")


def test_right_values_pass() -> None:
    for good in (
        node("Wheel", radius=1),
        node("Wheel", spokes=None),
        node("Wheel", kind="steel"),
        node("anything", x=1),
    ):
        check(good, "wheel")


def test_a_constructors_complaint_is_the_users_with_the_key() -> None:
    with pytest.raises(UserError, match=r"^prior: no weights at w\.bin; fetch them"):
        build(node("opens", path="w.bin"), "prior")


def test_an_error_inside_a_constructor_that_is_a_bug_stays_one() -> None:
    with pytest.raises(TypeError):
        build(node("Cart", load=1, wheel=None, names=None) | {"_target_": f"{HERE}.explodes"}, "cart")


def explodes(load: int, wheel: None, names: None) -> None:
    raise TypeError("a bug")


def test_inert_values_are_reported_with_their_group() -> None:
    assert inert(Cart(Wheel(), 10), "cart", 5) == ["cart: load=10 is never reached in 5 steps"]
    assert inert(Cart(Wheel(), 10), "cart", 50) == []
    assert inert(Wheel(), "wheel", 5) == []


def test_nearest_names_one_or_lists_few() -> None:
    assert nearest("itres", ["iters", "seed"]) == "; did you mean iters?"
    assert nearest("qqq", ["iters", "seed", "_target_"]) == " (valid: iters, seed)"
    assert nearest("qqq", [f"key{i}" for i in range(100)]) == ""


def test_locate_finds_methods_of_classes() -> None:
    assert locate("collections.OrderedDict.fromkeys", "x")([1]) == {1: None}
