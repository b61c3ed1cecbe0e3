"""Siamese networks: the mathematics against NumPy, the method on images it can learn."""

from __future__ import annotations

import keras
import method_runs
import numpy as np
import pytest

from keras_cnn import models
from keras_cnn.data.sampling import balanced_pairs, random_pairs
from keras_cnn.deck import siamese_inverted
from keras_cnn.errors import UserError
from keras_cnn.methods import batch_contrast, siamese

# Ten pairs: lengths around the margin, so that some of them are pushed and some are not.
EMBEDDINGS = np.random.default_rng(0).normal(scale=0.5, size=(20, 4)).astype("float32")
TARGETS = np.array([1, 0, 0, 1, 0, 1, 1, 0, 0, 0])


def numpy_losses(embeddings, targets, margin):
    """Pair by pair, in float64."""
    losses = []
    for pair, together in enumerate(targets):
        apart = np.linalg.norm(
            embeddings[pair].astype("float64") - embeddings[pair + len(targets)].astype("float64")
        )
        losses.append(apart**2 / 2 if together else max(margin - apart, 0.0) ** 2 / 2)
    return np.array(losses)


@pytest.mark.every_backend
@pytest.mark.parametrize("margin", [1.0, 1.5])
def test_the_loss_is_that_of_numpy(margin):
    expected = numpy_losses(EMBEDDINGS, TARGETS, margin)
    assert 0 < (expected == 0).sum() < 6, "some pairs are far enough apart"
    for targets in (TARGETS, TARGETS.astype("float32"), TARGETS[:, None]):
        tensors = [keras.ops.convert_to_tensor(array) for array in (targets, EMBEDDINGS)]
        losses = siamese.contrastive_loss(*tensors, margin)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(losses), expected, atol=1e-5)


@pytest.mark.every_backend
def test_the_losss_gradient_is_that_of_finite_differences():
    # A layer whose kernel is the embeddings: a step of SGD at rate 1 takes their gradient away.
    layer = keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((20,)), layer])
    layer.set_weights([EMBEDDINGS])

    def loss(targets, embeddings):
        return siamese.contrastive_loss(targets, embeddings, 1.0)

    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss)
    model.train_on_batch(np.eye(20, dtype="float32"), TARGETS)
    gradient = EMBEDDINGS - layer.get_weights()[0]
    for i, j in np.ndindex(20, 4):
        step = np.zeros((20, 4))
        step[i, j] = 1e-5
        above = numpy_losses(EMBEDDINGS + step, TARGETS, 1.0).mean()
        below = numpy_losses(EMBEDDINGS - step, TARGETS, 1.0).mean()
        assert gradient[i, j] == pytest.approx((above - below) / 2e-5, abs=2e-6)


@pytest.mark.every_backend
def test_a_pair_of_one_place_has_a_finite_gradient():
    layer = keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=lambda targets, embeddings: siamese.contrastive_loss(targets, embeddings, 1.0),
    )
    model.train_on_batch(np.ones((4, 2), "float32"), np.array([0, 1]))
    assert np.isfinite(layer.get_weights()[0]).all()


def test_batches_hold_left_images_then_right_ones_and_their_targets():
    pairs = (np.arange(5), np.arange(10, 15), np.array([True, False, False, True, True]))
    first, second = siamese.batches(pairs, 3)
    assert first[0].tolist() == [0, 1, 2, 10, 11, 12] and first[1].tolist() == [1, 0, 0]
    assert second[0].tolist() == [3, 4, 13, 14] and second[1].tolist() == [1, 1]
    inverted = siamese.batches(siamese_inverted.inverted(pairs), 3)
    assert [targets.tolist() for _, targets in inverted] == [[0, 1, 1], [0, 0]]


def test_the_fitted_threshold_is_the_best_one():
    rng = np.random.default_rng(0)
    for _ in range(200):
        apart = rng.integers(0, 6, 12).astype("float32")  # with equal distances
        same = rng.random(12) < 0.5
        found = siamese.fitted_threshold(apart, same)
        best = max(
            numpy_accuracy(apart, same, threshold) for threshold in (*(np.arange(6) - 0.5), np.inf)
        )
        assert numpy_accuracy(apart, same, found) == best
    apart, same = np.array([0.1, 0.9, 0.3, 0.7]), np.array([True, False, True, False])
    assert siamese.fitted_threshold(apart, same) == pytest.approx(0.5)


def test_the_nearest_mean_is_that_of_distances():
    means = np.random.default_rng(1).normal(size=(3, 4))
    labels = np.arange(20) % 3
    apart = np.linalg.norm(EMBEDDINGS[:, None] - means, axis=2)
    expected = (apart.argmin(axis=1) == labels).mean()
    assert siamese.nearest_mean_accuracy(EMBEDDINGS, labels, means) == expected


def trained(shots=20, test_images=200, method=siamese, **settings):
    train, test = method_runs.synthetic(shots, test_images)
    network = models.classifier("fewshot_cnn", 10, 16, seed=213)
    settings = {"embedding": 16, "batch_size": 40} | settings
    return method_runs.trained(method.train, network, train, test, **settings), train, test


def numpy_pairs(result, split, draw, *seed):
    """Of pairs drawn again: distances, whether of one class, and embeddings, left before right.

    The method draws train pairs by the run's seed and the epoch, test pairs by (seed, 0, 1).
    """
    left, right, same = draw(split.labels, np.random.default_rng(seed))
    places = method_runs.embedded(result, split)[np.concatenate([left, right])]
    return np.linalg.norm(places[: len(left)] - places[len(left) :], axis=1), same, places


def numpy_accuracy(apart, same, threshold):
    """Pair by pair."""
    return np.mean([bool(d < threshold) == bool(s) for d, s in zip(apart, same, strict=True)])


@pytest.mark.every_backend
def test_it_learns_from_pairs_and_gives_back_what_it_promises(tmp_path):
    result, train, test = trained(epochs=10, learning_rate=3e-3)
    first, last = result.history[0], result.history[-1]
    assert last["train_loss"] < 0.8 * first["train_loss"]
    assert last["train_accuracy"] > 0.65 and result.measures["pair_accuracy"] > 0.6  # of two
    assert last["test_accuracy"] > 0.25  # of ten

    # The threshold is the one that is best for the last epoch's train pairs.
    apart, same, _ = numpy_pairs(result, train, balanced_pairs, 213, 9)
    near = np.sort(apart)
    threshold = max((near[1:] + near[:-1]) / 2, key=lambda x: numpy_accuracy(apart, same, x))
    assert last["train_accuracy"] == pytest.approx(numpy_accuracy(apart, same, threshold))
    apart, same, places = numpy_pairs(result, test, balanced_pairs, 213, 0, 1)
    accuracy = numpy_accuracy(apart, same, threshold)
    assert result.measures["pair_accuracy"] == pytest.approx(accuracy)
    assert last["test_loss"] == pytest.approx(numpy_losses(places, same, 1.0).mean(), rel=1e-4)

    # The classifier is the nearest class mean of the shots' embeddings, and what was measured.
    of_train, of_test = method_runs.embedded(result, train), method_runs.embedded(result, test)
    means = np.stack([of_train[train.labels == label].mean(axis=0) for label in range(10)])
    apart = np.linalg.norm(of_test[:, None] - means, axis=2).astype("float64")
    hits = apart.argmin(axis=1) == test.labels
    assert last["test_accuracy"] == pytest.approx(hits.mean(), abs=0.006)  # one image on the edge
    softmax = np.exp(-(apart**2))
    softmax /= softmax.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.probabilities, softmax, atol=1e-5)
    method_runs.assert_saved_whole(result, test.images, tmp_path)


def numpy_batch_losses(embeddings, labels, temperature):
    """Image by image, in float64, as the paper writes it."""
    losses = []
    for i, z in enumerate(embeddings.astype("float64")):
        near = {a: np.exp(z @ embeddings[a] / temperature) for a in range(len(labels)) if a != i}
        alike = [a for a in near if labels[a] == labels[i]]
        shares = [near[a] / sum(near.values()) for a in alike]
        losses.append(-np.mean(np.log(shares)) if alike else 0.0)
    return np.array(losses)


@pytest.mark.every_backend
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_of_a_batch_is_that_of_numpy(temperature):
    labels = np.array([0, 1, 1, 2, 0, 3, 1, 0, 2, 0])  # 3 is alone
    unit = EMBEDDINGS[:10] / np.linalg.norm(EMBEDDINGS[:10], axis=1, keepdims=True)
    found = batch_contrast.loss(*map(keras.ops.convert_to_tensor, (labels, unit)), temperature)
    expected = numpy_batch_losses(unit, labels, temperature)
    assert expected[5] == 0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)


def test_batches_hold_each_image_once_with_its_label():
    labels = np.arange(10) % 3
    drawn = batch_contrast.batches(labels, 4, [1])
    assert [len(indices) for indices, _ in drawn] == [4, 4, 2]
    indices, targets = map(np.concatenate, zip(*drawn, strict=True))
    assert sorted(indices) == list(range(10)) and (targets == labels[indices]).all()


@pytest.mark.every_backend
def test_it_learns_from_whole_batches(tmp_path):
    result, _, test = trained(epochs=6, learning_rate=3e-4, contrast="batch")
    first, last = result.history[0], result.history[-1]
    assert last["train_loss"] < 0.8 * first["train_loss"]
    assert last["train_accuracy"] > 0.75 and last["test_accuracy"] > 0.5  # of two, of ten
    places = method_runs.embedded(result, test)
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1, atol=1e-5)
    drawn = batch_contrast.batches(test.labels, 40, [213])
    losses = [numpy_batch_losses(places[indices], labels, 0.2) for indices, labels in drawn]
    assert last["test_loss"] == pytest.approx(np.concatenate(losses).mean(), rel=1e-3)
    method_runs.assert_saved_whole(result, test.images, tmp_path)


@pytest.mark.every_backend
def test_as_the_deck_ran_it_stays_at_chance_of_two():
    result, train, test = trained(epochs=6, learning_rate=2e-3, method=siamese_inverted)
    last = result.history[-1]
    # 200 pairs of chance: standard deviation 0.035. It may learn the reverse, never the right.
    assert last["test_accuracy"] < 0.6 and last["train_accuracy"] < 0.6
    assert last["test_accuracy"] > 0.3
    assert result.measures["pair_accuracy"] == last["test_accuracy"]

    # Pairs nearer than half the margin are called the same, though training pulled the others.
    apart, same, _ = numpy_pairs(result, train, random_pairs, 213, 5)
    assert last["train_accuracy"] == pytest.approx(numpy_accuracy(apart, same, 0.5))
    apart, same, places = numpy_pairs(result, test, random_pairs, 213, 0, 1)
    assert last["test_accuracy"] == pytest.approx(numpy_accuracy(apart, same, 0.5))
    assert last["test_loss"] == pytest.approx(numpy_losses(places, ~same, 1.0).mean(), rel=1e-4)


def test_too_few_images_show_before_training():
    with pytest.raises(UserError, match=r"two images of each class: class '.*' has 1"):
        trained(shots=1, epochs=10**6)
