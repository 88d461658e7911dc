"""Rows of options such that every two options of different groups meet in some row."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations

Pair = frozenset[tuple[str, str]]


def all_pairs(axes: Mapping[str, Sequence[str]], seed: int = 0, candidates: int = 20) -> list[dict[str, str]]:
    """Rows in the order in which they add most, so that the first few are the best few (AETG, Cohen et al. 1997).

    Args:
        axes: group -> its options.
        candidates: random rows that the best is taken of, each time.
    """
    draw = random.Random(seed)
    open_pairs = {frozenset({(a, x), (b, y)}) for a, b in combinations(axes, 2) for x in axes[a] for y in axes[b]}
    rows = []
    while open_pairs:
        best = max(
            (_candidate(axes, open_pairs, draw) for _ in range(candidates)), key=lambda r: len(met(r) & open_pairs)
        )
        rows.append(best)
        open_pairs -= met(best)
    return rows


def _candidate(axes: Mapping[str, Sequence[str]], open_pairs: set[Pair], draw: random.Random) -> dict[str, str]:
    """One open pair, then group by group the option that meets most open pairs with what is there."""
    row = dict(draw.choice(sorted(map(sorted, open_pairs))))
    groups = [group for group in axes if group not in row]
    draw.shuffle(groups)
    for group in groups:
        options = list(axes[group])
        draw.shuffle(options)
        row[group] = max(options, key=lambda o: sum(frozenset({(group, o), x}) in open_pairs for x in row.items()))
    return {group: row[group] for group in axes}


def met(row: Mapping[str, str]) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(row.items(), 2)}
