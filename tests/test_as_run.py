"""The defects of the deck's loop happen there, and are gone in `methods.supervised`.

Weights and statistics tell, before the first epoch and after each.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from keras_cnn import environment
from keras_cnn.data import augment
from keras_cnn.deck import supervised_as_run
from keras_cnn.methods import supervised
from keras_cnn.models.freeze import freeze_stages
from keras_cnn.training.metrics import BatchMean, cross_entropy, hits

every_backend = pytest.mark.every_backend

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("uint8")
LABELS = np.arange(40) % 4
BOTH = (IMAGES, LABELS)


def small_model(dropout=0.0, unfrozen_stages=None):
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
    if dropout:
        x = keras.layers.Dropout(dropout, seed=1, name="head_dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="head_logits")(x))
    if unfrozen_stages is not None:
        freeze_stages(model, unfrozen_stages)
    return model


def weights_of(model):
    """All weights by path."""
    return {w.path: np.array(keras.ops.convert_to_numpy(w)) for w in model.weights}


def fitted(method, model, learning_rate=0.01, **settings):
    """All weights before the first epoch and after each, and the history."""
    snapshots = [weights_of(model)]
    trained = method.train(
        model,
        BOTH,
        BOTH,
        report=lambda record: snapshots.append(weights_of(model)),
        learning_rate=learning_rate,
        **{"epochs": 3, "batch_size": 20} | settings,
    )
    return snapshots, trained.history


def moved(snapshots, path):
    """Whether a weight changed in each epoch."""
    return [
        bool(np.abs(after[path] - before[path]).max() > 1e-7)
        for before, after in itertools.pairwise(snapshots)
    ]


@every_backend
def test_eval_mode_sticks_after_the_first_epoch():
    snapshots, _ = fitted(supervised_as_run, small_model())
    assert moved(snapshots, "stage4_norm/moving_mean") == [True, False, False]
    assert moved(snapshots, "stage4_norm/moving_variance") == [True, False, False]
    assert moved(snapshots, "stage4_conv/kernel") == [True, True, True]  # weights train on
    assert moved(snapshots, "stage4_norm/gamma") == [True, True, True]


@pytest.mark.parametrize(
    ("method", "settings"), [(supervised, {}), (supervised_as_run, {"eval_mode_sticks": False})]
)
def test_without_it_statistics_go_on_moving(method, settings):
    snapshots, _ = fitted(method, small_model(), **settings)
    assert moved(snapshots, "stage4_norm/moving_mean") == [True, True, True]


@pytest.mark.parametrize("on_logits", [False, pytest.param(True, marks=every_backend)])
@pytest.mark.parametrize(
    ("method", "settings", "off"),
    [
        (supervised_as_run, {}, [False, True, True]),
        (supervised_as_run, {"eval_mode_sticks": False}, [False] * 3),
        (supervised, {}, [False] * 3),
    ],
)
def test_dropout_is_off_from_the_second_epoch_only_where_eval_mode_sticks(
    method, settings, off, on_logits
):
    """BatchNorm on its statistics throughout: only dropout tells the modes apart."""
    model = small_model(dropout=0.75, unfrozen_stages=0)
    kernel = model.get_layer("head_logits").kernel
    kernel.assign(30 * kernel)  # what is dropped shows
    if on_logits and method is supervised_as_run:
        settings = settings | {"dropout_on_logits": True}
    elif on_logits:  # a network of a user's own
        model = supervised_as_run.with_dropout_on_logits(model)
    _, history = fitted(method, model, learning_rate=1e-9, **settings)  # so weights stand still
    same = [np.isclose(x["train_loss"], x["test_loss"], rtol=1e-4) for x in history]
    assert same == off


def test_dropout_on_logits_drops_them_and_not_the_features():
    model = small_model(dropout=0.75, unfrozen_stages=0)
    logits = keras.ops.convert_to_numpy(model(IMAGES, training=False))
    after = supervised_as_run.with_dropout_on_logits(model)
    given = keras.ops.convert_to_numpy(after(IMAGES, training=True))
    np.testing.assert_allclose(given[given != 0], 4 * logits[given != 0], rtol=1e-4, atol=1e-6)
    assert (given == 0).mean() == pytest.approx(0.75, abs=0.1)
    whole = keras.ops.convert_to_numpy(after(IMAGES, training=False))
    np.testing.assert_allclose(whole, logits, atol=1e-6)
    plain = small_model()
    assert supervised_as_run.with_dropout_on_logits(plain) is plain


@every_backend
def test_frozen_batchnorm_moves_in_the_first_epoch_as_under_requires_grad():
    model = small_model(unfrozen_stages=2)
    snapshots, _ = fitted(supervised_as_run, model, frozen_statistics_move=True)
    assert moved(snapshots, "stage1_norm/moving_mean") == [True, False, False]
    for frozen in ("stem_conv/kernel", "stage2_conv/kernel", "stage2_norm/gamma"):
        assert moved(snapshots, frozen) == [False] * 3
    for training in ("stage3_conv/kernel", "stage4_norm/beta", "head_logits/bias"):
        assert moved(snapshots, training) == [True] * 3


@pytest.mark.parametrize("augmentation", [pytest.param("none", marks=every_backend), "flip"])
def test_corrected_frozen_stages_do_not_move_at_all(augmentation):
    """Run once for all epochs, or run in each since images change."""
    model = small_model(unfrozen_stages=2)
    snapshots, _ = fitted(supervised, model, augment=augmentation)
    frozen = [path for path in snapshots[0] if path.startswith(("stem", "stage1", "stage2"))]
    assert len(frozen) == 2 + 2 * 6
    for path in frozen:
        assert moved(snapshots, path) == [False] * 3, path
    assert moved(snapshots, "stage3_norm/moving_mean") == [True] * 3
    assert moved(snapshots, "stage3_conv/kernel") == [True] * 3


@pytest.mark.parametrize("statistics_move", [False, pytest.param(True, marks=every_backend)])
def test_only_unfrozen_weights_are_given_to_the_optimizer(statistics_move):
    model = small_model(unfrozen_stages=1)
    if statistics_move:
        supervised_as_run.let_frozen_statistics_move(model)
    assert sorted(weight.path for weight in model.trainable_weights) == [
        "head_logits/bias",
        "head_logits/kernel",
        "stage4_conv/bias",
        "stage4_conv/kernel",
        "stage4_norm/beta",
        "stage4_norm/gamma",
    ]


@every_backend
def test_l2_reaches_the_weights_through_fit():
    """One SGD step on all images: the difference to no L2 is rate * l2 * weight, exactly."""
    one_step = {"optimizer": "sgd", "learning_rate": 0.5, "batch_size": 40, "epochs": 1}
    ends = {}
    for l2 in (0.0, 0.1):
        model = small_model(unfrozen_stages=0)
        (start, ends[l2]), _ = fitted(supervised, model, l2=l2, **one_step)
    assert np.abs(start["head_logits/kernel"]).max() > 0.1
    for path in ("head_logits/kernel", "head_logits/bias"):
        difference = ends[0.0][path] - ends[0.1][path]
        np.testing.assert_allclose(difference, 0.05 * start[path], atol=1e-5)


def test_augmentation_is_drawn_once_with_labels_whole_or_anew_with_shares():
    """At a rate of almost 0 an epoch's train loss is that of the images it was given."""
    drawn = {"augment": "cutmix", "augment_share": 1.0, "learning_rate": 1e-9}
    expected = {}
    for seed in (213, 5):
        images, shares = augment.augmented(IMAGES, LABELS, 4, "cutmix", 1.0, (seed, 0))
        logits = keras.ops.convert_to_numpy(small_model()(images, training=True))
        losses = keras.ops.convert_to_numpy(
            keras.ops.categorical_crossentropy(shares, logits, from_logits=True)
        )
        whole = keras.ops.convert_to_numpy(cross_entropy(LABELS, logits))
        expected[seed] = whole.mean(), losses.mean()
    whole, of_shares = expected[213][0], expected[5][1]
    assert abs(whole - of_shares) > 1e-3

    def losses(method, **settings):
        model = small_model()
        _, history = fitted(method, model, batch_size=40, seed=5, **drawn, **settings)
        return [record["train_loss"] for record in history]

    once = losses(supervised_as_run, augment_once=True, eval_mode_sticks=False)
    np.testing.assert_allclose(once, [whole] * 3, rtol=1e-3)  # whatever the run's seed
    anew = losses(supervised)
    assert anew[0] == pytest.approx(of_shares, rel=1e-3)
    assert np.ptp(anew) > 1e-4


@every_backend
def test_batch_mean_lets_the_small_last_batch_weigh_as_much():
    logits = np.random.default_rng(1).normal(size=(40, 4)).astype("float32")
    right = (logits.argmax(1) == LABELS).astype("float64")
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(40), LABELS]
    for figure, values in ((hits, right), (cross_entropy, losses)):
        metric = BatchMean(figure, "figure")
        for start in (0, 16, 32):  # 16, 16 and 8 images
            metric.update_state(LABELS[start : start + 16], logits[start : start + 16])
        expected = np.mean([values[:16].mean(), values[16:32].mean(), values[32:].mean()])
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
        assert abs(expected - values.mean()) > 1e-4


@pytest.mark.parametrize(("method", "of_batches"), [(supervised_as_run, True), (supervised, False)])
def test_figures_are_means_over_batches_only_as_run(method, of_batches):
    """40 images in batches of 16: the last has 8. In order, so those of the test images tell."""
    model = small_model()
    _, (record,) = fitted(method, model, learning_rate=1e-9, batch_size=16, epochs=1)
    logits = keras.ops.convert_to_numpy(model(IMAGES, training=False))
    losses = keras.ops.convert_to_numpy(cross_entropy(LABELS, logits))
    means = np.mean([losses[:16].mean(), losses[16:32].mean(), losses[32:].mean()])
    assert abs(means - losses.mean()) > 1e-4
    expected = means if of_batches else losses.mean()
    assert record["test_loss"] == pytest.approx(expected, abs=2e-5)
