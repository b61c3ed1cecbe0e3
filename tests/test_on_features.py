"""What is computed on features, against scikit-learn's own pipelines on the same ones."""

from __future__ import annotations

import method_runs
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_cnn import data, models
from keras_cnn.data import Split
from keras_cnn.methods import linear_discriminant, linear_probe, nearest_mean
from keras_cnn.methods.settings import LinearDiscriminant
from keras_cnn.models import heads
from keras_cnn.training import evaluation


@pytest.fixture(scope="module")
def splits():
    loaded = data.load("digits", 16).splits
    return {
        name: Split(np.asarray(split.images[:200]), split.labels[:200])
        for name, split in loaded.items()
    }


@pytest.fixture
def network():
    return models.classifier("baseline", 10, 16, hidden_units=4, seed=213)


def features_of(network, splits):
    backbone = heads.embedder(network)
    return [evaluation.outputs(backbone, splits[name].images) for name in ("train", "test")]


@pytest.mark.every_backend
def test_the_linear_probe_is_scikit_learns_pipeline(network, splits, tmp_path):
    shots, queries = features_of(network, splits)
    result = method_runs.trained(
        linear_probe.train, network, splits["train"], splits["test"], regularization_strength=2.0
    )
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000))
    pipeline.fit(shots.astype(np.float64), splits["train"].labels)
    expected = pipeline.predict_proba(queries)
    np.testing.assert_allclose(result.probabilities, expected, atol=2e-3)
    (record,) = result.history
    hits = expected.argmax(axis=1) == splits["test"].labels
    assert record["test_accuracy"] == pytest.approx(hits.mean(), abs=0.01)
    assert record["test_accuracy"] > 0.7
    method_runs.assert_saved_whole(result, splits["test"].images, tmp_path, atol=3e-5)


def test_a_probe_of_two_classes_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    features = random.normal(3, [1.0, 5.0, 1e-9, 0.2], (60, 4))
    labels = (features[:, 1] + random.normal(0, 2, 60) > 3).astype(int)
    kernel, bias, *_ = linear_probe.fit(features, labels, 1.0)
    logits = features @ kernel + bias
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    expected = pipeline.fit(features[:, [0, 1, 3]], labels).decision_function(
        features[:, [0, 1, 3]]
    )
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-3)
    assert kernel[2].tolist() == [0, 0]  # the constant feature


def test_the_penalty_is_that_of_least_loss_on_shots_left_out():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 10)
    features = random.normal(0, 1, (30, 40))  # more features than images, a few of them telling
    features[:, :4] += 2 * labels[:, None]
    standardised = (features - features.mean(0)) / features.std(0)
    losses = []
    for strength in linear_probe.STRENGTHS:
        held_out = 0.0
        for fold in range(5):  # two images of each class
            out = np.arange(30) % 10 // 2 == fold
            model = LogisticRegression(C=1 / strength, max_iter=2000)
            model.fit(standardised[~out], labels[~out])
            given = model.predict_proba(standardised[out])[np.arange(out.sum()), labels[out]]
            held_out -= np.log(given).mean()
        losses.append(held_out)
    best = linear_probe.STRENGTHS[int(np.argmin(losses))]
    assert best not in (linear_probe.STRENGTHS[0], linear_probe.STRENGTHS[-1])
    for found, expected in zip(
        linear_probe.fit(features, labels, None),
        linear_probe.fit(features, labels, best),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_with_one_image_a_class_nothing_can_be_left_out():
    features, labels = np.random.default_rng(0).normal(size=(3, 5)), np.arange(3)
    for found, expected in zip(
        linear_probe.fit(features, labels, None),
        linear_probe.fit(features, labels, 1.0),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.every_backend
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
def test_nearest_mean_is_scikit_learns_nearest_centroid(
    network, splits, centered, normalised, tmp_path
):
    shots, queries = (part.astype(np.float64) for part in features_of(network, splits))
    result = method_runs.trained(
        nearest_mean.train,
        network,
        splits["train"],
        splits["test"],
        centered=centered,
        normalised=normalised,
    )
    center = shots.mean(axis=0) if centered else 0.0
    shots, queries = shots - center, queries - center
    if normalised:
        shots, queries = (
            part / np.linalg.norm(part, axis=1, keepdims=True) for part in (shots, queries)
        )
    centroids = NearestCentroid().fit(shots, splits["train"].labels)
    expected = centroids.predict(queries)
    # Float32 may decide a near tie otherwise.
    assert (result.probabilities.argmax(axis=1) == expected).mean() >= 0.995
    squared = ((queries[:, None] - centroids.centroids_) ** 2).sum(axis=-1)  # (n, classes)
    logits = np.log(result.probabilities)
    differences = squared.mean(axis=1, keepdims=True) - squared
    found = logits - logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, differences, atol=0.01 * np.abs(differences).max())
    method_runs.assert_saved_whole(result, splits["test"].images, tmp_path, atol=3e-5)


def test_centering_and_length_matter(network, splits):
    """The four settings are four classifiers, not one under four names."""
    results = [
        nearest_mean.train(
            network, splits["train"], splits["test"], centered=centered, normalised=normalised
        ).probabilities
        for centered in (False, True)
        for normalised in (False, True)
    ]
    plain, of_length_one, centered, both = (found.argmax(axis=1) for found in results)
    assert (plain == centered).mean() >= 0.995  # without lengths, the center changes no distance
    assert (plain != of_length_one).any()
    assert (of_length_one != both).any() and (centered != both).any()


@pytest.mark.parametrize("count", [12, 60])  # fewer than channels, and more
@pytest.mark.parametrize("shrinkage", [0.1, 0.7])
def test_linear_discriminant_is_scikit_learns(count: int, shrinkage: float):
    rng = np.random.default_rng(count)
    labels = np.arange(count) % 3
    features = rng.normal(size=(count, 20)) + rng.normal(size=(3, 20))[labels]
    head = linear_discriminant.fit(features, labels, LinearDiscriminant(shrinkage=shrinkage))
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3)
    new = rng.normal(size=(30, 20))
    expected = theirs.fit(features, labels).predict_proba(new)
    np.testing.assert_allclose(softmax(head.logits(new), axis=1), expected, rtol=1e-6, atol=1e-9)


def test_a_balanced_probe_is_that_of_weighted_images():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 40 + [1] * 8)
    features = rng.normal(size=(48, 5)) + labels[:, None]
    head = linear_probe.fit(features, labels, 1.0, balanced=True)
    scaled = StandardScaler().fit_transform(features)
    weights = np.where(labels == 0, 48 / 80, 48 / 16)
    theirs = LogisticRegression(C=1.0, max_iter=2000).fit(scaled, labels, sample_weight=weights)
    expected = theirs.predict_proba(scaled)
    np.testing.assert_allclose(softmax(head.logits(features), axis=1), expected, atol=1e-4)
