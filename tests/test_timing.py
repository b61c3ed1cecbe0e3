"""Seconds by part of the work: each second counts once."""

from __future__ import annotations

import pytest

from keras_cnn import timing
from keras_cnn.timing import Seconds, adding_up, timed


@pytest.fixture
def clock(monkeypatch):
    """What the time is; a second of the clock is half a second of the processor."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0] / 2)
    return now


def test_a_block_inside_another_counts_for_its_own_part_alone(clock):
    with adding_up() as spent:
        with timed("training"):
            clock[0] += 1
            with timed("evaluation"):
                clock[0] += 2
                with timed("features"):
                    clock[0] += 4
                clock[0] += 8
            with pytest.raises(KeyError), timed("evaluation"):
                clock[0] += 16
                raise KeyError
            clock[0] += 32
        clock[0] += 64  # in no part
        with timed("training"):
            clock[0] += 128
    assert spent == {
        "training": Seconds(161, 80.5),
        "evaluation": Seconds(26, 13),
        "features": Seconds(4, 2),
    }


def test_nothing_is_counted_where_nobody_adds_up(clock):
    with timed("training"):
        clock[0] += 1
    with adding_up() as spent:
        pass
    with timed("training"):
        clock[0] += 1
    assert spent == {}
