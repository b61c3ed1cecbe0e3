"""The deck's quirks really happen and are gone when corrected: weights and statistics tell."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from keras_cnn import environment
from keras_cnn.deck import batch_mean
from keras_cnn.models.freeze import freeze
from keras_cnn.torch_fast.model import TrainedModel
from keras_cnn.training import callbacks, optimizers

pytestmark = pytest.mark.every_backend

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("uint8")
LABELS = np.arange(40) % 4


def small_model(dropout=0.0):
    """Four stages of convolution and BatchNorm, named as the backbones name theirs."""
    environment.seed_everything(3)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv2D(4, 3, name="stem_conv")(x)
    for stage in (1, 2, 3, 4):
        x = keras.layers.Conv2D(4, 1, name=f"stage{stage}_conv")(x)
        x = keras.layers.BatchNormalization(momentum=0.5, name=f"stage{stage}_norm")(x)
        x = keras.layers.ReLU(name=f"stage{stage}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features_pool")(x)
    x = keras.layers.Dense(4, name="head_logits")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=1, name="head_dropout")(x)
    return TrainedModel(inputs, x)


class Snapshots(keras.callbacks.Callback):
    """All weights by path, before the first epoch and after each."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def _take(self):
        self.taken.append({w.path: keras.ops.convert_to_numpy(w) for w in self.model.weights})

    def on_train_begin(self, logs=None):
        self._take()

    def on_epoch_end(self, epoch, logs=None):
        self.taken[epoch + 1 :] = []
        self._take()


def fitted(model, sticks, epochs=3, learning_rate=0.01, l2=0.0, optimizer="adam"):
    model.compile(
        optimizer=optimizers.build(optimizer, learning_rate, l2=l2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    snapshots = Snapshots()
    history = model.fit(
        IMAGES,
        LABELS,
        batch_size=16,
        epochs=epochs,
        validation_data=(IMAGES, LABELS),
        validation_batch_size=40,
        verbose=0,
        callbacks=[snapshots, *([callbacks.EvalModeSticks()] if sticks else [])],
    )
    return snapshots.taken, history.history


def moved(snapshots, path):
    """Whether a weight changed in each epoch."""
    return [
        bool(np.abs(after[path] - before[path]).max() > 1e-7)
        for before, after in itertools.pairwise(snapshots)
    ]


def test_eval_mode_sticks_after_the_first_epoch():
    model = small_model()
    freeze(model, None)
    snapshots, _ = fitted(model, sticks=True)
    assert moved(snapshots, "stage4_norm/moving_mean") == [True, False, False]
    assert moved(snapshots, "stage4_norm/moving_variance") == [True, False, False]
    assert moved(snapshots, "stage4_conv/kernel") == [True, True, True]  # weights train on
    assert moved(snapshots, "stage4_norm/gamma") == [True, True, True]


def test_without_it_statistics_go_on_moving():
    model = small_model()
    freeze(model, None)
    snapshots, _ = fitted(model, sticks=False)
    assert moved(snapshots, "stage4_norm/moving_mean") == [True, True, True]


@pytest.mark.parametrize(("sticks", "off"), [(True, [False, True, True]), (False, [False] * 3)])
def test_dropout_is_off_from_the_second_epoch_only_where_eval_mode_sticks(sticks, off):
    model = small_model(dropout=0.75)
    freeze(model, 0)  # BatchNorm on its statistics throughout: only dropout tells the modes apart
    _, history = fitted(model, sticks, learning_rate=1e-9)  # so the weights stand still
    same = np.isclose(history["loss"], history["val_loss"], rtol=1e-4)
    assert same.tolist() == off


def test_frozen_batchnorm_moves_in_the_first_epoch_as_under_requires_grad():
    model = small_model()
    freeze(model, 2, statistics_move=True)
    snapshots, _ = fitted(model, sticks=True)
    assert moved(snapshots, "stage1_norm/moving_mean") == [True, False, False]
    for frozen in ("stem_conv/kernel", "stage2_conv/kernel", "stage2_norm/gamma"):
        assert moved(snapshots, frozen) == [False] * 3
    for training in ("stage3_conv/kernel", "stage4_norm/beta", "head_logits/bias"):
        assert moved(snapshots, training) == [True] * 3


def test_corrected_frozen_stages_do_not_move_at_all():
    model = small_model()
    freeze(model, 2)
    snapshots, _ = fitted(model, sticks=False)
    frozen = [path for path in snapshots[0] if path.startswith(("stem", "stage1", "stage2"))]
    assert len(frozen) == 2 + 2 * 6
    for path in frozen:
        assert moved(snapshots, path) == [False] * 3, path
    assert moved(snapshots, "stage3_norm/moving_mean") == [True] * 3
    assert moved(snapshots, "stage3_conv/kernel") == [True] * 3


def test_only_unfrozen_weights_are_given_to_the_optimizer():
    for statistics_move in (True, False):
        model = small_model()
        freeze(model, 1, statistics_move=statistics_move)
        assert sorted(weight.path for weight in model.trainable_weights) == [
            "head_logits/bias",
            "head_logits/kernel",
            "stage4_conv/bias",
            "stage4_conv/kernel",
            "stage4_norm/beta",
            "stage4_norm/gamma",
        ]


def test_l2_reaches_the_weights_through_fit():
    """One SGD step on all images: the difference to no L2 is rate * l2 * weight, exactly."""
    ends = {}
    for l2 in (0.0, 0.1):
        model = small_model()
        freeze(model, 0)
        start = {w.path: keras.ops.convert_to_numpy(w) for w in model.trainable_weights}
        model.compile(
            optimizer=optimizers.build("sgd", 0.5, l2=l2),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(IMAGES, LABELS, batch_size=40, epochs=1, shuffle=False, verbose=0)
        ends[l2] = {w.path: keras.ops.convert_to_numpy(w) for w in model.trainable_weights}
    assert np.abs(start["head_logits/kernel"]).max() > 0.1
    for path, weight in start.items():
        np.testing.assert_allclose(ends[0.0][path] - ends[0.1][path], 0.05 * weight, atol=1e-5)


def test_batch_mean_lets_the_small_last_batch_weigh_as_much():
    logits = np.random.default_rng(1).normal(size=(40, 4)).astype("float32")
    hits = (logits.argmax(1) == LABELS).astype("float64")
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(40), LABELS]
    for figure, values in ((batch_mean.accuracy, hits), (batch_mean.cross_entropy, losses)):
        metric = batch_mean.BatchMean(figure, "figure")
        for start in (0, 16, 32):  # 16, 16 and 8 images
            metric.update_state(LABELS[start : start + 16], logits[start : start + 16])
        expected = np.mean([values[:16].mean(), values[16:32].mean(), values[32:].mean()])
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
        assert abs(expected - values.mean()) > 1e-4
