"""Keras models that train faster on torch: the same variables, the same mathematics.

`fast` is the door for models, `fused` that for optimizers; nothing else here is called from
outside, but for `memory` and `waiting`. Importing the package imports no framework.

**What it does.** Keras on torch transposes every image batch and every kernel in each step, reads
the metrics in each step, and goes over all weights once for each operation of Adam. Here

- the graph runs as plain torch calls on feature maps in channels-last memory (`graph`,
  `layer_calls`; `batch_norm` and `small_maps` are the two that torch has no good call for);
- metrics are computed from many batches at a time (`model`);
- Adam is torch's fused kernel (`adam`);
- freed memory stays with the process (`memory`);
- threads do not spin where other processes want the cores (`waiting`).

**What it relies on.** Names that Keras and torch do not promise: all of them are in
`internals.PRIVATE_NAMES`. Before first use they are looked up, once a process. Where one is not
there, or where a model's graph cannot be run so, training is by Keras's own step, and one line on
standard error says so.

**What it costs.** The logs of a batch are empty: a callback that wants them in mid-epoch asks
`model.get_metrics_result()`. Sums are rounded otherwise than by Keras (losses agree to 1e-5). A
gradient can be taken once: BatchNorm's is not differentiable again. Mixed precision is here alone:
Keras's own step multiplies in float32.

**How to go round it.** The environment variable `KERAS_CNN_PLAIN=1`: models and optimizers are then
Keras's own, as they are on TensorFlow and JAX.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

SWITCH = "KERAS_CNN_PLAIN"


def fast(
    model: keras.Model, mixed_precision: bool = False, behaviour: type | None = None
) -> keras.Model:
    """A model on the same graph and variables that trains, evaluates and predicts fast on torch.

    On other backends, and where the fast path is off, it is a Keras model that does the same by
    Keras's own steps.

    Args:
        model: Functional; the fast path is for one input and one output.
        mixed_precision: Whether training steps on the fast path multiply in bfloat16. Weights,
            sums, norms and all of evaluation stay float32.
        behaviour: A class put before the model's own in the order in which methods are looked up.
            Its `call(inputs, training=None, mask=None)` may change `training` and ends in
            `super().call`.

    Returns:
        A new model, to be compiled; `isinstance(it, behaviour)` where one is given.

    Example:
        >>> model = fast(models.classifier("baseline", class_count=10))
        >>> model.compile(optimizer=optimizers.build("adam", 1e-3), loss=...)
        >>> model.fit(images, labels)
    """
    import keras

    plain = keras.Model(model.input, model.output, name=model.name)
    bases = [type(plain)]
    graph = _torch_graph(plain)
    if graph is not None:
        from keras_cnn.torch_fast.model import FastSteps

        bases.insert(0, FastSteps)
    if behaviour is not None:
        bases.insert(0, behaviour)
    made = _class_of(*bases)(plain.input, plain.output, name=model.name)
    if graph is not None:
        made.torch_graph, made.mixed_precision = graph, mixed_precision
    return made


def fused(kind: type[keras.optimizers.Adam]) -> type[keras.optimizers.Adam]:
    """An Adam that goes over the weights once a step on torch; elsewhere Keras's own.

    Args:
        kind: `keras.optimizers.Adam` or `keras.optimizers.AdamW`.

    Returns:
        A class with the constructor, the state and the mathematics of `kind`.
    """
    import keras

    if keras.backend.backend() != "torch":
        return kind
    own = type(kind())  # on torch Keras hands out a subclass
    if not is_on():
        return own
    from keras_cnn.torch_fast import adam

    return adam.fused(own)


def is_off() -> bool:
    """Whether the environment asks for Keras's own training step."""
    return os.environ.get(SWITCH, "") not in ("", "0")


def is_on() -> bool:
    """Whether the fast path is on here; says which private name is missing, if one is."""
    import keras

    if keras.backend.backend() != "torch" or is_off():
        return False
    from keras_cnn.torch_fast import internals

    missing = internals.missing()
    if missing:
        names = ", ".join(f"{name.owner}.{name.name}" for name in missing)
        _say_once(f"{missing[0].library} has no {names}")
    return not missing


def _torch_graph(model: keras.Model) -> object | None:
    """The model's graph as torch calls; None where Keras's own step has to do."""
    if not is_on():
        return None
    from keras_cnn.torch_fast.graph import TorchGraph

    try:
        return TorchGraph(model)
    except Exception as error:  # whatever a model may hold, it trains
        _say_once(f"no torch calls for this model ({error})")
        return None


@functools.cache
def _class_of(*bases: type) -> type:
    return type("FastModel", bases, {}) if len(bases) > 1 else bases[0]


@functools.cache
def _say_once(reason: str) -> None:
    print(f"torch_fast: {reason}: training by Keras's own step, slower", file=sys.stderr)
