"""Which part of a network trains."""

from __future__ import annotations

import re

import keras

VERSION = 1  # raised when the same number of stages freezes other weights


def freeze_stages(model: keras.Model, unfrozen_stages: int) -> None:
    """Freezes all but the last stages and the head; compile the model after it.

    A final norm between the last stage and the head is frozen too, as in the deck.

    Args:
        model: Flat; layers named `stageN_…` for N from 1, `head_…`, and others.
        unfrozen_stages: How many of the last stages train.
    """
    last = max(map(_stage, model.layers))
    for layer in model.layers:
        stage = _stage(layer)
        if not layer.name.startswith("head_") and stage <= max(0, last - unfrozen_stages):
            layer.trainable = False


def constant_part(model: keras.Model) -> tuple[keras.Model, keras.KerasTensor] | None:
    """The part of a model whose output for an image stays the same while the rest trains.

    Args:
        model: Functional, one input and one output.

    Returns:
        A model from images to features, and the same features as a tensor of `model`'s graph,
        from which the rest of it can be built. None where there is no such part: nothing that has
        weights is frozen, statistics of frozen layers move, or more than one tensor joins the
        two parts.
    """
    # Ids of tensors that depend on what never changes alone.
    constant = {id(tensor) for tensor in model.inputs}
    made_by: dict[int, keras.Operation] = {}
    crossing: dict[int, keras.KerasTensor] = {}
    for layer in model.operations:  # layers, and functions of `keras.ops`
        inputs, outputs = _ends(layer)
        made_by |= {id(tensor): layer for tensor in outputs}
        joined = all(id(tensor) in constant for tensor in inputs)
        if joined and not getattr(layer, "trainable_weights", []):
            if _statistics_move(layer):
                return None
            if not _draws(layer):
                constant |= {id(tensor) for tensor in outputs}
                continue
        crossing |= {id(tensor): tensor for tensor in inputs if id(tensor) in constant}
    _leave_weightless_layers_to_the_rest(crossing, made_by)
    if len(crossing) != 1:
        return None
    (features,) = crossing.values()
    part = keras.Model(model.input, features, name="frozen")
    return (part, features) if part.weights else None


def _leave_weightless_layers_to_the_rest(
    crossing: dict[int, keras.KerasTensor], made_by: dict[int, keras.Operation]
) -> None:
    """Has the two parts joined by fewer tensors: a padding of one branch counts to the rest."""
    while len(crossing) > 1:
        weightless = [name for name in crossing if not getattr(made_by[name], "weights", [])]
        weightless = [name for name in weightless if len(_ends(made_by[name])[0]) == 1]
        if not weightless:
            return
        (source,), _ = _ends(made_by[weightless[0]])
        del crossing[weightless[0]]
        crossing[id(source)] = source


def _ends(layer: keras.Operation) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """The tensors a layer is given and gives; of a model inside the model, those outside it."""
    ends = keras.Operation.input.fget(layer), keras.Operation.output.fget(layer)
    return tuple(tensors if isinstance(tensors, list) else [tensors] for tensors in ends)


def _statistics_move(layer: keras.Operation) -> bool:
    """Whether a layer, or model, none of whose weights train updates statistics in training."""
    inside = [layer, *getattr(layer, "layers", ())]
    return any(isinstance(x, keras.layers.BatchNormalization) and x.trainable for x in inside)


def _draws(layer: keras.Operation) -> bool:
    """Whether a layer's output for the same input is drawn anew in each step."""
    # A seed is a variable, but no weight.
    return len(getattr(layer, "variables", [])) > len(getattr(layer, "weights", []))


def _stage(layer: keras.layers.Layer) -> int:
    """The number in `stageN_…`; 0 outside the stages."""
    match = re.match(r"stage(\d+)_", layer.name)
    return int(match[1]) if match else 0
