"""docs/priors.md says of each prior what its config says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import _public_table as measured
from dg.runtime import compose, options  # noqa: F401  options brings the configs' resolvers
from dg.runtime.build import locate

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "priors.md").read_text()
NAMES = sorted(p.stem for p in (ROOT / "conf" / "prior").glob("*.yaml") if not p.stem.startswith("_"))
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.partition(measured.BEGIN)[0].splitlines()
    if line.startswith("| `")
    and "`prior=`" not in line
    and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 9
}


def test_every_prior_has_a_row() -> None:
    assert sorted(name.strip("` ") for names in ROWS for name in names.split(",")) == NAMES


@pytest.mark.parametrize("name", ["zero123", "stable_zero123", "sd", "mvdream", "imagedream", "zero123_mini"])
def test_rows_say_what_the_config_says(name: str) -> None:
    own = ["task=text", "prompt=cat"] if name in ("sd", "mvdream") else []
    prior = compose.resolve(compose.compose(ROOT / "conf", "train", [f"prior={name}", *own]))["prior"]
    takes, hub, licence, gated, size, px, views, guidance = ROWS[f"`{name}`"]
    about = prior["about"]
    assert [licence, gated, float(size)] == [about["licence"], "yes" if about["gated"] else "no", about["download_gb"]]
    assert hub == (prior["checkpoint"] or "comes with the project").partition("@")[0]
    assert int(views) == locate(prior["_target_"], "prior").views_per_sample
    assert guidance == ("none" if name == "zero123_mini" else f"{prior['profile']['guidance_scale']:g}")
    assert ("prompt" in takes) == (name in ("sd", "mvdream", "imagedream"))
    if prior.get("image_size"):
        assert int(px) == prior["image_size"]


def test_the_page_has_a_place_for_what_is_measured() -> None:
    assert PAGE.index(measured.BEGIN) < PAGE.index(measured.END)
    table = PAGE[PAGE.index(measured.BEGIN) : PAGE.index(measured.END)]
    assert all(f"| `{name}` |" in table for name in measured.PRIORS)
