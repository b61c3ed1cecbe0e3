"""Which part of a network trains."""

from __future__ import annotations

import re

import keras


def freeze(model: keras.Model, unfrozen_stages: int | None, statistics_move: bool = False) -> None:
    """Freezes all but the last stages and the head; compile the model after it.

    A final norm between the last stage and the head is frozen too, as in the deck.

    Args:
        model: Flat; layers named `stageN_…` for N from 1, `head_…`, and others.
        unfrozen_stages: How many of the last stages train; None trains everything.
        statistics_move: Leaves frozen BatchNorm layers updating their running statistics in
            training steps, as torch's `requires_grad = False` does; otherwise they stand still.
    """
    for layer in model.layers:
        if _trains(model, layer, unfrozen_stages):
            continue
        if statistics_move and isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.trainable = False
            layer.beta.trainable = False
        else:
            layer.trainable = False


def frozen_part(
    model: keras.Model, unfrozen_stages: int | None
) -> tuple[keras.Model, keras.KerasTensor] | None:
    """The part of a frozen model whose output for an image never changes while the rest trains.

    Args:
        model: Flat, after `freeze`.
        unfrozen_stages: As given to `freeze`.

    Returns:
        A model from images to kept features, and the same features as a tensor of `model`'s
        graph, from which the rest of it can be built. None where there is no such part: everything
        that has weights trains, frozen statistics move, or frozen branches are dropped at random.
    """
    kept: set[int] = set()  # ids of tensors that depend on frozen layers only
    crossing: dict[int, keras.KerasTensor] = {}
    for layer in model.layers:
        inputs = [] if isinstance(layer, keras.layers.InputLayer) else _list(layer.input)
        if all(id(tensor) in kept for tensor in inputs) and not _trains(
            model, layer, unfrozen_stages
        ):
            if _changes(layer):
                return None
            kept.update(id(tensor) for tensor in _list(layer.output))
        else:
            crossing |= {id(tensor): tensor for tensor in inputs if id(tensor) in kept}
    if len(crossing) != 1:
        return None
    (features,) = crossing.values()
    frozen = keras.Model(model.input, features, name="frozen")
    return (frozen, features) if frozen.weights else None


def _trains(model: keras.Model, layer: keras.layers.Layer, unfrozen_stages: int | None) -> bool:
    if unfrozen_stages is None or layer.name.startswith("head_"):
        return True
    stage = _stage(layer)
    return stage > 0 and stage > max(map(_stage, model.layers)) - unfrozen_stages


def _stage(layer: keras.layers.Layer) -> int:
    """The number in `stageN_…`; 0 outside the stages."""
    match = re.match(r"stage(\d+)_", layer.name)
    return int(match[1]) if match else 0


def _changes(layer: keras.layers.Layer) -> bool:
    """Whether a frozen layer's output for the same input differs from step to step."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.trainable  # its statistics were left to move
    return isinstance(layer, keras.layers.Dropout) and layer.rate > 0


def _list(tensors: keras.KerasTensor | list[keras.KerasTensor]) -> list[keras.KerasTensor]:
    return tensors if isinstance(tensors, list) else [tensors]
