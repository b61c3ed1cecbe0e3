"""The wall round the fast path: its switch, its fallback, and the private names it relies on."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

torch = pytest.importorskip("torch")
if keras.backend.backend() != "torch":
    pytest.skip("other backends run Keras's own steps", allow_module_level=True)

from keras_cnn import torch_fast  # noqa: E402
from keras_cnn.torch_fast import fast, internals  # noqa: E402
from keras_cnn.torch_fast.model import FastSteps  # noqa: E402
from keras_cnn.training import optimizers  # noqa: E402

SOURCES = sorted(Path(torch_fast.__file__).parent.glob("*.py"))
IMAGES = np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype("float32")
LABELS = np.arange(24) % 4


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch):
    """Nothing has been looked up or said yet, nor is it afterwards."""
    monkeypatch.delenv("KERAS_CNN_PLAIN", raising=False)
    caches = (internals.missing, torch_fast._say_once)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


class Hidden:
    """An attribute that is gone for the fast path, while Keras, which has it, goes on."""

    def __init__(self, kind, name):
        self._kind, self._name = kind, name
        self._inherited = next((vars(k)[name] for k in kind.__mro__ if name in vars(k)), None)

    def __get__(self, instance, kind):
        asks = sys._getframe(1).f_globals["__name__"]
        if asks.startswith("keras_cnn.torch_fast"):
            raise AttributeError(self._name)
        if instance is not None and self._name in vars(instance):
            return vars(instance)[self._name]
        if self._inherited is None:
            raise AttributeError(self._name)
        return self._inherited.__get__(instance, kind)

    def __set__(self, instance, value):
        vars(instance)[self._name] = value


def hide(monkeypatch, private):
    owner = internals._examples()[private.owner]
    if owner is torch.ops.aten:  # it would find a deleted operation again
        monkeypatch.setattr(owner, private.name, None)
    elif isinstance(owner, types.ModuleType):
        monkeypatch.delattr(owner, private.name)
    else:
        kind = type(owner)
        monkeypatch.setattr(kind, private.name, Hidden(kind, private.name), raising=False)


def network():
    start = {"kernel_initializer": keras.initializers.GlorotUniform(5)}
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, **start)(inputs)
    x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(inputs, layers.Dense(4, **start)(layers.Flatten()(x)))


def trained(model, optimizer):
    """History and weights of two epochs on batches of 16 and 8."""
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    fitted = model.fit(IMAGES, LABELS, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return [*fitted.history.values(), *model.get_weights()]


def by_the_doors():
    return trained(fast(network()), optimizers.build("adam", 1e-3))


@pytest.fixture(scope="module")
def by_keras():
    return trained(network(), keras.optimizers.Adam(1e-3, epsilon=1e-8))


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("private", internals.PRIVATE_NAMES, ids=lambda private: private.name)
def test_private_name_is_there(private):
    assert private not in internals.missing(), (
        f"{private.library.capitalize()} changed {private.owner}.{private.name} ({private.use})"
    )


@pytest.mark.parametrize("private", internals.PRIVATE_NAMES, ids=lambda private: private.name)
def test_without_a_private_name_training_is_by_kerass_own_step(
    private, by_keras, monkeypatch, capsys
):
    hide(monkeypatch, private)
    assert not isinstance(fast(network()), FastSteps)
    assert_same(by_the_doors(), by_keras)
    assert_line_said(capsys, f"{private.library} has no {private.owner}.{private.name}")


def test_a_graph_without_torch_calls_trains_by_kerass_own_step(capsys):
    inputs = [keras.Input((3,)), keras.Input((3,))]
    start = {"kernel_initializer": keras.initializers.GlorotUniform(5)}
    data = [IMAGES[:, 0, 0], IMAGES[:, 1, 1]]
    weights = []
    for make in (lambda graph: graph, fast, fast):
        model = make(keras.Model(inputs, layers.Dense(4, **start)(layers.Add()(inputs))))
        model.compile(optimizer="sgd", loss="mse")
        model.fit(data, np.eye(4)[LABELS], epochs=1, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    np.testing.assert_equal(weights[1], weights[0])
    assert_line_said(capsys, "no torch calls for this model (several inputs or outputs)")


def test_a_layer_that_is_not_as_expected_is_no_crash(by_keras, monkeypatch, capsys):
    from keras_cnn.torch_fast import layer_calls

    monkeypatch.setitem(layer_calls._TORCH_CALLS, layers.Flatten, lambda layer, shape: layer.gone)
    assert_same(by_the_doors(), by_keras)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'Flatten' object has no attribute 'gone'" in said


def assert_line_said(capsys, reason):
    line = f"torch_fast: {reason}: training by Keras's own step, slower\n"
    assert capsys.readouterr().err == line  # once, for all models and optimizers


@pytest.mark.parametrize(("value", "is_fast"), [("1", False), ("0", True), ("", True)])
def test_the_switch(value, is_fast, by_keras, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_CNN_PLAIN", value)
    model = fast(network())
    assert isinstance(model, FastSteps) == is_fast
    kerass_own = type(keras.optimizers.Adam())
    assert (torch_fast.fused(keras.optimizers.Adam) is not kerass_own) == is_fast
    assert_same(by_the_doors(), by_keras)
    assert not capsys.readouterr().err


def test_a_behaviour_comes_before_the_models_own(monkeypatch):
    class Inference:
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=False, mask=mask)

    for value in ("0", "1"):
        monkeypatch.setenv("KERAS_CNN_PLAIN", value)
        model = fast(network(), behaviour=Inference)
        before = model.get_layer(index=2).get_weights()
        trained(model, "sgd")
        gamma, _, mean, variance = model.get_layer(index=2).get_weights()
        assert isinstance(model, Inference) and not np.array_equal(gamma, before[0])
        np.testing.assert_equal([mean, variance], before[2:])


def test_looking_the_names_up_changes_neither_names_nor_what_is_drawn():
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before, first = state(), layers.ReLU().name
    model = keras.Model(*[keras.Input((1,))] * 2).name
    internals.missing()
    assert state() == before
    assert [layers.ReLU().name, keras.Model(*[keras.Input((1,))] * 2).name] == [
        f"{name.rsplit('_', 1)[0]}_{int(name.rsplit('_', 1)[1]) + 1}" for name in (first, model)
    ]


def test_importing_the_door_imports_no_framework():
    code = "import sys; from keras_cnn.torch_fast import fast, fused, memory; print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not finished.stderr and not {"keras", "torch"} & set(finished.stdout.split())


def test_the_table_lists_what_the_source_uses_and_nothing_else():
    """Attributes that begin with an underscore and are not the folder's own; torch's operators."""
    sources = [path for path in SOURCES if path.stem != "internals"]
    nodes = [n for path in sources for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    used = {
        node.attr
        for node in attributes
        if ast.unparse(node.value) == "torch.ops.aten"
        or (
            (node.attr.startswith("_") and not node.attr.startswith("__"))
            and (node.attr not in own or ast.unparse(node.value) == "super()")
        )
    }
    used |= {
        name.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras.src")
        for name in node.names
    }
    used |= {  # getattr(…, "_name", …)
        node.args[1].value
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr"
        if ast.unparse(node.args[1]).startswith("'_")
    }
    listed = {private.name for private in internals.PRIVATE_NAMES}
    assert used <= listed
    named = {node.attr for node in attributes} | own | used  # some names have no underscore
    assert listed <= named
