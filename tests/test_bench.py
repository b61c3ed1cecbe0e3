"""How a bench counts and judges; how fast anything is, no test says."""

from __future__ import annotations

import numpy as np
import pytest

from keras_cnn import bench
from keras_cnn.bench import contenders, goals, interleave
from keras_cnn.errors import UserError


def test_a_ratio_is_taken_within_rounds_against_the_fastest_peer():
    random = np.random.default_rng(0)
    ours, slow, fast = random.uniform(50, 150, (3, 9))
    by_hand = sorted(a / max(b, c) for a, b, c in zip(ours, slow, fast, strict=True))
    median, low, high = goals.ratio(ours, [slow, fast])
    assert (median, low, high) == pytest.approx((by_hand[4], by_hand[2], by_hand[6]))


def test_the_table_says_whether_a_goal_is_met():
    rates = {"repeats together": [32.0, 30.0, 34.0], "repeats in sequence": [20.0, 20.0, 20.0]}
    met = goals.markdown("repeats", rates).splitlines()[-1]
    assert met == "| repeats together | repeats in sequence | 1.60 | 1.55 to 1.65 | 1.6 | yes |"
    rates["repeats together"][0] = 31.0
    assert goals.markdown("repeats", rates).endswith("| 1.6 | no |")


def test_every_goal_is_between_contenders_there_are():
    for name in goals.BENCHES:
        assert set(goals.contenders(name)) <= set(contenders.CONTENDERS)


def test_contenders_take_turns_and_the_first_round_does_not_count():
    rates = interleave.rates(["feed", "sliced tensor"], rounds=2, threads=1)
    assert list(rates) == ["feed", "sliced tensor"]
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())


def test_an_unknown_bench_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'training'"):
        bench.bench(["trainin"], 1, 1)


def test_a_contender_that_dies_is_named():
    with pytest.raises(RuntimeError, match="nobody"):
        interleave.rates(["nobody"], rounds=1, threads=1)
