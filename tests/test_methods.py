"""How methods are called: on arrays, with settings as keywords, and on any functional network."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import sys

import keras
import numpy as np
import pytest

from keras_cnn import methods, models
from keras_cnn.data import Split
from keras_cnn.deck import settings as of_deck
from keras_cnn.errors import UserError
from keras_cnn.methods.settings import METHODS
from keras_cnn.models import saved
from keras_cnn.runs import estimate, study

EVERY = [*METHODS, *of_deck.METHODS]
DRAWING = [settings for settings in METHODS if "epochs" in settings.model_fields]
SHORT = {  # what makes a method quick
    "prototypical": {"support_shots": 2, "query_shots": 2, "episodes_an_epoch": 2},
    "prototypical_split_batches": {"batch_size": 24, "support_images": 16},
    "maml": {
        "way": 2,
        "support_shots": 2,
        "query_shots": 2,
        "steps_an_epoch": 2,
        "adaptation_steps": 20,
        "inner_learning_rate": 0.1,
    },
    "pretrain": {"batch_size": 8, "learning_rate": 0.01, "average_decay": 0.5},
    "maml_detached": {"inner_steps": 1},
}
RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 3
# A class is a shade.
IMAGES = (60 + 60 * LABELS[:, None, None, None] + RNG.integers(0, 40, (24, 8, 8, 3))).astype(
    "uint8"
)


def method_of(settings):
    return importlib.import_module(settings.module).train


def short(settings):
    epochs = {"epochs": 2} if "epochs" in settings.model_fields else {}
    return epochs | SHORT.get(settings.name(), {})


def own_network(trainable=True, size=8):
    """A network of a user's own: none of its layers has a name that this package gives."""
    start = keras.initializers.GlorotUniform(seed=3)
    convolution = keras.layers.Conv2D(4, 3, activation="tanh", kernel_initializer=start)
    convolution.trainable = trainable
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 255),
            convolution,
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="tanh", kernel_initializer=start),
            keras.layers.Dense(3, kernel_initializer=start),
        ]
    )


def functional(network):
    """The same layers as a functional model."""
    return keras.Model(network.inputs[0], network.outputs[0])


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name())
def test_every_method_trains_a_network_of_ones_own(settings, tmp_path, capfd):
    # A Sequential; a functional model takes the same way from its first line on, and all other
    # tests here have one.
    network, reports = own_network(), []
    trained = method_of(settings)(
        network, (IMAGES, LABELS), (IMAGES, LABELS), report=reports.append, **short(settings)
    )
    assert capfd.readouterr() == ("", "")
    assert len(trained.history) == len(reports) == short(settings).get("epochs", 1)
    for record, reported in zip(trained.history, reports, strict=True):
        assert record.items() <= reported.items()
    assert trained.probabilities.shape == (24, 3)
    np.testing.assert_allclose(trained.probabilities.sum(axis=1), 1, atol=1e-5)
    hits = trained.probabilities.argmax(axis=1) == LABELS
    assert trained.measures["test_accuracy_over_images"] == hits.mean()
    assert f"{len(reports)} epochs, {hits.mean():.1%}" in repr(trained)

    assert np.ptp(trained.probabilities, axis=0).max() > 1e-3, "images are told apart"

    trained.save(tmp_path / "model.keras", class_names=["dark", "grey", "light"], fit="pad")
    loaded, card = saved.load(tmp_path / "model.keras")
    wanted = {"class_names": ["dark", "grey", "light"], "image_size": 8, "fit": "pad"}
    assert wanted.items() <= card.items()
    again = loaded.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(again, trained.probabilities, atol=1e-5)


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name())
def test_a_layer_frozen_by_hand_stays_as_it_was(settings):
    network = functional(own_network(trainable=False))
    kernel = network.layers[2].kernel
    before = np.array(keras.ops.convert_to_numpy(kernel))
    trained = method_of(settings)(network, (IMAGES, LABELS), (IMAGES, LABELS), **short(settings))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(kernel), before)
    np.testing.assert_array_equal(trained.model.layers[2].get_weights()[0], before)


def test_a_pair_of_arrays_is_as_a_split():
    given = [(IMAGES, LABELS), Split(IMAGES, LABELS), Split(IMAGES, LABELS, ("a", "b", "c"))]
    given.append((IMAGES, LABELS.astype("uint8")))
    first, *others = [
        methods.supervised.train(own_network(), each, each, epochs=1) for each in given
    ]
    for other in others:
        np.testing.assert_array_equal(other.probabilities, first.probabilities)
    (record,), (again,) = first.history, others[0].history
    assert {**record, "seconds": 0} == {**again, "seconds": 0}


RIGHT = (IMAGES, LABELS)
WRONG = {
    "floats": (
        (IMAGES / 255, LABELS),
        RIGHT,
        r"train images are float64 \(24, 8, 8, 3\): uint8 \(n, height, width, 3\)",
    ),
    "grey": (RIGHT, (IMAGES[..., :1], LABELS), r"test images are uint8 \(24, 8, 8, 1\)"),
    "one image": ((IMAGES[0], LABELS[:1]), RIGHT, r"train images are uint8 \(8, 8, 3\)"),
    "size": (
        RIGHT,
        (IMAGES[:, :6, :6], LABELS),
        r"test images are \(6, 6\) pixels and the network takes \(8, 8\)",
    ),
    "fewer labels": (
        (IMAGES, LABELS[:20]),
        RIGHT,
        r"train labels are int64 \(20,\): one whole number for each of 24 images",
    ),
    "one-hot labels": ((IMAGES, np.eye(3)[LABELS]), RIGHT, r"train labels are float64 \(24, 3\)"),
    "label too large": (RIGHT, (IMAGES, LABELS + 1), "test labels are from 1 to 3: .* 3 outputs"),
    "label below 0": ((IMAGES, LABELS - 1), RIGHT, "train labels are from -1 to 1"),
    "nothing": ((IMAGES[:0], LABELS[:0]), RIGHT, "train labels are of no image"),
    "names": (Split(IMAGES, LABELS, ("a", "b")), RIGHT, "train images are of 2 classes: .* has 3"),
}


@pytest.mark.parametrize(("train", "test", "words"), WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_one_line(train, test, words):
    with pytest.raises(UserError, match=words) as raised:
        methods.supervised.train(own_network(), train, test)
    assert "\n" not in str(raised.value)


# Which test images there are of the 24, whose labels are 0, 1, 2, 0, 1, …
FEW_TEST_IMAGES = {
    "one of each class": [0, 1, 2],
    "one of one class": [0, 1, 4, 2, 5],
    "none of a class": [0, 3, 1, 4],
    "one class": [0, 3],
    "one": [1],
}


@pytest.mark.parametrize("chosen", FEW_TEST_IMAGES.values(), ids=FEW_TEST_IMAGES)
@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name())
def test_few_test_images_end_no_run(settings, chosen):
    chosen = np.array(chosen)
    test = (IMAGES[chosen], LABELS[chosen])
    given = short(settings) | ({"epochs": 1} if "epochs" in settings.model_fields else {})
    if settings.name() == "prototypical_split_batches":
        if len(chosen) == 1:
            with pytest.raises(UserError, match="leave no query"):
                method_of(settings)(own_network(), RIGHT, test, **given)
            return
        given |= {"support_images": 1}
    trained = method_of(settings)(own_network(), RIGHT, test, **given)
    (record,) = trained.history
    assert all(np.isfinite(record[name]) for name in record if name != "learning_rate")
    assert trained.probabilities.shape == (len(chosen), 3)
    assert all(np.isfinite(value) for value in trained.measures.values())
    assert settings.name() != "prototypical" or "episode_accuracy" not in trained.measures


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name())
def test_one_class_is_refused_before_training(settings):
    network = keras.Sequential([keras.Input((8, 8, 3)), *own_network().layers[:-1]])
    network.add(keras.layers.Dense(1))
    alone = (IMAGES[LABELS == 0], LABELS[LABELS == 0])
    with pytest.raises(UserError, match="there is one class"):
        method_of(settings)(network, alone, alone, report=pytest.fail)


TOO_FEW = {  # training images of the classes 0, 1 and 2; what is said of them
    "prototypical": ([4, 3, 4], "class '1' has 3 images; 4 are needed"),
    "prototypical_split_batches": ([8, 0, 8], "class '1' has no training image"),
    "siamese": ([8, 1, 8], "class '1' has 1"),
    "siamese_inverted": ([8, 1, 8], "class '1' has 1"),
    "maml": ([8, 3, 8], "a task needs 4 images a class, class '1' has 3"),
    "linear_probe": ([8, 0, 8], "class '1' has no training image"),
    "nearest_mean": ([8, 8, 0], "class '2' has no training image"),
}


@pytest.mark.parametrize("name", TOO_FEW)
def test_too_few_training_images_are_refused_before_training(name):
    settings = next(each for each in EVERY if each.name() == name)
    counts, words = TOO_FEW[name]
    places = [np.flatnonzero(label == LABELS)[:count] for label, count in enumerate(counts)]
    chosen = np.concatenate(places)
    with pytest.raises(UserError, match=words):
        method_of(settings)(
            own_network(),
            (IMAGES[chosen], LABELS[chosen]),
            RIGHT,
            report=pytest.fail,
            **short(settings),
        )


def test_rows_that_cannot_learn_from_so_few_images_are_left_out_before_any_run(tmp_path):
    overrides = {"data": "synthetic:60", "shots": 1, "weights": "random"}

    def prepared(rows):
        asked = {"rows": rows, "repeats": 1, "overrides": overrides, "out": tmp_path}
        return study.prepare(study.plan("fewshot_methods", "mini", **asked))

    work = prepared(None)
    assert work.left_out["siamese corrected"].endswith("class 'fine_0' has 1")
    corrected = ("prototypical", "siamese", "siamese_pretrained", "maml", "maml_pretrained")
    few = {f"{row} corrected" for row in corrected}
    assert work.left_out.keys() == {*few, "prototypical as_run", "siamese as_run"}
    made = {f"{job.run.place.row} {job.run.place.variant}" for job in work.jobs}
    assert made.isdisjoint(work.left_out) and "linear_probe corrected" in made
    estimated = estimate.estimate(work.plan.runs, tmp_path, 1)
    assert estimated.left_out == work.left_out and not estimated.hindrance
    assert "row siamese as_run is left out: " in estimate.listing("", work.plan.runs, estimated)
    with pytest.raises(UserError, match=r"^row siamese as_run: pairs of the same class"):
        prepared(["siamese"])


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's threads")
@pytest.mark.parametrize("settings", DRAWING, ids=lambda settings: settings.name())
def test_two_threads_give_the_same_bits_twice(settings):
    import torch

    large = (np.repeat(np.repeat(IMAGES, 4, axis=1), 4, axis=2), LABELS)  # enough to be split
    threads, results = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(2):
            trained = method_of(settings)(own_network(size=32), large, large, **short(settings))
            weights = [np.ravel(weight) for weight in trained.model.get_weights()]
            results.append([trained.probabilities, *weights])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def two_outputs():
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, [keras.layers.Dense(3)(features) for _ in range(2)])


def subclassed():
    class Own(keras.Model):
        pass

    return Own()


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        (two_outputs, "Functional"),
        (subclassed, "Own"),
        (lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]), "Sequential"),
        (lambda: keras.layers.Dense(3), "Dense"),
        (lambda: "convnext_atto", "str"),
    ],
)
def test_what_is_no_network_is_one_line(network, kind):
    with pytest.raises(UserError, match=f"network is a {kind}: a functional keras.Model") as raised:
        methods.supervised.train(network(), RIGHT, RIGHT)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learning_rat": 0.1}, "supervised has no 'learning_rat': did you mean 'learning_rate'?"),
        ({"margin": 1.0}, "supervised has no 'margin': "),
        ({"checkpoint": "state.h5"}, "supervised has no 'checkpoint': "),
        ({"epochs": 0}, "epochs is 0: input should be greater than or equal to 1"),
        ({"epochs": 2.5}, "epochs is 2.5: input should be a valid integer"),
        ({"optimizer": "adamw"}, "optimizer is 'adamw': input should be 'adam' or 'sgd'"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: input should be"),
    ],
)
def test_wrong_settings_are_one_line(given, words):
    with pytest.raises(UserError) as raised:
        methods.supervised.train(own_network(), RIGHT, RIGHT, **given)
    assert str(raised.value).startswith(words) and "\n" not in str(raised.value)


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name())
def test_help_shows_each_setting_with_its_default_and_what_it_does(settings):
    method = method_of(settings)
    assert method.settings is settings
    parameters = inspect.signature(method).parameters
    assert list(parameters)[:3] == ["network", "train", "test"]
    for name, field in settings.model_fields.items():
        assert parameters[name].default == field.default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"\n    {name}: " in method.__doc__, name
    assert parameters["seed"].default == 213 and parameters["report"].default is None
    shown = pydoc.plain(pydoc.render_doc(method))
    for name, field in settings.model_fields.items():
        assert f"{name}={field.default!r}" in shown
    beyond = set(parameters) - set(settings.model_fields) - {"network", "train", "test"}
    assert beyond - {"seed", "report"} == (
        {"checkpoint"} if settings.name() == "pretrain" else set()
    )


def test_the_methods_are_found_by_name():
    assert {settings.name() for settings in METHODS} <= set(dir(methods))
    for settings in METHODS:
        assert getattr(methods, settings.name()).train is method_of(settings)
        assert methods.find(settings.name(), settings) is method_of(settings)
    with pytest.raises(AttributeError, match="has no 'mammal'"):
        methods.mammal  # noqa: B018


OWN = '''
import keras
import numpy as np
from keras_cnn.methods import Learned, Method, method
from keras_cnn.training.history import record


class Constant(Method):
    """How a classifier is made that always says the same.

    Attributes:
        label: What it says.
        surely: The logit of that label.
    """

    label: int
    surely: float = 5.0


@method(Constant)
def constant(network, train, test, settings, seed, report, *, note=None):
    """Says one label whatever it sees."""
    kernel, bias = network.layers[-1].get_weights()
    said = settings.surely * np.eye(len(bias))[settings.label]
    network.layers[-1].set_weights([0 * kernel, said])
    made = record(1, 0.1, (1.0, 0.5), (1.0, float(train.labels.dtype == np.int64)), 0.01)
    report(made)
    return Learned([made], network, {"note": note, "seed": seed})
'''


def test_a_method_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    import my_methods

    reports = []
    trained = my_methods.constant(
        own_network(), RIGHT, RIGHT, label=2, report=reports.append, note="mine"
    )
    assert (trained.probabilities.argmax(axis=1) == 2).all()
    expected = np.exp([0.0, 0.0, 5.0]) / np.exp([0.0, 0.0, 5.0]).sum()
    np.testing.assert_allclose(trained.probabilities[0], expected, atol=1e-6)
    assert trained.measures == {"test_accuracy_over_images": 1 / 3, "note": "mine", "seed": 213}
    assert reports == trained.history and reports[0]["test_accuracy"] == 1.0

    assert methods.find("my_methods.constant", my_methods.Constant) is my_methods.constant
    assert my_methods.constant.__doc__.startswith("Says one label whatever it sees.")
    assert "surely: The logit of that label." in my_methods.constant.__doc__
    shown = str(inspect.signature(my_methods.constant))
    assert shown == (
        "(network, train, test, *, label, surely=5.0, note=None, seed=213, report=None)"
    )
    with pytest.raises(UserError, match="Constant has no 'labels': did you mean 'label'"):
        my_methods.constant(own_network(), RIGHT, RIGHT, labels=2)
    with pytest.raises(UserError, match="label: field required"):
        my_methods.constant(own_network(), RIGHT, RIGHT)
    del sys.modules["my_methods"]


@pytest.mark.parametrize("settings", DRAWING, ids=lambda settings: settings.name())
def test_the_seed_decides_what_is_drawn(settings):
    first, again, other = (
        method_of(settings)(own_network(), RIGHT, RIGHT, seed=seed, **short(settings))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    assert again.measures == first.measures
    assert np.abs(other.probabilities - first.probabilities).max() > 1e-5


@pytest.mark.parametrize("settings", DRAWING, ids=lambda settings: settings.name())
def test_a_run_that_diverged_has_no_accuracy_and_says_when(settings):
    network = own_network()
    kernel = network.layers[1].kernel
    kernel.assign(np.full(kernel.shape, np.nan, np.float32))
    with np.errstate(all="ignore"):
        trained = method_of(settings)(network, RIGHT, RIGHT, **short(settings))
    assert trained.measures["diverged_at_epoch"] == 1
    assert np.isnan(trained.measures["test_accuracy_over_images"])
    assert repr(trained) == f"Trained({len(trained.history)} epochs, diverged at epoch 1)"


def test_larger_training_images_are_for_the_method_that_crops_them():
    large = (np.repeat(np.repeat(IMAGES, 2, axis=1), 2, axis=2), LABELS)
    methods.pretrain.train(own_network(), large, RIGHT, epochs=1)
    with pytest.raises(UserError, match=r"test images are \(16, 16\) pixels"):
        methods.pretrain.train(own_network(), large, large, epochs=1)


def test_what_the_documentation_shows():
    """Three lines from a network by name to a model."""
    network = models.classifier("baseline", class_count=3, image_size=8)
    trained = methods.nearest_mean.train(network, RIGHT, RIGHT)
    assert trained.measures["test_accuracy_over_images"] > 0.9
