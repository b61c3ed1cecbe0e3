"""What the fast path relies on that neither Keras nor torch promises."""

from __future__ import annotations

import functools
import importlib
from typing import NamedTuple

import keras
import numpy as np
import torch


class PrivateName(NamedTuple):
    """An attribute that a new version may rename or take away."""

    library: str  # `keras` or `torch`
    owner: str  # what has it, a key of `_examples`
    name: str
    use: str
    is_called: bool = False  # whether it is a function or a method


PRIVATE_NAMES = (
    # A functional model's graph: a node is one call of a layer.
    PrivateName("keras", "Model", "_nodes_by_depth", "nodes of the graph, by distance to the end"),
    PrivateName("keras", "Node", "is_input", "tells the model's input from calls of layers"),
    PrivateName("keras", "Node", "operation", "the layer that is called"),
    PrivateName("keras", "Node", "arguments", "what a layer without a torch call is called with"),
    PrivateName("keras", "Node", "input_tensors", "edges of the graph"),
    PrivateName("keras", "Node", "outputs", "edges of the graph"),
    PrivateName("keras", "Node.arguments", "fill_in", "puts tensors for symbols", True),
    PrivateName("keras", "Layer", "_call_has_training_arg", "whether a layer is told `training`"),
    # Dropout's masks, to the last bit.
    PrivateName("keras", "SeedGenerator", "_initial_seed", "whether it counts its own seeds"),
    PrivateName(
        "keras", "stateless_scope", "in_stateless_scope", "whether the seed is another's", True
    ),
    # Metrics.
    PrivateName("keras", "Model", "_loss_tracker", "the epoch's mean loss"),
    PrivateName(
        "keras", "Model", "_get_metrics_result_or_logs", "overridden: an epoch's logs", True
    ),
    # Optimizers: a step without waiting for a GPU's numbers; then Adam and AdamW.
    PrivateName("keras", "Adam", "_iterations", "the count of steps"),
    PrivateName("torch", "torch.Tensor", "_version", "whether a count was changed by another"),
    PrivateName("keras", "Adam", "_parallel_update_step", "overridden: the update", True),
    PrivateName(
        "keras", "Adam", "_update_model_variables_moving_average", "overridden: the average", True
    ),
    PrivateName("keras", "Adam", "_model_variables_moving_average", "averages of the weights"),
    PrivateName("keras", "Adam", "_momentums", "first moments"),
    PrivateName("keras", "Adam", "_velocities", "second moments"),
    PrivateName("keras", "Adam", "_get_variable_index", "which moments are a weight's", True),
    PrivateName("torch", "torch", "_fused_adam_", "the update of all weights in one call", True),
    PrivateName("torch", "torch", "_foreach_lerp_", "averages of all weights in one call", True),
    # Batch normalisation.
    PrivateName("torch", "torch.ops.aten", "batch_norm_update_stats", "mean and variance", True),
    PrivateName(
        "torch", "torch.ops.aten", "native_batch_norm_backward", "gradients of gamma, beta", True
    ),
)


@functools.cache
def missing() -> tuple[PrivateName, ...]:
    """Those of `PRIVATE_NAMES` that the installed versions lack; looked up once a process."""
    examples = _examples()
    return tuple(name for name in PRIVATE_NAMES if not _is_there(examples[name.owner], name))


def _is_there(owner: object | None, name: PrivateName) -> bool:
    if owner is None:  # the graph cannot be walked, which is told already
        return True
    found = getattr(owner, name.name, None)
    return found is not None and (callable(found) or not name.is_called)


def _examples() -> dict[str, object | None]:
    """One of each owner, as small as they come."""
    # Nothing is drawn at random, and all have names, so that models built afterwards get the
    # weights and the names that they would have got.
    layer = keras.layers.ReLU(name="example_layer")
    inputs = keras.Input((1,), name="example_input")
    model = keras.Model(inputs, layer(inputs), name="example_model")
    adam = keras.optimizers.Adam(use_ema=True, name="example_adam")
    adam.build([keras.Variable(np.zeros(1, "float32"), name="example_weight")])
    model.compile(optimizer=adam, loss="mse")
    node = getattr(model, "_nodes_by_depth", {0: [None]})[0][0]  # depth 0 is the output
    try:
        stateless_scope = importlib.import_module("keras.src.backend.common.stateless_scope")
    except ImportError:
        stateless_scope = object()  # has none of its names
    return {
        "Model": model,
        "Node": node,
        "Node.arguments": getattr(node, "arguments", None),
        "Layer": layer,
        "SeedGenerator": keras.random.SeedGenerator(0, name="example_seeds"),
        "stateless_scope": stateless_scope,
        "Adam": adam,
        "torch": torch,
        "torch.Tensor": torch.zeros((), device="cpu"),
        "torch.ops.aten": torch.ops.aten,
    }
