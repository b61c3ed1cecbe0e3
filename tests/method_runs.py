"""A method's `train` on few synthetic images of 16 pixels, for the tests of several methods."""

from __future__ import annotations

from types import ModuleType

import keras
import numpy as np

from keras_cnn import data, environment
from keras_cnn.data import Split
from keras_cnn.data.sampling import draw_shots
from keras_cnn.methods import Outcome, networks
from keras_cnn.models import heads
from keras_cnn.recipe.resolve import Run
from keras_cnn.results import store


def trained(
    method: ModuleType, shots: int, test_images: int, model: dict, training: dict
) -> tuple[Outcome, Split, Split]:
    """What `method.train` gives, and the images: `shots` of each of ten classes to train on."""
    run = Run.model_validate(
        {
            "recipe": "any",
            "row": "1",
            "variant": "any",
            "repeat": 0,
            "profile": "mini",
            "backend": keras.backend.backend(),
            "comparable": False,
            "data": {"data": f"synthetic:{max(test_images, 10 * shots)}", "image_size": 16},
            "model": {"model": "fewshot_cnn", "weights": "random", **model},
            "feeding": {},
            "training": training,
        }
    )
    dataset = data.load(run.data.data, 16)
    chosen = draw_shots(dataset.splits["train"].labels, shots, run.shots_seed)
    train, test = dataset.splits["train"], dataset.splits["test"]
    train = Split(np.asarray(train.images[chosen]), train.labels[chosen])
    test = Split(np.asarray(test.images[:test_images]), test.labels[:test_images])
    environment.seed_everything(run.training_seed)
    reports = []
    outcome = method.train(run, train, test, list(dataset.class_names), reports.append)
    assert reports == outcome.history
    for epoch, record in enumerate(outcome.history, start=1):
        assert tuple(record) == store.HISTORY_COLUMNS and record["epoch"] == epoch
        assert np.isfinite(list(record.values())).all()
    return outcome, train, test


def embedded(outcome: Outcome, split: Split) -> np.ndarray:
    """What the saved model's graph gives before its class means."""
    logits = outcome.model.get_layer(heads.LOGITS)
    return networks.outputs(keras.Model(outcome.model.input, logits.input), split.images)
