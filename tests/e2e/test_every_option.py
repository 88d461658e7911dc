"""Every option of every config group runs: ten steps of a stage that optimises, or the whole of one that does not.

Groups whose options run together are dealt into rows; what needs a checkpoint, a mesh or a stage of its own has a case
(test_every_option_apart.py).
An option that is added to a group is dealt into a row; a new group, or an option that does not run as the others of its
group, fails here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.config.test_groups import GROUPS
from tests.config.test_options_docs import options as all_options
from tests.every_option import APART, POINT, STAGE1, at_home, inputs, names, own, sets_of_overlays, shown, ten_steps  # noqa: F401 - fixtures
from tests.pairs import all_pairs
from tests.runs import run

# Options of these groups are combined at will in stage 1. `pairs` are those that meddle with each other.
PAIRS = ("anneal", "background", "densify", "distill", "init", "loss", "raster")
DEALT = (*PAIRS, "camera", "debug", "logger", "optim", "paths", "preset", "preview", "resolution", "sweep", "trainer")
CASES = ("ablation", "clip", "experiment", "mesh", "meshraster", "pretrain", "prior", "refine", "task")
ELSEWHERE = {"protocol": "evaluate.py's, tests/eval and tests/e2e/test_evaluate_cli.py"}


def dealt(groups: Sequence[str], seed: int = 0) -> list[dict[str, str]]:
    """As few rows as hold every option of every group once; shorter groups begin again from their first option."""
    shuffled = {group: random.Random(f"{group}{seed}").sample(names(group), len(names(group))) for group in groups}
    count = max(map(len, shuffled.values()))
    return [{group: listed[i % len(listed)] for group, listed in shuffled.items()} for i in range(count)]


@pytest.mark.parametrize("row", dealt(DEALT), ids=shown)
def test_options_that_run_together(row: dict[str, str], place: Path, tmp_path: Path) -> None:
    ten_steps(run(tmp_path, [*STAGE1, *POINT, *own(place, row)]))


ROWS = all_pairs({group: names(group) for group in PAIRS})


@pytest.mark.parametrize("row", ROWS[:3], ids=shown)
def test_pairs(row: dict[str, str], place: Path, tmp_path: Path) -> None:
    """The three rows that meet most pairs of options; all of them are the slow ones."""
    ten_steps(run(tmp_path, [*STAGE1, *POINT, *own(place, row)]))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS[3:], ids=shown)
def test_all_other_pairs(row: dict[str, str], place: Path, tmp_path: Path) -> None:
    ten_steps(run(tmp_path, [*STAGE1, *POINT, *own(place, row)]))


def test_nothing_is_left_out() -> None:
    assert sorted({*DEALT, *CASES, *ELSEWHERE}) == GROUPS
    rows = dealt(DEALT)
    for group in DEALT:
        assert {row[group] for row in rows} == set(names(group))
    for option in APART:
        group, _, name = option.partition("=")
        assert name in all_options(group)
    assert {name for group in sets_of_overlays() for name in group} == all_options("ablation")
    assert set(names("pretrain")) == {"none", "zero123_mini"}
