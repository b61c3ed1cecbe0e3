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
    result, test = trained(loop, learning_rate=1e-2)
    for record in result.history:
        assert all(isinstance(value, (int, float)) for value in record.values())
        assert record["learning_rate"] == pytest.approx(1e-2)
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


def test_the_same_seed_gives_the_same_training_and_another_one_another():
    first, second = (trained("corrected", epochs=1)[0] for _ in range(2))
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-6)
    other, _ = trained("corrected", epochs=1, seed=214)
    assert np.abs(first.probabilities - other.probabilities).max() > 1e-5


def test_a_step_schedule_lowers_the_rate():
    result, _ = trained(
        "corrected",
        small_network(unfrozen_stages=0),
        shots=1,
        schedule="step",
        schedule_epochs=1,
        schedule_factor=0.5,
        learning_rate=4e-4,
    )
    rates = [record["learning_rate"] for record in result.history]
    assert rates == pytest.approx([4e-4, 2e-4, 1e-4])


def test_as_run_drops_logits_in_the_first_epoch_only_and_corrected_features_in_each():
    """With nothing to learn from (a rate of almost 0), dropout alone tells train from test loss."""
    gaps = {}
    for loop in LOOPS:
        network = small_network(dropout=0.75, unfrozen_stages=0)
        result, _ = trained(loop, network, learning_rate=1e-9, shots=8)
        losses = np.array([record["train_loss"] for record in result.history])
        gaps[loop] = np.abs(losses - losses[-1])
    assert gaps["as_run"][0] > 1e-2 and gaps["as_run"][1] < 1e-4
    assert gaps["corrected"][0] > 1e-4 and gaps["corrected"][1] > 1e-4  # other features each time


def test_frozen_batchnorm_statistics_move_as_run_and_stand_still_corrected():
    statistics = {}
    for loop in LOOPS:
        network = small_network(unfrozen_stages=1)
        result, _ = trained(loop, network, shots=2, epochs=1, learning_rate=1e-9)
        layers = result.model.layers
        norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
        statistics[loop] = {
            norm.name: float(np.abs(keras.ops.convert_to_numpy(norm.moving_mean)).max())
            for norm in norms
        }
    assert len(statistics["as_run"]) == 4
    for name, moved in statistics["as_run"].items():
        assert moved > 0, name  # they begin at zero
    for name, moved in statistics["corrected"].items():
        assert (moved > 0) == name.startswith("stage4"), name
