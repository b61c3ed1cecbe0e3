"""Nearest class mean on a backbone's features (SimpleShot, Wang et al. 2019, arXiv:1911.04623).

The paper centres features on the mean of the classes that trained the backbone. Their images are
not at hand here: features are centred on the mean of the shots.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods import Outcome, on_features
from keras_cnn.models import heads
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.settings import NearestMean
from keras_cnn.training.callbacks import Report


def train(run: Run, train: Split, test: Split, class_names: list[str], report: Report) -> Outcome:
    """Classifies by the nearest of the classes' mean features.

    Args:
        run: What to do; `run.training` is a `NearestMean`.
        train: Images (n, h, w, 3) uint8 and labels (n,) the means are of.
        test: The same, to evaluate on.
        class_names: In the order of the labels.
        report: Called with the one record.

    Returns:
        A history of one record, the test images' probabilities (n, classes): the softmax of minus
        the squared distances; and the model to save.
    """
    settings: NearestMean = run.training

    def head(
        features: keras.KerasTensor, shots: np.ndarray, labels: np.ndarray
    ) -> keras.KerasTensor:
        center = shots.mean(axis=0) if settings.centered else np.zeros_like(shots[0])
        if settings.centered:
            features = keras.layers.Normalization(
                mean=center.tolist(), variance=np.ones_like(center).tolist(), name="head_centering"
            )(features)
        features = heads.embedding(features, None, settings.normalised, run.training_seed)
        moved = shots - center
        if settings.normalised:
            moved = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        means = heads.class_means(moved, labels, len(class_names))
        return heads.prototype_logits(features, means, "squared_euclidean")

    return on_features.classify(run, train, test, report, head)
