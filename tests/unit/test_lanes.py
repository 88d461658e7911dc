"""Pieces of work that take turns, and what happens when one of them fails or all are interrupted."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from dg.runtime import lanes
from dg.runtime.callbacks import StopSignal


def test_questions_of_one_kind_are_answered_by_one_call():
    calls, got = [], {}

    def double(questions):
        calls.append(list(questions))
        return [2 * q for q in questions]

    def piece(number, times):
        def work():
            got[number] = [
                lanes.at_once("odd" if number == 3 else "even", 10 * number + i, double) for i in range(times)
            ]

        return work

    assert lanes.run([piece(0, 2), piece(1, 3), piece(3, 1)]) == [None] * 3
    assert got == {0: [0, 2], 1: [20, 22, 24], 3: [60]}
    assert calls == [[0, 10], [30], [1, 11], [12]]


def test_one_works_at_a_time_in_order():
    seen, inside = [], []

    def piece(name):
        def work():
            for _ in range(3):
                inside.append(name)
                time.sleep(0.002)
                seen.append((name, list(inside)))
                inside.remove(name)
                lanes.at_once("turn", None, lambda questions: questions)

        return work

    lanes.run([piece("a"), piece("b"), piece("c")])
    assert [name for name, _ in seen] == ["a", "b", "c"] * 3
    assert all(within == [name] for name, within in seen)


def test_alone_nothing_is_shared():
    assert lanes.at_once("kind", 4, lambda questions: [sum(questions)]) == 4
    assert not lanes.in_lane()


def test_a_failing_piece_leaves_the_others_alone():
    def serve(questions):
        if "bad" in questions:
            raise ValueError("bad question")
        return questions

    good = []
    works = [
        lambda: good.append(lanes.at_once("k", "a", serve)),
        lambda: lanes.at_once("k", "bad", serve),
        lambda: 1 / 0,
        lambda: good.append(lanes.at_once("k", "b", serve)),
    ]
    failures = lanes.run(works)
    assert good == ["a", "b"] and failures[0] is None and failures[3] is None
    assert str(failures[1]) == "bad question" and isinstance(failures[2], ZeroDivisionError)


def test_costs_are_own_turns_and_shares():
    used = []

    def serve(questions):
        time.sleep(0.2)
        return questions

    def piece(seconds):
        def work():
            start = lanes.spent()
            time.sleep(seconds)
            lanes.at_once("k", None, serve)
            used.append(lanes.spent() - start)

        return work

    begun = time.monotonic()
    lanes.run([piece(0.1), piece(0.3)])
    whole = time.monotonic() - begun
    assert used == pytest.approx([0.2, 0.4], abs=0.05)
    assert sum(used) == pytest.approx(whole, abs=0.05)


def test_an_interrupt_reaches_every_piece():
    """It comes while one piece works and another waits for an answer."""
    told = []

    def piece(number):
        def work():
            try:
                for _ in range(100):
                    if number == 1:
                        threading.Timer(0.02, lambda: _interrupt_main()).start()
                        time.sleep(0.1)
                    lanes.at_once("k", None, lambda questions: questions)
            except KeyboardInterrupt:
                told.append(number)
                raise

        return work

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            lanes.run([piece(0), piece(1), piece(2)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(told) == [0, 1]  # the third had not begun


def _interrupt_main():
    signal.raise_signal(signal.SIGINT)


def test_runs_in_lanes_follow_the_main_threads_signal():
    stops = []

    def work():
        with StopSignal().listening() as stop:
            stops.append(stop.requested)
            lanes.at_once("k", None, lambda questions: [_request(main)] * len(questions))
            stops.append(stop.requested)

    def _request(stop):
        stop.requested = True

    with StopSignal().listening() as main:
        assert lanes.run([work, work]) == [None, None]
    assert stops == [False, False, True, True]
