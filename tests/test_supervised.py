"""The supervised method as a whole, on images that a small network can learn."""

from __future__ import annotations

import keras
import method_runs
import numpy as np
import pytest

from keras_cnn.deck import supervised_as_run
from keras_cnn.methods import supervised
from keras_cnn.models import freeze, heads

pytestmark = pytest.mark.every_backend

# Each loop, and what the deck's slides on fine-tuning had besides.
LOOPS = {
    "as_run": (
        supervised_as_run.train,
        {"frozen_statistics_move": True, "dropout_on_logits": True},
    ),
    "corrected": (supervised.train, {}),
}


def small_network(dropout=0.0, unfrozen_stages=2):
    """Four stages, named as the backbones name theirs."""
    start = keras.initializers.GlorotUniform(seed=213)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv2D(16, 7, kernel_initializer=start, name="stem_conv")(x)
    for stage in (1, 2, 3, 4):
        start = keras.initializers.GlorotUniform(seed=stage)
        x = keras.layers.Conv2D(16, 1, kernel_initializer=start, name=f"stage{stage}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"stage{stage}_norm")(x)
        x = keras.layers.ReLU(name=f"stage{stage}_relu")(x)
    x = keras.layers.GlobalMaxPooling2D(name="features_pool")(x)
    network = keras.Model(inputs, heads.logits(x, 10, "dense", dropout, seed=213))
    freeze.freeze_stages(network, unfrozen_stages)
    return network


def trained(loop, network=None, shots=4, **settings):
    """What a loop gives for few synthetic images."""
    train, test = method_runs.synthetic(shots, 80, image_size=32)
    method, of_loop = LOOPS[loop]
    settings = {"epochs": 3, "batch_size": 16, **of_loop, **settings}
    return method_runs.trained(method, network or small_network(), train, test, **settings), test


@pytest.mark.parametrize("loop", LOOPS)
def test_it_learns_and_gives_back_what_it_promises(loop, tmp_path):
    result, test = trained(
        loop, learning_rate=1e-2, schedule="step", schedule_epochs=1, schedule_factor=0.8
    )
    for record in result.history:
        assert all(isinstance(value, (int, float)) for value in record.values())
        rate = 1e-2 * 0.8 ** (record["epoch"] - 1)
        assert record["learning_rate"] == pytest.approx(rate)
    assert len(result.history) == 3
    losses = [record["train_loss"] for record in result.history]
    assert losses[-1] < 0.9 * losses[0]

    last = result.history[-1]
    hits = result.probabilities.argmax(axis=1) == test.labels
    chosen = np.log(result.probabilities[np.arange(80), test.labels])
    # 80 images are five whole batches of 16: over batches or images, the means are the same.
    assert last["test_accuracy"] == pytest.approx(hits.mean(), abs=1e-6)
    assert last["test_loss"] == pytest.approx(-chosen.mean(), abs=1e-4)
    method_runs.assert_saved_whole(result, test.images, tmp_path)
