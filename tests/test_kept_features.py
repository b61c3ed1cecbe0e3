"""A frozen part that never changes is run once, and nothing else changes by that."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_cnn import data, environment, models, recipe
from keras_cnn.methods import networks, supervised
from keras_cnn.models.freeze import freeze, split

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")


def frozen_model(name, unfrozen_stages, statistics_move=False, **options):
    model = models.classifier(name, 5, **options)
    freeze(model, unfrozen_stages, statistics_move)
    return model


@pytest.mark.parametrize("unfrozen_stages", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["convnext_atto", "resnet18", "enhanced"])
def test_the_two_parts_together_are_the_model(name, unfrozen_stages):
    model = frozen_model(name, min(unfrozen_stages, 2) if name == "enhanced" else unfrozen_stages)
    parts = split(model, min(unfrozen_stages, 2) if name == "enhanced" else unfrozen_stages)
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
        ("enhanced", 3, False, {}),  # of the frozen part there is only the rescaling: see below
        ("resnet18", 2, True, {}),  # frozen statistics move
        ("convnext_atto", 1, False, {"stochastic_depth": 0.3}),  # branches drop at random
    ],
)
def test_a_part_that_changes_is_not_kept(name, unfrozen_stages, statistics_move, options):
    model = frozen_model(name, unfrozen_stages, statistics_move, **options)
    parts = split(model, unfrozen_stages)
    if name == "enhanced":
        assert [layer.name for layer in parts[0].layers[1:]] == ["stem_rescaling"]
    else:
        assert parts is None


def test_training_on_kept_features_gives_the_same_model(monkeypatch):
    plan = recipe.read("fewshot_convnext")
    overrides = {"data": "synthetic:40", "shots": 4, "test_shots": 4, "epochs": 2}
    run = recipe.runs(plan, "mini", ["4"], "corrected", 1, overrides)[0]
    splits = data.load("synthetic:40").splits
    outcomes = {}
    for kept in (True, False):
        if not kept:
            monkeypatch.setattr(networks, "split", lambda *_: None)
        environment.seed_everything(run.training_seed)
        outcomes[kept] = supervised.train(
            run, splits["train"], splits["test"], list("0123456789"), lambda record: None
        )
    kept, whole = outcomes[True], outcomes[False]
    np.testing.assert_allclose(kept.probabilities, whole.probabilities, atol=1e-4)
    for one, other in zip(kept.history, whole.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert one["test_loss"] == pytest.approx(other["test_loss"], abs=1e-4)
