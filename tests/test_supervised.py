"""The supervised method as a whole, on images that a small network can learn."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_cnn import data, environment, recipe
from keras_cnn.data import Split
from keras_cnn.data.sampling import draw_shots
from keras_cnn.methods import supervised
from keras_cnn.models import heads, saved
from keras_cnn.recipe import resolve
from keras_cnn.results import store

pytestmark = pytest.mark.every_backend


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """Every model name stands for a small network, named as the backbones name their layers."""

    def classifier(
        name, class_count, image_size, head, cosine_scale, dropout, dropout_position, seed, **rest
    ):
        inputs = keras.Input((image_size, image_size, 3))
        x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
        x = keras.layers.Conv2D(16, 7, name="stem_conv")(x)
        for stage in (1, 2, 3, 4):
            x = keras.layers.Conv2D(16, 1, name=f"stage{stage}_conv")(x)
            x = keras.layers.BatchNormalization(name=f"stage{stage}_norm")(x)
            x = keras.layers.ReLU(name=f"stage{stage}_relu")(x)
        x = keras.layers.GlobalMaxPooling2D(name="features_pool")(x)
        logits = heads.logits(x, class_count, head, dropout, dropout_position, seed)
        return keras.Model(inputs, logits, name=name)

    monkeypatch.setattr(supervised.networks.models, "classifier", classifier)


def trained(variant, row="2", name="fewshot_convnext", shots=4, epochs=3, **overrides):
    """What `train` gives for a recipe's row on few synthetic images."""
    overrides = {
        "data": "synthetic:80",
        "epochs": epochs,
        "weights": "random",
        "learning_rate": 1e-3,
        **overrides,
    }
    plan = recipe.read(name)
    run = resolve.runs(plan, "mini", [row], variant, 1, overrides, keras.backend.backend())[0]
    dataset = data.load(run.data.data)
    train, test = dataset.splits["train"], dataset.splits["test"]
    chosen = draw_shots(train.labels, shots, run.shots_seed, dataset.class_names)
    train = Split(np.asarray(train.images[chosen]), train.labels[chosen])
    reports = []
    environment.seed_everything(run.training_seed)
    names = list(dataset.class_names)
    outcome = supervised.train(run, train, test, names, reports.append)
    return outcome, test, reports


@pytest.mark.parametrize("variant", ["as_run", "corrected"])
def test_it_learns_and_gives_back_what_it_promises(variant, tmp_path):
    outcome, test, reports = trained(variant, learning_rate=1e-2)
    assert reports == outcome.history
    assert [record["epoch"] for record in outcome.history] == [1, 2, 3]
    for record in outcome.history:
        assert tuple(record) == store.HISTORY_COLUMNS
        assert all(isinstance(value, (int, float)) for value in record.values())
        assert np.isfinite(list(record.values())).all()
        assert 0 <= record["train_accuracy"] <= 1 and 0 <= record["test_accuracy"] <= 1
        assert record["seconds"] > 0 and record["learning_rate"] == pytest.approx(1e-2)
    losses = [record["train_loss"] for record in outcome.history]
    assert losses[-1] < 0.9 * losses[0]

    assert outcome.probabilities.shape == (80, 10)
    np.testing.assert_allclose(outcome.probabilities.sum(axis=1), 1, atol=1e-5)
    last = outcome.history[-1]
    hits = outcome.probabilities.argmax(axis=1) == test.labels
    chosen = np.log(outcome.probabilities[np.arange(80), test.labels])
    # 80 images are five whole batches of 16: over batches or images, the means are the same.
    assert last["test_accuracy"] == pytest.approx(hits.mean(), abs=1e-6)
    assert last["test_loss"] == pytest.approx(-chosen.mean(), abs=1e-4)

    saved.save(outcome.model, tmp_path / "model.keras", {})
    loaded, _ = saved.load(tmp_path / "model.keras")
    again = loaded.predict(test.images, verbose=0)
    np.testing.assert_allclose(again, outcome.probabilities, atol=1e-5)


def test_the_same_seed_gives_the_same_training():
    first, second = (trained("corrected", epochs=1)[0] for _ in range(2))
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-6)


def test_a_step_schedule_lowers_the_rate():
    outcome, _, _ = trained(
        "corrected", row="4", shots=1, schedule_epochs=1, learning_rate=4e-4, unfrozen_stages=0
    )
    rates = [record["learning_rate"] for record in outcome.history]
    assert rates == pytest.approx([4e-4, 2e-4, 1e-4])


def test_as_run_drops_logits_in_the_first_epoch_only_and_corrected_features_in_each():
    """With nothing to learn from (a rate of almost 0), dropout alone tells train from test loss."""
    gaps = {}
    for variant in ("as_run", "corrected"):
        outcome, _, _ = trained(
            variant, learning_rate=1e-9, dropout=0.75, unfrozen_stages=0, shots=8, epochs=3
        )
        losses = np.array([record["train_loss"] for record in outcome.history])
        gaps[variant] = np.abs(losses - losses[-1])
    assert gaps["as_run"][0] > 1e-2 and gaps["as_run"][1] < 1e-4
    assert gaps["corrected"][0] > 1e-4 and gaps["corrected"][1] > 1e-4  # other features each time


def test_frozen_batchnorm_statistics_move_as_run_and_stand_still_corrected():
    statistics = {}
    for variant in ("as_run", "corrected"):
        outcome, _, _ = trained(
            variant, "6", "fewshot_resnet", shots=2, epochs=1, learning_rate=1e-9
        )
        layers = outcome.model.layers
        norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
        statistics[variant] = {
            norm.name: float(np.abs(keras.ops.convert_to_numpy(norm.moving_mean)).max())
            for norm in norms
        }
    assert len(statistics["as_run"]) == 4
    for name, moved in statistics["as_run"].items():
        assert moved > 0, name  # they begin at zero
    for name, moved in statistics["corrected"].items():
        assert (moved > 0) == name.startswith("stage4"), name
