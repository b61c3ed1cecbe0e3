from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import confusion_matrix

from keras_cnn import files
from keras_cnn.models import saved
from keras_cnn.results import predictions
from keras_cnn.results.scores import calibration_error, scores


def drawn(count=200, classes=4, seed=0):
    """Labels, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(0, 1.5, (count, classes)) + 1.5 * np.eye(classes)[labels]
    powers = np.exp(logits)
    return labels, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def test_predictions_read_back_and_give_the_confusion_matrix(tmp_path):
    labels, probabilities = drawn()
    probabilities[3] = np.nan  # as of a model that gives no numbers
    probabilities[5] = [0.25, 0.25, 0.25 + 1e-6, 0.25 - 1e-6]  # equal in 16 bits
    images, names = np.arange(200)[::-1], [f"cat/{number}.png" for number in range(200)]
    predictions.write(
        predictions.of(labels, probabilities, images, names), tmp_path / "predictions.npz"
    )
    found = predictions.read(tmp_path / "predictions.npz")
    assert found.names.tolist() == names and found.images.tolist() == images.tolist()
    assert (found.predicted[3], found.predicted[5]) == (-1, 2)
    np.testing.assert_array_equal(found.classes, range(4))
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-3, atol=1e-7)
    counts = confusion_matrix(found.labels, found.predicted, labels=range(4))  # without -1
    np.testing.assert_array_equal(counts, saved.confusion(labels, probabilities))
    right = probabilities.argmax(axis=1) == labels
    right[3] = False
    hits = predictions.hits(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(hits.right, right)
    np.testing.assert_array_equal(hits.images, images)


def test_of_many_classes_the_true_and_the_most_probable_ones_are_kept(tmp_path):
    labels, probabilities = drawn(50, 200)
    path = tmp_path / "predictions.npz"
    predictions.write(predictions.of(labels, probabilities, np.arange(50)), path)
    found = predictions.read(path)
    assert found.probabilities.shape == found.classes.shape == (50, predictions.MOST_CLASSES)
    np.testing.assert_array_equal(found.classes[:, 0], labels)
    np.testing.assert_array_equal(found.predicted, probabilities.argmax(axis=1))
    kept = zip(probabilities, found.classes, found.probabilities, strict=True)
    for row, classes, numbers in kept:
        np.testing.assert_allclose(numbers, row[classes], rtol=1e-3, atol=1e-7)
        left_out = np.setdiff1d(np.arange(200), classes)
        assert row[left_out].max() <= row[classes[1:]].min()


def test_ninety_thousand_images_are_small(tmp_path):
    labels, probabilities = drawn(90_000, 10)
    path = tmp_path / "predictions.npz"
    predictions.write(predictions.of(labels, probabilities, np.arange(90_000)), path)
    assert path.stat().st_size < 2.5e6  # these know little; sure ones take less


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros(3, np.int32)},
        {"predicted": np.full(200, -2, np.int32)},
        {"images": np.zeros(200, np.int64)},
        {"probabilities": np.zeros((200, 4), np.int8)},
        {"classes": np.zeros(3, np.int32)},
        {"names": np.array(["a"])},
    ],
)
def test_arrays_that_do_not_fit_one_another_are_refused(tmp_path, change):
    path = tmp_path / "predictions.npz"
    whole = predictions.of(*drawn(), np.arange(200))
    predictions.write(replace(whole, **change), path)
    with pytest.raises(ValueError, match="holds something else"):
        predictions.read(path)
    if "labels" in change:
        with pytest.raises(ValueError, match="holds something else"):
            predictions.hits(path)


def test_a_damaged_file_and_one_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "predictions.npz"
    predictions.write(predictions.of(*drawn(), np.arange(200)), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        predictions.read(path)
    path.write_bytes(b"no archive")
    files.seal(path)
    with pytest.raises(ValueError, match="holds something else"):
        predictions.read(path)


def test_scores_are_those_of_scikit_learn():
    labels, probabilities = drawn(300, 5)
    labels[labels == 4] = 3  # a class without images
    found = scores(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    there = {"labels": range(4), "average": "macro"}
    assert found["macro_recall"] == pytest.approx(metrics.recall_score(labels, predicted, **there))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, **there))
    loss = metrics.log_loss(labels, probabilities, labels=range(5))
    assert found["negative_log_likelihood"] == pytest.approx(loss, rel=1e-5)


def test_calibration_error_is_the_mean_gap_of_the_bins():
    labels, probabilities = drawn(300, 5)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    gaps = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            gaps += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(labels, probabilities, bins=10) == pytest.approx(gaps / 300)
    # All sure, half right.
    sure = np.eye(2)[[0, 0, 1, 1]]
    assert calibration_error(np.array([0, 1, 0, 1]), sure) == pytest.approx(0.5)


def test_scores_of_what_is_no_number_are_none():
    labels, probabilities = drawn()
    probabilities[0, 0] = np.nan
    assert all(np.isnan(list(scores(labels, probabilities).values())))
