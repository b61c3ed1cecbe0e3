"""Logistic regression on a backbone's features (Alain and Bengio 2016, arXiv:1610.01644)."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods import on_features
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.on_features import Head
from keras_cnn.methods.settings import LinearProbe

VERSION = 2  # raised when a change makes the same settings give another result
MOST_ITERATIONS = 2000
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)  # to choose from
MOST_FOLDS = 5


@method(LinearProbe)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: LinearProbe,
    seed: int,
    report: Report,
) -> Learned:
    """Fits scikit-learn's logistic regression to the standardised features of the shots.

        network = models.classifier("convnext_atto", class_count=10, weights="bundled")
        trained = methods.linear_probe.train(network, train, test)

    Returns:
        A history of one record, and the network with the regression as its head.

    Raises:
        UserError: A class has no training image.
    """
    return on_features.learn(
        network,
        train,
        test,
        report,
        partial(fit, strength=settings.regularization_strength, balanced=settings.balanced),
    )


def fit(
    features: np.ndarray, labels: np.ndarray, strength: float | None, balanced: bool = False
) -> Head:
    """A logistic regression, its standardisation folded in.

    Args:
        features: (n, channels).
        labels: (n,), every class from 0 on at least once.
        strength: The inverse of scikit-learn's C. None takes that of `STRENGTHS` with the least
            loss in cross-validation, or 1 where a class has a single image.
        balanced: Weigh images so that every class counts alike.

    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    spread[spread < 1e-6 * max(spread.max(), 1e-30)] = np.inf  # a constant feature says nothing
    standardised = (features - mean) / spread
    basis = None
    if len(features) < features.shape[1]:
        # The penalty keeps the weights in the span of the images: few suffice to tell them.
        left, scale, basis = np.linalg.svd(standardised, full_matrices=False)
        standardised = left * scale
    weight = "balanced" if balanced else None
    model = LogisticRegression(
        C=1 / (strength or 1.0), class_weight=weight, max_iter=MOST_ITERATIONS
    )
    folds = min(MOST_FOLDS, np.bincount(labels).min())
    if strength is None and folds > 1:
        choices = {"C": [1 / choice for choice in STRENGTHS]}
        search = GridSearchCV(
            model, choices, scoring="neg_log_loss", cv=StratifiedKFold(folds), refit=False
        )
        model.set_params(**search.fit(standardised, labels).best_params_)
    model.fit(standardised, labels)
    weights, bias = model.coef_, model.intercept_  # (classes, channels), (classes,)
    if basis is not None:
        weights = weights @ basis
    if len(weights) == 1:  # two classes: the logits of the second against the first
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    kernel = (weights / spread).T  # (classes, channels) -> (channels, classes)
    return Head(kernel, bias - mean @ kernel)
