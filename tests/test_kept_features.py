"""A frozen part that never changes is run once, and nothing else changes by that."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_cnn import data, models
from keras_cnn.deck.supervised_as_run import let_frozen_statistics_move
from keras_cnn.methods import supervised
from keras_cnn.models.freeze import constant_part
from keras_cnn.training import evaluation, features_cache, frozen

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")


@pytest.mark.parametrize(
    ("name", "unfrozen_stages"),
    [("convnext_atto", 0), ("convnext_atto", 2), ("resnet18", 3), ("enhanced", 1), ("enhanced", 2)],
)
def test_the_two_parts_together_are_the_model(name, unfrozen_stages):
    model = models.classifier(name, 5, unfrozen_stages=unfrozen_stages)
    part, features = constant_part(model)
    rest = keras.Model(features, model.output)
    together = rest.predict(part.predict(IMAGES, verbose=0), verbose=0)
    np.testing.assert_allclose(together, model.predict(IMAGES, verbose=0), atol=1e-5)
    assert not part.trainable_weights
    assert [w.path for w in rest.trainable_weights] == [w.path for w in model.trainable_weights]
    assert 0 < len(part.layers) - 1 < len(model.layers) - 1


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
    model = models.classifier(name, 5, unfrozen_stages=unfrozen_stages, **options)
    if statistics_move:
        let_frozen_statistics_move(model)
    assert constant_part(model) is None


def own_network(skip=False, dropout=0.0):
    """A network of a user's own: layers have the names that Keras gives them."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    first = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(first)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = keras.layers.Add()([x, first]) if skip else x
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(8)(x))
    x = keras.layers.Dense(6, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(5)(x))


def freeze_all_but(model, last):
    """Freezes all but the last layers with weights, by hand."""
    for layer in [layer for layer in model.layers if layer.weights][:-last]:
        layer.trainable = False


@pytest.mark.parametrize(
    ("last", "made_by", "options"),
    [
        (1, keras.layers.Dense, {}),
        (2, keras.layers.Flatten, {}),
        (3, keras.layers.Dropout, {}),
        (3, keras.layers.BatchNormalization, {"dropout": 0.5}),  # from it on features are drawn
        (1, keras.layers.BatchNormalization, {"dropout": 0.5}),  # though the rest is frozen, too
        (2, keras.layers.Flatten, {"skip": True}),
        (4, keras.layers.Conv2D, {}),
    ],
)
def test_a_network_of_ones_own_has_its_constant_part_by_what_is_trainable(last, made_by, options):
    model = own_network(**options)
    freeze_all_but(model, last)
    part, features = constant_part(model)
    assert type(part.layers[-1]) is made_by
    rest = keras.Model(features, model.output)
    together = rest.predict(part.predict(IMAGES, verbose=0), verbose=0)
    np.testing.assert_allclose(together, model.predict(IMAGES, verbose=0), atol=1e-5)
    assert [w.path for w in rest.trainable_weights] == [w.path for w in model.trainable_weights]


@pytest.mark.parametrize(
    ("last", "options"),
    [
        (5, {}),  # everything trains
        (3, {"skip": True}),  # two tensors with weights behind them join the parts
        (2, {"skip": True, "dropout": 0.5}),  # likewise: dropout is in one branch
    ],
)
def test_a_network_of_ones_own_without_a_constant_part(last, options):
    model = own_network(**options)
    if last < 5:
        freeze_all_but(model, last)
    assert constant_part(model) is None


@pytest.mark.parametrize(
    "drawing",
    [
        lambda: keras.layers.GaussianNoise(1.0),
        lambda: keras.layers.RandomFlip(),
        lambda: keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Conv2D(4, 3)]),
    ],
    ids=["noise", "augmentation", "model"],
)
def test_whatever_draws_is_left_to_the_rest(drawing):
    inputs = keras.Input((32, 32, 3))
    first = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.GlobalMaxPooling2D()(drawing()(first))
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    freeze_all_but(model, 1)
    _, features = constant_part(model)
    assert features is first


def test_a_model_inside_a_model_is_one_of_its_layers():
    """How Keras's own guide has a backbone put to use."""
    backbone = own_network()
    inputs = keras.Input((32, 32, 3))
    network = keras.Model(inputs, keras.layers.Dense(5)(backbone(inputs / 2 + 1)))
    assert constant_part(network) is None
    backbone.trainable = False
    part, _ = constant_part(network)
    expected = backbone.predict(IMAGES / 2 + 1, verbose=0)
    np.testing.assert_allclose(part.predict(IMAGES, verbose=0), expected, atol=1e-5)
    norm = next(x for x in backbone.layers if isinstance(x, keras.layers.BatchNormalization))
    norm.trainable = True
    norm.gamma.trainable = norm.beta.trainable = False
    assert constant_part(network) is None  # its statistics move


def test_a_single_frozen_layer_after_one_that_trains_is_no_part():
    model = own_network()
    model.layers[-2].trainable = False
    assert constant_part(model) is None
    before = [np.array(keras.ops.convert_to_numpy(w)) for w in model.layers[-2].weights]
    labels = np.arange(4) % 5
    supervised.train(model, (IMAGES, labels), (IMAGES, labels), epochs=1)
    for weight, value in zip(model.layers[-2].weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


def fine_tuned_network():
    """The last two stages train, as on the deck's slides."""
    network = models.classifier("convnext_atto", 10, weights="bundled", unfrozen_stages=2)
    return network, *(data.load("synthetic:40").splits[name] for name in ("train", "test"))


def test_features_too_large_to_keep_are_computed_with_the_rest(monkeypatch):
    network, train, test = fine_tuned_network()
    _, of_train, of_test = frozen.skip_constant_part(network, train, test)
    assert of_train.images.dtype == np.float32 and len(of_train.images) == len(train.labels)
    size = of_train.images.nbytes + of_test.images.nbytes
    monkeypatch.setattr(features_cache, "MOST_BYTES", size)
    _, still, _ = frozen.skip_constant_part(network, train, test)
    np.testing.assert_array_equal(still.images, of_train.images)
    monkeypatch.setattr(features_cache, "MOST_BYTES", size - 1)
    model, *inputs = frozen.skip_constant_part(network, train, test)
    assert inputs[0].images is train.images and inputs[1].images is test.images
    assert model.input.shape == network.input.shape


def test_training_on_kept_features_gives_the_same_model(monkeypatch):
    results = []
    for most_bytes in (features_cache.MOST_BYTES, 0):
        monkeypatch.setattr(features_cache, "MOST_BYTES", most_bytes)
        settings = {"epochs": 2, "learning_rate": 1e-4}
        results.append(supervised.train(*fine_tuned_network(), **settings))
    together, whole = results
    np.testing.assert_allclose(together.probabilities, whole.probabilities, atol=1e-4)
    for one, other in zip(together.history, whole.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert one["test_loss"] == pytest.approx(other["test_loss"], abs=1e-4)


@pytest.fixture
def features_folder(monkeypatch, tmp_path):
    """Where features are kept, in a home of its own."""
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path))
    return tmp_path / "features"


def small_part(seed=0):
    network = models.classifier("enhanced", 5, hidden_units=4, seed=seed, unfrozen_stages=1)
    return constant_part(network)[0]


def test_runs_share_features_where_weights_and_images_are_the_same(features_folder):
    computed = []

    def features_of(model, images):
        def compute():
            computed.append(len(images))
            return evaluation.outputs(model, images)

        return features_cache.features(model, images, compute)

    part = small_part()
    first = features_of(part, IMAGES)
    again = features_of(part, IMAGES.copy())
    assert computed == [4]
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(again, evaluation.outputs(part, IMAGES))
    np.testing.assert_array_equal(again, frozen.features_of(part, IMAGES))

    other_run = small_part(seed=1)
    other_run.set_weights(part.get_weights())  # as pretrained weights are the same in every run
    computed.clear()
    features_of(other_run, IMAGES)
    assert computed == []

    changed = IMAGES.copy()
    changed[0, 0, 0, 0] ^= 1
    features_of(part, changed)
    weights = part.get_weights()
    weights[0][0, 0, 0, 0] += 1e-3
    part.set_weights(weights)
    features_of(part, IMAGES)
    assert computed == [4, 4]


@pytest.mark.parametrize("scale", [1 / 255, 1 / 127.5])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_features_of_other_layers_of_the_same_names_are_others(activation, scale):
    """All four in one home: names, shapes and weights are the same."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(scale, name="scale")(inputs)
    kernel = keras.initializers.GlorotUniform(seed=1)
    x = keras.layers.Conv2D(
        2, 3, activation=activation, kernel_initializer=kernel, name="convolution"
    )(x)
    model = keras.Model(inputs, x, name="frozen")
    expected = evaluation.outputs(model, IMAGES)
    for _ in range(2):
        np.testing.assert_array_equal(frozen.features_of(model, IMAGES), expected)


def test_features_with_a_flipped_bit_are_computed_anew(features_folder, caplog):
    part = small_part()
    first = frozen.features_of(part, IMAGES)
    (path,) = features_folder.glob("*")
    whole = path.read_bytes()
    for position in (0, 8, 20, 60, 127, 128, len(whole) // 2, len(whole) - 60, len(whole) - 1):
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            write_anew(path, damaged)
            caplog.clear()
            np.testing.assert_array_equal(frozen.features_of(part, IMAGES), first)
            assert caplog.messages == [f"{path} is damaged: it is computed anew"]
            assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b"", b"half", b"\x93NUMPY\x01\x00v\x00{'descr': (((" + b" " * 99]
)
def test_no_content_of_a_file_of_features_ends_a_run(content, features_folder):
    part = small_part()
    first = frozen.features_of(part, IMAGES)
    (path,) = features_folder.glob("*")
    write_anew(path, content)
    np.testing.assert_array_equal(frozen.features_of(part, IMAGES), first)


def write_anew(path, content):
    """In a file of its own: what was found intact is believed for the life of a process."""
    path.rename(path.with_suffix(".old"))
    path.write_bytes(content)
    path.with_suffix(".old").unlink()


def test_features_of_other_threads_are_others(features_folder):
    torch = pytest.importorskip("torch")
    part, threads = small_part(), torch.get_num_threads()
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            frozen.features_of(part, IMAGES)
    finally:
        torch.set_num_threads(threads)
    assert len(list(features_folder.glob("*"))) == (2 if keras.backend.backend() == "torch" else 1)


def test_the_oldest_features_go(features_folder, monkeypatch):
    part = small_part()
    frozen.features_of(part, IMAGES)
    (path,) = features_folder.glob("*")
    monkeypatch.setattr(features_cache, "MOST_BYTES", 2.5 * path.stat().st_size)
    for _ in range(3):
        frozen.features_of(part, IMAGES[::-1])  # two orders: two files
        frozen.features_of(part, np.roll(IMAGES, 1, axis=0))
    assert len(list(features_folder.glob("*"))) == 2
    assert not path.exists()
