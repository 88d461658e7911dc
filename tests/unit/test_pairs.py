"""The generator of pairs against counting them."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.pairs import all_pairs, met


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3, 3), (4, 1, 2, 3), (5, 4, 2, 2, 2)])
def test_every_two_options_meet(sizes: tuple[int, ...]) -> None:
    axes = {f"g{i}": [f"o{k}" for k in range(n)] for i, n in enumerate(sizes)}
    rows = all_pairs(axes, seed=3)
    for a, b in combinations(axes, 2):
        assert {(row[a], row[b]) for row in rows} == set(product(axes[a], axes[b]))
    largest = sorted(sizes)[-2:]
    assert (
        largest[0] * largest[1]
        <= len(rows)
        < min(2 * largest[0] * largest[1] + 2, len(list(product(*axes.values()))) + 1)
    )
    assert rows == all_pairs(axes, seed=3)
    gained = [len(met(row) - set().union(*map(met, rows[:i]))) for i, row in enumerate(rows)]
    assert all(gained) and gained[0] == max(gained)
