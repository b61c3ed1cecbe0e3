"""Intervals of accuracies and differences, against other packages, hand-made values, simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from keras_cnn.bench import coverage
from keras_cnn.results import intervals
from keras_cnn.results.intervals import Estimate, Hits


def hits(right, images=None):
    right = np.asarray(right, bool)
    return Hits(np.arange(len(right)) if images is None else np.asarray(images), right)


def drawn(repeats=4, images=60, seed=0):
    """Hits of repeats that agree on most images."""
    rng = np.random.default_rng(seed)
    chances = rng.beta(1, 0.6, images)
    return [hits(rng.random(images) < chances) for _ in range(repeats)]


@pytest.mark.parametrize(("right", "images"), [(0, 20), (3, 20), (186, 372), (372, 372)])
def test_one_repeat_has_wilsons_interval(right, images):
    estimate = intervals.accuracy([hits(np.arange(images) < right)])
    expected = stats.binomtest(right, images).proportion_ci(method="wilson")
    assert intervals.accuracy_interval(estimate) == pytest.approx(tuple(expected), abs=1e-12)


def test_variances_are_those_of_the_two_way_analysis_of_variance():
    runs = drawn()
    x = np.array([run.right for run in runs], float)
    repeats, images = x.shape
    rows, columns = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    of_repeats = images * ((rows - x.mean()) ** 2).sum() / (repeats - 1)
    of_images = repeats * ((columns - x.mean()) ** 2).sum() / (images - 1)
    rest = ((x - rows - columns + x.mean()) ** 2).sum() / ((repeats - 1) * (images - 1))
    found = intervals.accuracy(runs)
    assert found.value == pytest.approx(x.mean())
    assert found.by_repeats == pytest.approx(of_repeats / x.size)
    assert found.by_images == pytest.approx((of_images - rest) / x.size)


def test_repeats_without_a_common_image_have_the_variance_of_a_mean():
    runs = [hits(run.right, np.arange(60) + 60 * place) for place, run in enumerate(drawn())]
    found = intervals.accuracy(runs)
    accuracies = [run.right.mean() for run in runs]
    assert found.by_repeats == pytest.approx(np.var(accuracies, ddof=1) / 4)
    least = np.mean([a * (1 - a) / 59 for a in accuracies]) / 4  # of 240 answers
    assert found.variance == pytest.approx(max(found.by_repeats, least))


def test_repeats_alone_have_students_interval():
    estimate = Estimate(0.5, 0.02**2 / 5, 0.0, 5, 1e9)
    low, high = intervals.difference_interval(estimate)
    expected = stats.t.interval(0.95, 4, 0.5, 0.02 / np.sqrt(5))
    assert (low, high) == pytest.approx(expected, rel=1e-6)
    assert intervals.p_value(estimate) == pytest.approx(
        2 * stats.t.sf(0.5 / 0.00894427, 4), rel=1e-4
    )


def test_fishers_solution_agrees_with_a_draw_of_the_unknown_variance():
    estimate = Estimate(0.03, 0.01**2, 0.008**2, 4, 400)
    rng = np.random.default_rng(0)
    variances = 0.01**2 * 3 / rng.chisquare(3, 1_000_000) + 0.008**2
    beyond = stats.norm.sf(0.03 / np.sqrt(variances)).mean() * 2
    assert intervals.p_value(estimate) == pytest.approx(beyond, rel=0.01)


def test_a_differences_interval_holds_what_its_p_value_does_not_refuse():
    reach = intervals.difference_reach(Estimate(0.0, 0.01**2, 0.02**2, 3, 400))
    for value, refused in ((reach * 1.001, True), (reach * 0.999, False)):
        p = intervals.p_value(Estimate(value, 0.01**2, 0.02**2, 3, 400))
        assert (p < 0.05) is refused


def test_differences_are_paired_by_repeat_and_image():
    one, other = drawn(seed=1), drawn(seed=2)
    order = np.random.default_rng(0).permutation(60)
    shuffled = [hits(run.right[order], order) for run in other]
    found = intervals.difference(dict(enumerate(one)), dict(enumerate(shuffled)))
    x = np.array([a.right.astype(float) - b.right for a, b in zip(one, other, strict=True)])
    assert found.value == pytest.approx(x.mean())
    assert found.by_repeats == pytest.approx(x.mean(axis=1).var(ddof=1) / 4)
    pairs = [np.cov(x[a], x[b])[0, 1] / 60 for a in range(4) for b in range(a)]
    assert found.by_images == pytest.approx(np.mean(pairs))


def test_the_same_row_twice_differs_by_nothing():
    runs = dict(enumerate(drawn()))
    found = intervals.difference(runs, runs)
    assert (found.value, found.variance, intervals.p_value(found)) == (0, 0, 1)
    assert intervals.difference_interval(found) == (0, 0)


def test_only_repeats_that_both_rows_have_are_compared():
    one, other, *_ = drawn()
    found = intervals.difference({0: one, 2: other, 3: one}, {1: one, 2: one, 3: other})
    assert found.repeats == 2
    assert intervals.difference({0: one}, {1: other}) is None
    assert intervals.p_value(intervals.difference({0: one}, {0: other})) == 1  # two models


def test_one_draw_of_shots_counts_as_one():
    one, other = dict(enumerate(drawn(seed=1))), dict(enumerate(drawn(seed=2)))
    each, shared = (intervals.difference(one, other, (once, False)) for once in (False, True))
    spread = np.var([run.right.mean() for run in other.values()], ddof=1)
    assert shared.by_repeats >= spread > each.by_repeats
    assert (shared.value, shared.by_images) == (each.value, each.by_images)


def test_answers_that_are_all_right_or_spread_evenly_leave_no_point():
    assert intervals.accuracy_interval(intervals.accuracy([hits([True] * 20)] * 3)) == (
        pytest.approx(tuple(stats.binomtest(20, 20).proportion_ci(method="wilson")))
    )
    one_wrong_each = [hits(np.arange(20) != place) for place in range(3)]
    low, high = intervals.accuracy_interval(intervals.accuracy(one_wrong_each))
    assert low < 0.9 and high > 0.95


def test_holms_correction():
    # Sorted, times 4, 3, 2 and 1, and never falling.
    assert intervals.holm([0.03, 0.005, 0.04, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert intervals.holm([0.9, 0.8]) == [1, 1] and intervals.holm([]) == []


@pytest.mark.parametrize("repeats", [2, 3, 5, 10])
@pytest.mark.parametrize("world", [coverage.WORLDS[3], coverage.WORLDS[7]], ids=str)
def test_intervals_cover_the_truth_as_often_as_they_say(world, repeats):
    covered, _ = coverage.covered(world, repeats, 372, experiments=300)
    assert 0.92 < covered < 0.985  # 93 to 97 percent, and what 300 experiments leave to chance


@pytest.mark.parametrize("one_draw", [False, True])
def test_tables_without_a_difference_seldom_claim_one(one_draw):
    assert coverage.claims(coverage.WORLDS[3], 3, 372, experiments=60, one_draw=one_draw) <= 0.1


def test_the_truth_of_a_simulated_world_is_that_of_many_images():
    world, rng = coverage.WORLDS[7], np.random.default_rng(0)
    shares = [world.repeat(*world.images(1000, rng), rng).mean() for _ in range(400)]
    assert np.mean(shares) == pytest.approx(world.truth, abs=0.004)
