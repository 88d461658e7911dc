"""docs/init.md and docs/mesh.md name every option with its source; their commands compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.config.test_groups import composed, picture  # noqa: F401 - a fixture
from tests.config.test_options_docs import ROOT, options, rows


def test_the_page_names_every_start_with_its_source() -> None:
    assert set(rows("init")) == options("init")
    for option, row in rows("init").items():
        for number in re.findall(r"arXiv\W+(\d{4}\.\d{5})", (ROOT / "conf" / "init" / f"{option}.yaml").read_text()):
            assert number in row[-1], (option, number)


def test_the_commands_compose(picture: Path) -> None:  # noqa: F811
    (block,) = re.findall(r"```\n(.*?)```", (ROOT / "docs" / "init.md").read_text(), re.DOTALL)
    for line in block.strip().splitlines():
        words = [w for w in shlex.split(line)[2:] if not w.startswith("input=")]
        config = composed(picture, *words)["init"]
        assert config["_target_"] == "dg.data.init_points.point_cloud" and config["file"] in line
        assert config["up"] == ("z" if "shape_e" in line else "y")


def test_the_page_names_every_mesh() -> None:
    assert set(rows("mesh")) == options("mesh")
