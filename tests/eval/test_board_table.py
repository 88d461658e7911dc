"""Boards: who is ranked, what a failure and a gap cost, and that hashes never mix."""

from dataclasses import replace

import pytest

from dg.eval.board.cases import collect, compare
from dg.eval.board.table import boards, build
from tests.eval.board_records import BASELINE, HEADLINE, ITEMS, NASTY, NEW, OLD, records


@pytest.fixture(scope="module")
def board():
    return build(records(), headline=HEADLINE, baseline=BASELINE)


def row(board, method, stage="mesh"):
    return next(r for r in board.entries if r.entry == (method, stage))


def test_ranked_by_the_first_headline_figure(board):
    assert board.ranking == "psnr_db"
    order = [(r.method, r.rank) for r in board.rows if r.final]
    assert order == [("zero123_mini", 1), ("views_only", 2), ("silhouette", 3), (NASTY, 4)]
    means = [r.cells["psnr_db"].value.mean for r in board.rows if r.final]
    assert means == sorted(means, reverse=True)


def test_lower_is_better_where_the_catalog_says_so():
    found = build(records(), headline=("chamfer/unaligned",), baseline=BASELINE)
    ranked = [r for r in found.rows if r.rank is not None]
    means = [r.cells["chamfer/unaligned"].value.mean for r in ranked]
    assert means == sorted(means) and len(means) == 3
    assert row(found, "views_only", "renders").rank is None  # has no surface: blank, last, unranked
    assert [r for r in found.rows if r.final][-1].method == "views_only"
    assert row(found, "zero123_mini").cells["chamfer/unaligned"].better is True


def test_references_are_never_ranked(board):
    assert [r.method for r in board.references] == ["truth", "oracle", "billboard"]
    assert all(r.rank is None for r in board.references)


def test_stages_follow_their_method_unranked(board):
    at = [r.entry for r in board.rows].index(("zero123_mini", "mesh"))
    assert [r.entry for r in board.rows[at : at + 3]] == [("zero123_mini", s) for s in ("mesh", "coarse", "splats")]
    assert all(r.rank is None and not r.final for r in board.rows[at + 1 : at + 3])


def test_a_failure_counts_with_the_worst_score(board):
    mine = row(board, NASTY)
    assert [(f.item, f.seed, f.attempts) for f in mine.failures] == [(ITEMS[-1], 0, 2)]
    by_hand = [r for r in records() if r.method == NASTY]
    for figure, worst in (("psnr_db", 0.0), ("silhouette_iou", 0.0), ("chamfer/unaligned", 1.0)):
        values = {}
        for r in by_hand:
            values.setdefault(r.item, []).append(worst if r.failure else r.scores[figure])
        expected = sum(sum(v) / len(v) for v in values.values()) / len(values)
        assert mine.cells[figure].value.mean == pytest.approx(expected)


def test_a_failure_says_nothing_about_plain_facts_and_what_nobody_measured(board):
    mine = row(board, NASTY)
    assert mine.cells["seconds"].value.values == 2 * len(ITEMS) - 1
    assert mine.cells["lpips_vgg"].value is None
    assert mine.cells["lpips_vgg"].blank == "weights of VGG are not on this machine"


def test_all_failed_is_on_the_board_with_the_worst_scores():
    found = records()
    broken = [
        replace(r, method="broken", scores={}, blanks={}, failure="exit status 1") for r in found if r.method == NASTY
    ]
    mine = row(build([*found, *broken], headline=HEADLINE, baseline=BASELINE), "broken")
    assert len(mine.failures) == mine.cases == 2 * len(ITEMS)
    assert mine.cells["psnr_db"].value.mean == 0.0 and mine.cells["chamfer/unaligned"].value.mean == 1.0
    assert mine.cells["lpips_vgg"].value is None and mine.cells["seconds"].blank == "every case failed"


def test_a_missing_item_is_a_failure_but_not_of_references():
    gone = [r for r in records() if not (r.item == "duck" and r.method in ("views_only", "truth"))]
    found = build(gone, headline=HEADLINE, baseline=BASELINE)
    mine = row(found, "views_only", "renders")
    assert [(f.item, f.seed, f.reason, f.attempts) for f in mine.failures] == [
        ("duck", 0, "no result", 0),
        ("duck", 1, "no result", 0),
    ]
    assert mine.cases == 2 * len(ITEMS) and mine.cells["psnr_db"].value.objects == len(ITEMS)
    assert mine.cells["psnr_db"].difference.objects == len(ITEMS)
    assert row(found, "truth").failures == () and row(found, "truth").cells["psnr_db"].value.mean == 100.0


def test_a_stage_without_record_takes_the_reason_of_its_run():
    found = [
        replace(r, failure="killed", scores={})
        if r.method == "zero123_mini" and r.stage == "mesh" and r.item == "mug"
        else r
        for r in records()
        if not (r.method == "zero123_mini" and r.stage == "coarse" and r.item == "mug")
    ]
    mine = row(build(found, headline=HEADLINE), "zero123_mini", "coarse")
    assert {f.reason for f in mine.failures} == {"killed"} and len(mine.failures) == 2


def test_partly_blank_says_so():
    found = [
        replace(r, scores=r.scores | {"psnr_db": None}, blanks=r.blanks | {"psnr_db": "no camera"})
        if r.method == "silhouette" and r.item == "mug" and r.seed == 0
        else r
        for r in records()
    ]
    cell = row(build(found, headline=HEADLINE), "silhouette").cells["psnr_db"]
    assert cell.value.values == 2 * len(ITEMS) - 1
    assert cell.blank == "missing in 1 of 8 cases: no camera"


def test_ties_share_a_rank():
    found = records()
    twin = [replace(r, method="twin") for r in found if r.method == "silhouette"]
    board = build([*found, *twin], headline=HEADLINE, baseline=BASELINE)
    ranks = {r.method: (r.rank, r.tied) for r in board.rows if r.final}
    assert ranks["silhouette"] == ranks["twin"] == (3, True) and ranks[NASTY] == (5, False)
    assert (
        row(board, "twin").cells["psnr_db"].difference.mean == 0 and row(board, "twin").cells["psnr_db"].better is None
    )


def test_one_board_per_hash_the_newest_first():
    found = boards(records(hash_=NEW) + records(hash_=OLD), headline=HEADLINE, baseline=BASELINE)
    assert [(b.hash, b.newest) for b in found] == [(NEW, True), (OLD, False)]
    found = boards(records(hash_=OLD) + records(hash_=NEW), headline=HEADLINE, baseline=BASELINE)
    assert [(b.hash, b.newest) for b in found] == [(NEW, True), (OLD, False)]


def test_two_protocols_have_their_own_headline_and_baseline():
    other = [replace(r, protocol="nerf4", protocol_hash="ff") for r in records()]
    found = boards(
        records() + other,
        headline={"synthetic_gt": ("psnr_db",), "nerf4": ("silhouette_iou",)},
        baseline={"synthetic_gt": "silhouette"},
    )
    assert [(b.protocol, b.ranking, b.baseline) for b in found] == [
        ("synthetic_gt", "psnr_db", "silhouette"),
        ("nerf4", "silhouette_iou", None),
    ]


def test_other_hashes_refuse_to_be_compared():
    new = [r for r in records() if (r.method, r.stage) == ("zero123_mini", "mesh")]
    old = [r for r in records(hash_=OLD) if (r.method, r.stage) == ("silhouette", "mesh")]
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(new, old, "psnr_db")
    with pytest.raises(ValueError, match="cannot be compared"):
        build(new + old, headline=HEADLINE)
    with pytest.raises(ValueError, match="cannot be compared"):
        collect(new + [replace(r, protocol="other") for r in new])
    same = [r for r in records() if (r.method, r.stage) == ("silhouette", "mesh")]
    assert compare(new, same, "psnr_db").mean == pytest.approx(1.2, abs=0.5)


def test_of_two_records_of_a_case_the_later_one_counts():
    found = records()
    again = [
        replace(r, key="other", finished="2027-01-01", scores={"psnr_db": 50.0}) for r in found if r.method == NASTY
    ]
    again = [replace(r, failure=None) for r in again]
    for order in (found + again, again + found):
        assert row(build(order, headline=HEADLINE), NASTY).cells["psnr_db"].value.mean == 50.0


def test_only_the_newest_config_of_a_method_counts() -> None:
    one = replace(records()[0], seed=0, failure=None, scores={"psnr_db": 10.0})
    old = [replace(one, item=item, config="1", finished="2026-01-01") for item in "ab"]
    new = replace(one, item="a", config="2", finished="2026-01-02", scores={"psnr_db": 30.0})
    assert collect(old).values((one.method, one.stage), "psnr_db") == {"a": {0: 10.0}, "b": {0: 10.0}}
    assert collect([*old, new]).values((one.method, one.stage), "psnr_db") == {"a": {0: 30.0}}
