"""Prototypical networks: the mathematics against NumPy, the method on images it can learn."""

from __future__ import annotations

import keras
import method_runs
import numpy as np
import pytest
from scipy import stats

from keras_cnn import models, statistics
from keras_cnn.data.sampling import draw_episodes
from keras_cnn.deck import prototypical_split_batches
from keras_cnn.deck.settings import PrototypicalSplitBatches
from keras_cnn.errors import UserError
from keras_cnn.methods import prototypical
from keras_cnn.models import heads, saved
from keras_cnn.training import batch_size, evaluation
from keras_cnn.training.metrics import cross_entropy, hits

DISTANCES = ("squared_euclidean", "euclidean", "cosine")
RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(14, 6)).astype("float32")


def numpy_logits(queries, prototypes, distance):
    """Image by image, prototype by prototype, in float64."""
    found = np.empty((len(queries), len(prototypes)))
    for i, z in enumerate(queries.astype("float64")):
        for j, p in enumerate(prototypes.astype("float64")):
            if distance == "cosine":
                found[i, j] = z @ p / np.linalg.norm(z) / np.linalg.norm(p)
            else:
                power = {"euclidean": 1, "squared_euclidean": 2}[distance]
                found[i, j] = -(np.linalg.norm(z - p) ** power)
    return found


def numpy_losses(found, labels):
    return np.array(
        [np.log(np.exp(row).sum()) - row[label] for row, label in zip(found, labels, strict=True)]
    )


def of_queries(figure, distance="squared_euclidean", support_shots=2):
    """A figure of the queries of an episode of three ways, two support images each."""
    return lambda labels, embeddings: figure(
        *prototypical.queries(labels, embeddings, 3, support_shots, distance)
    )


@pytest.mark.every_backend
@pytest.mark.parametrize("distance", DISTANCES)
def test_prototypes_distances_and_losses_are_those_of_numpy(distance):
    labels = np.array([0, 2, 1, 1, 0, 2, 2, 0, 1, 1, 0, 2, 2, 1])  # six of support, eight queries
    # Labels come as any type: Keras hands a loss floats, a metric integers.
    for given in (labels, labels.astype("float32"), labels[:, None]):
        tensors = [keras.ops.convert_to_tensor(array) for array in (given, EMBEDDINGS)]
        answers, found = prototypical.queries(*tensors, 3, 2, distance)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(answers), labels[6:])
        support = EMBEDDINGS[:6].astype("float64")
        prototypes = np.stack(
            [support[[0, 4]].mean(0), support[[2, 3]].mean(0), support[[1, 5]].mean(0)]
        )
        expected = numpy_logits(EMBEDDINGS[6:], prototypes, distance)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)
        losses = keras.ops.convert_to_numpy(of_queries(cross_entropy, distance)(*tensors))
        np.testing.assert_allclose(losses, numpy_losses(expected, labels[6:]), atol=1e-5)
        right = keras.ops.convert_to_numpy(of_queries(hits, distance)(*tensors))
        np.testing.assert_array_equal(right, expected.argmax(axis=1) == labels[6:])
        assert 0 < right.mean() < 1


@pytest.mark.every_backend
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_losss_gradient_is_that_of_finite_differences(distance):
    labels = np.array([0, 2, 1, 1, 0, 2, 2, 0, 1])

    def loss(embeddings):
        prototypes = np.stack([embeddings[:6][labels[:6] == way].mean(axis=0) for way in range(3)])
        return numpy_losses(numpy_logits(embeddings[6:], prototypes, distance), labels[6:]).mean()

    # A layer whose kernel is the embeddings: a step of SGD at rate 1 takes their gradient away.
    layer = keras.layers.Dense(6, use_bias=False)
    model = keras.Sequential([keras.Input((9,)), layer])
    layer.set_weights([EMBEDDINGS[:9]])
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=of_queries(cross_entropy, distance))
    model.fit(np.eye(9), labels, batch_size=9, shuffle=False, verbose=0)
    gradient = EMBEDDINGS[:9] - layer.get_weights()[0]
    for i, j in np.ndindex(9, 6):
        step = np.zeros((9, 6))
        step[i, j] = 1e-5
        slope = (loss(EMBEDDINGS[:9] + step) - loss(EMBEDDINGS[:9] - step)) / 2e-5
        assert gradient[i, j] == pytest.approx(slope, abs=2e-6)


@pytest.mark.every_backend
def test_a_query_on_its_prototype_has_a_finite_gradient():
    """One shot, and an image like it: the distance is 0, where a root has no slope."""
    alike = of_queries(cross_entropy, "euclidean", support_shots=1)
    inputs = np.repeat(EMBEDDINGS[:3], 2, axis=0)[[0, 2, 4, 1, 3, 5]]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=alike)
    model.fit(inputs, np.tile(np.arange(3), 2), batch_size=6, shuffle=False, verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.every_backend
def test_absent_classes_are_dropped_and_labels_behind_them_mean_others():
    """By hand: the support shows classes a, c and e of five.

    They are the columns 0, 1 and 2. A query of b (1) then counts as right at c, one of c (2) at e,
    and one of d (3) never.
    """
    settings = PrototypicalSplitBatches(support_images=3)
    a, c, e = np.eye(3, dtype="float32")
    embeddings = np.stack([a, c, e, a, c, c, e, e])
    labels = np.array([0, 1, 2, 0, 1, 2, 2, -1])  # queries: an a, a b, two cs, a d, as they are
    tensors = [keras.ops.convert_to_tensor(array) for array in (labels, embeddings)]
    answers, found = prototypical_split_batches.queries(*tensors, 5, settings)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(hits(answers, found)), [1, 1, 0, 1, 0])
    losses = prototypical_split_batches.cross_entropy(answers, found)
    near = np.log(1 + 2 * np.exp(-np.sqrt(2)))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(losses), [near, near, near + np.sqrt(2), near, 0], atol=1e-5
    )  # the two classes that are not there take no part


def test_the_interval_is_students():
    accuracies = np.random.default_rng(1).random(40)
    low, high = stats.t.interval(0.95, 39, accuracies.mean(), stats.sem(accuracies))
    assert statistics.half_width(accuracies.std(ddof=1), len(accuracies)) == pytest.approx(
        (high - low) / 2
    )


@pytest.mark.every_backend
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_head_classifies_as_the_distances_do(distance, tmp_path):
    """Embeddings of any length, prototypes too."""
    prototypes = np.random.default_rng(2).normal(size=(4, 6)).astype("float32")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, heads.prototype_logits(inputs, prototypes, distance))
    saved.save(model, tmp_path / "model.keras", {})
    loaded, _ = saved.load(tmp_path / "model.keras")
    found = np.asarray(loaded.predict(EMBEDDINGS, verbose=0))
    expected = numpy_logits(EMBEDDINGS, prototypes, distance)
    if distance == "squared_euclidean":  # up to what softmax does not see
        expected += np.square(EMBEDDINGS).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_figures_of_all_images_are_means_over_them_however_they_are_cut():
    """More images than are looked at in one go, the last of them fewer."""
    count = batch_size.MOST + 50
    embeddings, labels = RNG.normal(size=(count, 6)).astype("float32"), np.arange(count) % 4
    means = keras.ops.convert_to_tensor(RNG.normal(size=(4, 6)).astype("float32"))
    found = evaluation.means_over_images(
        lambda some: prototypical.distance_logits(some, means, "squared_euclidean"),
        embeddings,
        labels,
    )
    expected = numpy_logits(embeddings, keras.ops.convert_to_numpy(means), "squared_euclidean")
    accuracy = (expected.argmax(axis=1) == labels).mean()
    assert found == pytest.approx((numpy_losses(expected, labels).mean(), accuracy), rel=1e-5)


def trained(shots=20, test_images=200, method=prototypical, unfrozen_stages=None, **settings):
    train, test = method_runs.synthetic(shots, test_images)
    network = models.classifier("fewshot_cnn", 10, 16, unfrozen_stages=unfrozen_stages, seed=213)
    if method is prototypical:
        of_episodes = {"support_shots": 4, "query_shots": 6, "evaluation_episodes": 20}
        settings = of_episodes | settings
    settings = {"embedding": 16} | settings
    return method_runs.trained(method.train, network, train, test, **settings), train, test


@pytest.mark.every_backend
def test_it_learns_from_episodes_and_gives_back_what_it_promises(tmp_path):
    result, train, test = trained(epochs=3, episodes_an_epoch=15)
    first, last = result.history[0], result.history[-1]
    assert last["train_loss"] < 0.8 * first["train_loss"]
    assert last["train_accuracy"] > 0.5 and last["test_accuracy"] > 0.35  # chance is 0.1

    # The episodes are drawn from the test images, by the run's seed: 4 support images, 6 queries.
    places, accuracies = method_runs.embedded(result, test), []
    rng = np.random.default_rng([213, 0, 1])
    for drawn, labels in draw_episodes(test.labels, 20, None, 4, 6, rng):
        support, queries = places[drawn[:40]], places[drawn[40:]]
        means = np.stack([support[labels[:40] == label].mean(axis=0) for label in range(10)])
        found = numpy_logits(queries, means, "squared_euclidean")
        accuracies.append((found.argmax(axis=1) == labels[40:]).mean())
    assert result.measures["episode_accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-3)
    reach = stats.t.ppf(0.975, 19) * stats.sem(accuracies)
    assert result.measures["episode_interval"] == pytest.approx(reach, rel=0.02)

    # The last record's test figures are those of the full test set by all shots' prototypes.
    places = method_runs.embedded(result, train)
    prototypes = np.stack([places[train.labels == label].mean(axis=0) for label in range(10)])
    expected = numpy_logits(method_runs.embedded(result, test), prototypes, "squared_euclidean")
    accuracy = (expected.argmax(axis=1) == test.labels).mean()
    assert last["test_accuracy"] == pytest.approx(accuracy, abs=0.006)  # one image on the edge
    assert last["test_loss"] == pytest.approx(
        numpy_losses(expected, test.labels).mean(), rel=1e-3, abs=1e-4
    )
    softmax = np.exp(expected - expected.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.probabilities, softmax, atol=1e-4)
    method_runs.assert_saved_whole(result, test.images, tmp_path)


@pytest.mark.every_backend
def test_as_the_deck_ran_it(tmp_path):
    result, _, test = trained(
        epochs=6,
        learning_rate=3e-3,
        batch_size=64,
        support_images=48,
        method=prototypical_split_batches,
    )
    first, last = result.history[0], result.history[-1]
    assert last["train_loss"] < first["train_loss"]
    assert last["test_accuracy"] > 0.2
    assert result.measures.keys() == {"test_accuracy_over_images"}  # no episodes of the method's
    # The test figures are means over the batches; of 200 images the last has 8, without a query.
    rng = np.random.default_rng([213, 5, 1])
    order = rng.permutation(200)
    places = method_runs.embedded(result, test)
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1, atol=1e-5)
    accuracies, losses = [], []
    for start in (0, 64, 128):
        support, queries = np.split(order[start : start + 64], [48])
        present = np.unique(test.labels[support])
        prototypes = np.stack(
            [places[support][test.labels[support] == label].mean(axis=0) for label in present]
        )
        found = numpy_logits(places[queries], prototypes, "euclidean")
        assert len(present) == 10, "no shift here: the hand-made example has one"
        accuracies.append((found.argmax(axis=1) == test.labels[queries]).mean())
        losses.append(numpy_losses(found, test.labels[queries]).mean())
    assert last["test_accuracy"] == pytest.approx(np.mean(accuracies), abs=1 / 48 + 1e-6)
    assert last["test_loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    method_runs.assert_saved_whole(result, test.images, tmp_path)


def test_too_few_images_show_before_training():
    with pytest.raises(UserError, match=r"class '.*' has 8 images; 10 are needed"):
        trained(shots=8, epochs=10**6)
    with pytest.raises(UserError, match="way is 11: there are 10 classes"):
        trained(way=11, epochs=10**6)
    with pytest.raises(UserError, match="leave no query beside 300 support_images"):
        trained(
            batch_size=400,
            support_images=300,
            epochs=10**6,
            method=prototypical_split_batches,
        )


def test_few_test_images_make_smaller_episodes():
    result, *_ = trained(epochs=1, episodes_an_epoch=2, test_images=50)  # 5 a class, not 10
    assert 0 <= result.measures["episode_accuracy"] <= 1
    for fewest, support, query in ((2, 1, 1), (3, 1, 2), (7, 3, 4), (9, 4, 5), (10, 5, 5)):
        labels = np.repeat([0, 1], [20, fewest])
        assert evaluation.affordable(5, 5, labels, 2) == (support, query)
    assert evaluation.affordable(5, 5, np.repeat([0, 1], [20, 1]), 2) is None
    assert evaluation.affordable(5, 5, np.repeat([0], 20), 2) is None
