"""What probabilities are worth, beyond the accuracy. Plain NumPy."""

from __future__ import annotations

import numpy as np

BINS = 15  # of the calibration error, as Guo et al. 2017 took


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Figures of a classifier on labelled images, by the names of `measures.MEASURES`.

    Args:
        labels: True classes (n,).
        probabilities: (n, classes); rows sum to 1.

    Returns:
        `macro_recall` and `macro_f1`, means over the classes that have images, in [0, 1];
        `negative_log_likelihood`, the mean over images, in nats; `calibration_error`, in [0, 1].
        All nan where a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        names = ("macro_recall", "macro_f1", "negative_log_likelihood", "calibration_error")
        return dict.fromkeys(names, np.nan)
    recall, f1 = _by_class(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    tiny = np.finfo(np.float32).tiny  # finite, where a probability is 0
    return {
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "negative_log_likelihood": float(-np.log(np.maximum(true, tiny)).mean()),
        "calibration_error": calibration_error(labels, probabilities),
    }


def _by_class(
    labels: np.ndarray, predicted: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and F1 of each class that has images."""
    right = np.bincount(labels[labels == predicted], minlength=count)
    images, answers = (np.bincount(which, minlength=count) for which in (labels, predicted))
    there = images > 0
    return (right[there] / images[there], 2 * right[there] / (images + answers)[there])


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599).

    The images are put into bins of equal width by the probability of the predicted class; the mean
    over images of how far the bin's accuracy is from its mean probability. Of few images it is
    above 0 by chance alone.

    Args:
        labels: True classes (n,).
        probabilities: (n, classes).
        bins: How many.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    # (0, 1/bins], (1/bins, 2/bins], …
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
