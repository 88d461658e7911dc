"""records.jsonl survives what a crash leaves behind, and nothing else passes silently."""

from dataclasses import replace

import pytest

from dg.eval.records import append, read
from tests.eval.board_records import records


def test_round_trip(tmp_path):
    path = tmp_path / "records.jsonl"
    found = records()
    for record in found:
        append(path, record)
    assert read(path) == found
    assert path.read_text().count("\n") == len(found)


def test_no_file_is_no_records(tmp_path):
    assert read(tmp_path / "records.jsonl") == []


def test_the_newest_line_of_a_key_and_stage_counts(tmp_path):
    path, first = tmp_path / "records.jsonl", records()[0]
    other = replace(first, stage="coarse" if first.stage != "coarse" else "mesh")
    again = replace(first, failure="out of memory")
    for record in (first, other, again):
        append(path, record)
    assert read(path) == [again, other]


@pytest.mark.parametrize("cut", [1, 5, 60, -40, -2, -1])
def test_appending_after_half_a_line_loses_only_that_line(tmp_path, cut):
    path = tmp_path / "records.jsonl"
    a, b, c = records()[:3]
    append(path, a)
    append(path, b)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(lines[0] + b"\n" + lines[1][:cut])  # killed while b was written
    with pytest.warns(UserWarning, match="line 2 was cut off"):
        assert read(path) == [a]
    append(path, c)
    with pytest.warns(UserWarning, match="line 2 was cut off"):
        assert read(path) == [a, c]
    append(path, b)
    with pytest.warns(UserWarning, match="cut off"):
        assert read(path) == [a, c, b]


def test_a_whole_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "records.jsonl"
    a, b = records()[:2]
    append(path, a)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(path, b)
    assert read(path) == [a, b]


def test_zeros_of_a_power_cut_are_no_record(tmp_path):
    path = tmp_path / "records.jsonl"
    a, b = records()[:2]
    append(path, a)
    with path.open("ab") as file:
        file.write(b"\0" * 700)
    append(path, b)
    assert read(path) == [a, b]


@pytest.mark.parametrize(
    "line", ["hello", '["a list"]', '{"key": "a"}', '{"unknown": 1}', '{"key": "a", "colour": "red"}', "<<<<<<< HEAD"]
)
def test_a_foreign_line_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    append(path, records()[0])
    with path.open("a") as file:
        file.write(line + "\n")
    append(path, records()[1])
    with pytest.raises(ValueError, match="line 2 is no record"):
        read(path)
