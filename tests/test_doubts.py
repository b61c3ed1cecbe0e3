from __future__ import annotations

import numpy as np
import pytest

from keras_cnn.teach.doubts import doubts


def test_a_hand_computation():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 0])
    probabilities = np.array(
        [
            [0.90, 0.05, 0.05],
            [0.30, 0.60, 0.10],  # log margin log(0.5)
            [0.02, 0.08, 0.90],  # log(1/45)
            [0.20, 0.70, 0.10],
            [0.50, 0.40, 0.10],  # log(0.8)
            [0.10, 0.00, 0.90],
            [0.60, 0.00, 0.40],  # log(2/3)
            [np.nan, np.nan, np.nan],
        ]
    )
    found = doubts(labels, probabilities)
    assert found.order.tolist() == [2, 1, 6, 4]
    # Mean probabilities of the given label: (0.9 + 0.3 + 0.02) / 3, (0.7 + 0.4) / 2,
    # (0.9 + 0.4) / 2: 0.407, 0.55, 0.65. Image 4's 0.5 for class 0 is above class 0's 0.407.
    assert np.flatnonzero(found.flagged).tolist() == [1, 2, 4, 6]
    less_sure = probabilities.copy()
    less_sure[1] = [0.46, 0.54, 0.0]  # 0.54 is below class 1's 0.55, 0.46 at 0.46 of class 0
    assert np.flatnonzero(doubts(labels, less_sure).flagged).tolist() == [2, 4, 6]


def test_changed_labels_come_first():
    generator = np.random.default_rng(0)
    true = np.repeat(np.arange(4), 50)
    logits = generator.normal(size=(200, 4)) + 4 * np.eye(4)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    changed = generator.choice(200, 10, replace=False)
    labels = true.copy()
    labels[changed] = (labels[changed] + generator.integers(1, 4, 10)) % 4
    found = doubts(labels, probabilities)
    assert set(found.order[:10]) == set(changed)
    assert found.flagged[changed].sum() >= 6 and found.flagged.sum() == found.flagged[changed].sum()


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_what_is_certain_and_a_class_without_images(probability):
    rows = np.array([[probability, 1 - probability, 0.0], [1.0, 0.0, 0.0]])
    found = doubts(np.array([0, 0]), rows)
    assert found.order.tolist() == ([] if probability else [0])
    assert not found.flagged.any()  # of class 1 there is no image to compare with


def test_no_images():
    found = doubts(np.zeros(0, np.int64), np.zeros((0, 3)))
    assert not len(found.order) and not len(found.flagged)
