"""Draws of few images a class, of episodes and of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from keras_cnn.data import sampling
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


def test_at_most_so_many_are_all_of_a_small_class():
    labels = np.concatenate([LABELS, [5] * 3, [6] * 20])
    np.testing.assert_array_equal(
        sampling.draw_at_most(LABELS, 20, seed=3), draw_shots(LABELS, 20, seed=3)
    )
    drawn = sampling.draw_at_most(labels, 20, seed=3)
    assert len(np.unique(drawn)) == len(drawn)
    assert np.bincount(labels[drawn]).tolist() == [20] * 5 + [3, 20]
    assert labels[drawn[:21]].tolist() == [*range(7)] * 3 and 5 not in labels[drawn[21:]]
    kept = draw_shots(LABELS, 20, seed=3)
    np.testing.assert_array_equal(drawn[labels[drawn] < 5], kept)
    with pytest.raises(UserError, match="class 'none' has 0 images"):
        sampling.draw_at_most(np.zeros(4, int), 2, 0, ("some", "none"))
    with pytest.raises(UserError, match="shots is 0"):
        sampling.draw_at_most(LABELS, 0, 0)


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


def episodes(labels=LABELS, count=50, way=3, support=2, queries=4, seed=0, names=None):
    rng = np.random.default_rng(seed)
    return sampling.draw_episodes(labels, count, way, support, queries, rng, names)


def test_support_and_queries_of_an_episode_are_different_images_of_the_same_classes():
    drawn = episodes()
    assert len(drawn) == 50
    for indices, labels in drawn:
        assert len(set(indices.tolist())) == 18  # 3 ways * (2 + 4), none twice
        assert labels.tolist() == [0, 1, 2] * 6
        classes = LABELS[indices].reshape(6, 3)
        assert (classes == classes[0]).all(), "an episode's label stands for one class"
        assert len(set(classes[0].tolist())) == 3


def test_episodes_differ_and_reach_every_class_and_image():
    drawn = episodes(count=200)
    assert len({tuple(sorted(set(LABELS[indices].tolist()))) for indices, _ in drawn}) == 10
    assert len(np.unique(np.concatenate([indices for indices, _ in drawn]))) == len(LABELS)


def test_a_seed_gives_the_same_episodes():
    for (one, _), (other, _) in zip(episodes(seed=4), episodes(seed=4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((a[0] != b[0]).any() for a, b in zip(episodes(), episodes(seed=1), strict=True))


def test_an_episode_of_all_classes():
    indices, labels = episodes(way=None, count=1)[0]
    assert len(indices) == 30 and labels.max() == 4
    assert sorted(LABELS[indices[:10]].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_too_few_images_or_classes_for_an_episode():
    labels = np.array([0] * 6 + [1] * 5)
    assert len(episodes(labels, way=2, queries=3, count=1)) == 1
    with pytest.raises(UserError, match="2 support_shots and 4 query_shots: class 'dog' has 5 im"):
        episodes(labels, way=2, names=["cat", "dog"])
    with pytest.raises(UserError, match="way is 3: there are 2 classes"):
        episodes(labels)


def test_split_batches_take_every_image_once_but_those_of_a_batch_without_queries():
    labels = np.arange(1000) % 10
    drawn = sampling.split_batches(labels, 128, 100, np.random.default_rng(0))
    assert [len(indices) for indices, _ in drawn] == [128] * 7 + [104]
    every = np.concatenate([indices for indices, _ in drawn])
    assert sorted(every.tolist()) == list(range(1000))
    assert every.tolist() != sorted(every.tolist())
    for indices, shifted in drawn:  # all ten classes are there: nothing shifts
        np.testing.assert_array_equal(labels[indices], shifted)
    drawn = sampling.split_batches(labels[:228], 128, 100, np.random.default_rng(0))
    assert [len(indices) for indices, _ in drawn] == [128]  # the other 100 are no more than support


def test_labels_behind_an_absent_class_shift():
    """By hand: the support shows 1, 4 and 6, which become 0, 1 and 2.

    A query of class 1 or 2 keeps its label, which now means class 4 or 6; there is no place 4 or 6.
    """
    labels = np.array([4, 1, 6, 4, 1, 2, 4, 6, 0])
    shifted = sampling._shifted(labels, support_images=4)
    assert shifted.tolist() == [1, 0, 2, 1, 1, 2, -1, -1, 0]

    class Unshuffled:
        def permutation(self, n):
            return np.arange(n)

    ((indices, drawn),) = sampling.split_batches(labels, 9, 4, Unshuffled())
    assert indices.tolist() == list(range(9)) and drawn.tolist() == shifted.tolist()


def test_batches_without_a_query():
    with pytest.raises(UserError, match="at most 60 images leave no query beside 100"):
        sampling.split_batches(np.arange(60) % 3, 128, 100, np.random.default_rng(0))


PAIRS = (sampling.balanced_pairs, sampling.random_pairs)


@pytest.mark.parametrize("draw", PAIRS)
def test_pairs_are_of_two_images_and_labelled_right(draw):
    left, right, same = draw(LABELS, np.random.default_rng(0))
    assert len(left) == len(right) == len(same) == len(LABELS) and same.dtype == bool
    np.testing.assert_array_equal(LABELS[left] == LABELS[right], same)
    assert (left != right).all()


def test_balanced_pairs_take_every_image_and_take_turns():
    left, _, same = sampling.balanced_pairs(LABELS, np.random.default_rng(0))
    assert sorted(left.tolist()) == list(range(len(LABELS)))
    assert same.tolist() == [True, False] * (len(LABELS) // 2)


def test_random_pairs_are_balanced_by_chance_only():
    shares = [
        sampling.random_pairs(LABELS, np.random.default_rng(seed))[2].mean() for seed in range(50)
    ]
    assert len(set(shares)) > 10
    # binomial(400, 1/2): standard deviation of a share 0.025, of the mean of 50 shares 0.0035
    assert abs(np.mean(shares) - 0.5) < 5 * 0.0035


@pytest.mark.parametrize("draw", PAIRS)
def test_every_other_image_of_a_class_has_the_same_chance(draw):
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 1])
    counts = np.zeros((2, 10, 10))
    for seed in range(3000):
        left, right, same = draw(labels, np.random.default_rng(seed))
        np.add.at(counts, (same.astype(int), left, right), 1)
    for kind in (0, 1):
        for i in range(10):
            partners = np.flatnonzero((labels == labels[i]) == kind)
            partners = partners[partners != i]
            others = np.setdiff1d(np.arange(10), partners)
            assert counts[kind, i, others].sum() == 0
            expected = counts[kind, i].sum() / len(partners)
            assert np.abs(counts[kind, i, partners] - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("draw", PAIRS)
def test_no_pairs_of_one_image_or_one_class(draw):
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="two images of each class: class 'dog' has 1"):
        draw(np.array([0, 0, 1]), rng, ["cat", "dog"])
    with pytest.raises(UserError, match="at least two classes"):
        draw(np.zeros(4, int), rng)
