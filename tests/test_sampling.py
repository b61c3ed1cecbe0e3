"""Draws of few images a class."""

from __future__ import annotations

import numpy as np
import pytest

from keras_cnn.data.sampling import draw_shots
from keras_cnn.errors import UserError

LABELS = np.random.default_rng(0).integers(0, 5, 400)


def test_as_many_of_each_class_none_twice():
    drawn = draw_shots(LABELS, 20, seed=3)
    assert drawn.dtype == np.int64
    assert len(set(drawn.tolist())) == 100
    assert np.bincount(LABELS[drawn]).tolist() == [20] * 5


def test_classes_take_turns():
    drawn = draw_shots(LABELS, 20, seed=3)
    assert (LABELS[drawn].reshape(20, 5) == np.arange(5)).all()


def test_a_seed_gives_one_draw_whatever_numpys_global_state():
    np.random.seed(1)
    first = draw_shots(LABELS, 20, seed=3)
    np.random.seed(2)
    np.testing.assert_array_equal(draw_shots(LABELS, 20, seed=3), first)
    assert np.intersect1d(draw_shots(LABELS, 20, seed=4), first).size < 60  # 25 by chance


def test_fewer_shots_are_the_beginning_of_more():
    more = draw_shots(LABELS, 20, seed=3)
    for shots in (1, 7, 19):
        np.testing.assert_array_equal(draw_shots(LABELS, shots, seed=3), more[: 5 * shots])


def test_a_class_does_not_move_anothers_draw():
    labels = np.concatenate([LABELS, np.full(50, 2)])  # class 2 grows
    before, after = draw_shots(LABELS, 20, seed=3), draw_shots(labels, 20, seed=3)
    kept = np.arange(100) % 5 != 2
    np.testing.assert_array_equal(before[kept], after[kept])
    assert not np.array_equal(before[~kept], after[~kept])


def test_classes_draw_independently():
    """Equal classes side by side must not give the same positions."""
    drawn = draw_shots(np.repeat(np.arange(5), 100), 20, seed=3).reshape(20, 5) % 100
    assert all((drawn[:, 0] != drawn[:, other]).any() for other in range(1, 5))


def test_every_image_has_the_same_chance():
    labels = np.repeat([0, 1], 20)
    hits = np.zeros(40)
    for seed in range(2000):
        hits[draw_shots(labels, 5, seed)] += 1
    # binomial(2000, 1/4): mean 500, standard deviation 19.4
    assert np.abs(hits - 500).max() < 5 * 19.4


def test_all_images_of_the_smallest_class_can_be_drawn():
    labels = np.array([0, 0, 0, 1, 1])
    assert sorted(draw_shots(labels, 2, seed=0)[1::2].tolist()) == [3, 4]


def test_too_few_images():
    labels = np.array([0, 0, 0, 1, 1])
    with pytest.raises(UserError, match="3 shots a class: class 'dog' has 2 images; at most 2"):
        draw_shots(labels, 3, seed=0, class_names=["cat", "dog"])
    with pytest.raises(UserError, match="class 1 has 2 images"):
        draw_shots(labels, 3, seed=0)


def test_a_named_class_without_images():
    with pytest.raises(UserError, match="class 'emu' has 0 images"):
        draw_shots(np.array([0, 1, 0, 1]), 1, seed=0, class_names=["cat", "dog", "emu"])


def test_no_shots():
    with pytest.raises(UserError, match="shots is 0"):
        draw_shots(LABELS, 0, seed=0)
