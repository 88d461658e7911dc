"""The pages' recipes for a new option, followed to the letter: the module, the YAML file, the command line."""

from __future__ import annotations

import importlib
import math
import re
import shutil
import sys
from pathlib import Path

import pytest

from dg.io.ply import read_ply
from dg.runtime import compose, launch
from dg.runtime.pipeline import run as pipeline
from tests.runs import BARE, CONF, series

DOCS = CONF.parent / "docs"
LIMIT = 40  # lines of a worked example


@pytest.mark.parametrize("group", ["distill", "densify", "anneal"])
def test_the_recipe(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / f"{group}.md").read_text()
    recipe = page[page.index("## Add a") :]
    (code,) = re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)
    (options,) = re.findall(r"```yaml\n(.*?)```", recipe, re.DOTALL)
    module, option = re.search(r"`(dg/\w+/\w+)\.py`", recipe)[1], re.search(rf"`conf/{group}/(\w+)\.yaml`", recipe)[1]
    told = re.search(r"`python train\.py (.*?)`", recipe)[1].split()
    assert len((code + options).splitlines()) <= LIMIT and told[0] == f"{group}={option}"

    iters = 55 if group == "densify" else 5
    package = importlib.import_module(module.replace("/", ".").rpartition(".")[0])
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{Path(module).name}.py").write_text(code)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "code")])
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / group / f"{option}.yaml").write_text(options)
    try:
        asked = [*BARE, "stages=[gaussians]", "prior=point", f"iters={iters}", "init.num_points=60", "name=run"]
        asked += [] if group == "densify" else ["densify=none"]
        config = compose.compose(conf, "train", [f"outdir={tmp_path}", *asked, *told])
        pipeline(launch.Job(launch.prepare(config, conf), "test", told))
    finally:
        sys.modules.pop(module.replace("/", "."), None)
    rows = [row for row in series(tmp_path / "run") if "train/t" in row]
    assert len(rows) == iters
    assert len(read_ply(tmp_path / "run" / "gaussians.ply")) == (31 if group == "densify" else 60)  # the median stays
    if group == "anneal":
        assert rows[0]["train/t"] == round(20 + (800 - 20) * 0.5 * (1 + math.cos(math.pi / iters)))
