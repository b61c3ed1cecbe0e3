"""A frozen part that never changes is run once, and nothing else changes by that."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_cnn import data, environment, models, recipe
from keras_cnn.methods import networks, supervised
from keras_cnn.models.freeze import freeze, frozen_part
from keras_cnn.recipe import resolve
from keras_cnn.training import features_cache

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")


def frozen_model(name, unfrozen_stages, statistics_move=False, **options):
    model = models.classifier(name, 5, **options)
    freeze(model, unfrozen_stages, statistics_move)
    return model


@pytest.mark.parametrize("unfrozen_stages", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["convnext_atto", "resnet18", "enhanced"])
def test_the_two_parts_together_are_the_model(name, unfrozen_stages):
    model = frozen_model(name, min(unfrozen_stages, 2) if name == "enhanced" else unfrozen_stages)
    parts = frozen_part(model, min(unfrozen_stages, 2) if name == "enhanced" else unfrozen_stages)
    frozen, features = parts
    rest = keras.Model(features, model.output)
    together = rest.predict(frozen.predict(IMAGES, verbose=0), verbose=0)
    np.testing.assert_allclose(together, model.predict(IMAGES, verbose=0), atol=1e-5)
    assert not frozen.trainable_weights
    assert [w.path for w in rest.trainable_weights] == [w.path for w in model.trainable_weights]
    assert 0 < len(frozen.layers) - 1 < len(model.layers) - 1


@pytest.mark.parametrize(
    ("name", "unfrozen_stages", "statistics_move", "options"),
    [
        ("convnext_atto", None, False, {}),  # everything trains
        ("enhanced", 3, False, {}),  # of what is frozen nothing has weights
        ("resnet18", 2, True, {}),  # frozen statistics move
        ("convnext_atto", 1, False, {"stochastic_depth": 0.3}),  # branches drop at random
    ],
)
def test_a_part_that_changes_or_costs_nothing_is_not_kept(
    name, unfrozen_stages, statistics_move, options
):
    model = frozen_model(name, unfrozen_stages, statistics_move, **options)
    assert frozen_part(model, unfrozen_stages) is None


def test_features_too_large_to_keep_are_computed_with_the_rest(monkeypatch):
    plan = recipe.read("fewshot_convnext")
    run = resolve.runs(plan, "mini", ["4"], "corrected", 1, {"data": "synthetic:40"})[0]
    train, test = (data.load("synthetic:40").splits[name] for name in ("train", "test"))
    graph = networks.classifier(run, 10)
    _, of_train, of_test = networks.without_constant_part(graph, run, train, test)
    assert of_train.dtype == np.float32 and len(of_train) == len(train.labels)
    monkeypatch.setattr(features_cache, "MOST_BYTES", of_train.nbytes + of_test.nbytes)
    _, still, _ = networks.without_constant_part(graph, run, train, test)
    np.testing.assert_array_equal(still, of_train)
    monkeypatch.setattr(features_cache, "MOST_BYTES", of_train.nbytes + of_test.nbytes - 1)
    model, *inputs = networks.without_constant_part(graph, run, train, test)
    assert inputs[0] is train.images and inputs[1] is test.images
    assert model.input.shape == graph.input.shape


def test_training_on_kept_features_gives_the_same_model(monkeypatch):
    plan = recipe.read("fewshot_convnext")
    overrides = {"data": "synthetic:40", "shots": 4, "test_shots": 4, "epochs": 2}
    run = resolve.runs(plan, "mini", ["4"], "corrected", 1, overrides)[0]
    splits = data.load("synthetic:40").splits
    outcomes = {}
    for keep in (True, False):
        if not keep:
            monkeypatch.setattr(networks, "frozen_part", lambda *_: None)
        environment.seed_everything(run.training_seed)
        outcomes[keep] = supervised.train(
            run, splits["train"], splits["test"], list("0123456789"), lambda record: None
        )
    together, whole = outcomes[True], outcomes[False]
    np.testing.assert_allclose(together.probabilities, whole.probabilities, atol=1e-4)
    for one, other in zip(together.history, whole.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert one["test_loss"] == pytest.approx(other["test_loss"], abs=1e-4)


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """How often features are computed, in a home of its own."""
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path))
    computed = []
    outputs = networks.outputs

    def counting(model, images):
        computed.append(len(images))
        return outputs(model, images)

    monkeypatch.setattr(networks, "outputs", counting)
    return computed


def test_runs_share_features_where_weights_and_images_are_the_same(counted):
    frozen, _ = frozen_part(frozen_model("enhanced", 1, hidden_units=4), 1)
    first = networks.frozen_outputs(frozen, IMAGES)
    again = networks.frozen_outputs(frozen, IMAGES.copy())
    assert counted == [4]
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(again, networks.outputs(frozen, IMAGES))

    other_run, _ = frozen_part(frozen_model("enhanced", 1, hidden_units=4, seed=1), 1)
    other_run.set_weights(frozen.get_weights())  # as pretrained weights are the same in every run
    counted.clear()
    networks.frozen_outputs(other_run, IMAGES)
    assert counted == []

    changed = IMAGES.copy()
    changed[0, 0, 0, 0] ^= 1
    networks.frozen_outputs(frozen, changed)
    weights = frozen.get_weights()
    weights[0][0, 0, 0, 0] += 1e-3
    frozen.set_weights(weights)
    networks.frozen_outputs(frozen, IMAGES)
    assert counted == [4, 4]


def test_a_damaged_file_is_computed_anew_and_the_oldest_go(counted, monkeypatch, tmp_path):
    frozen, _ = frozen_part(frozen_model("enhanced", 1, hidden_units=4), 1)
    networks.frozen_outputs(frozen, IMAGES)
    (path,) = (tmp_path / "features").glob("*")
    path.write_bytes(path.read_bytes()[:100])
    networks.frozen_outputs(frozen, IMAGES)
    assert counted == [4, 4]
    monkeypatch.setattr(features_cache, "MOST_BYTES", 2.5 * path.stat().st_size)
    for _ in range(3):
        networks.frozen_outputs(frozen, IMAGES[::-1])  # two orders: two files
        networks.frozen_outputs(frozen, np.roll(IMAGES, 1, axis=0))
    assert len(list((tmp_path / "features").glob("*"))) == 2
    assert not path.exists()
