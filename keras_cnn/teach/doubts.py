"""Training images whose label is likely to be wrong: confident learning.

Northcutt, Jiang and Chuang 2021, arXiv:1911.00068. Models of folds say what classes the images have
that they have not seen. With a twentieth of labels changed, on features of three sets of
photographs, the logarithmic margin had more of the changed in the first tenth of its list than the
probability of the given label, than plain margins, and than any of these against each class's own
mean (artifacts/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Doubts:
    """What is to be doubted of labels.

    Attributes:
        order: Indices of the images whose class the folds call another one, most doubtful first.
        flagged: bool (n,), which labels confident learning takes for wrong: the folds are as sure
            of another class as they are, on average, of images that have that label.
    """

    order: np.ndarray
    flagged: np.ndarray


def doubts(labels: np.ndarray, probabilities: np.ndarray) -> Doubts:
    """Ranks labels by how much of them is in doubt.

    Args:
        labels: As given, int64 (n,).
        probabilities: (n, classes), of models that have not seen the image; a row of nan where
            there is none, whose label nobody doubts.
    """
    told = np.isfinite(probabilities).all(axis=1)
    shares = np.where(told[:, None], probabilities, 0.0)
    every = np.arange(len(labels))
    given = shares[every, labels]
    others = shares.copy()
    others[every, labels] = 0
    tiny = np.finfo(np.float64).tiny
    margin = np.log(np.maximum(given, tiny)) - np.log(np.maximum(others.max(axis=1), tiny))
    order = np.argsort(margin, kind="stable")
    return Doubts(order[(told & (margin < 0))[order]], told & _is_flagged(labels, shares, told))


def _is_flagged(labels: np.ndarray, shares: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Off the diagonal of the confident joint, bool (n,)."""
    every, count = np.arange(len(labels)), shares.shape[1]
    sums = np.bincount(labels[told], weights=shares[every, labels][told], minlength=count)
    images = np.bincount(labels[told], minlength=count)
    # Of a class without images nobody knows how sure one can be.
    thresholds = np.where(images > 0, sums / np.maximum(images, 1), np.inf)
    confident = np.where(shares >= thresholds, shares, -1.0)
    return (confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != labels)
