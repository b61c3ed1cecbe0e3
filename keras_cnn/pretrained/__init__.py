"""Weights that come along, are fetched, or lie in a user's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_cnn.pretrained import named

if TYPE_CHECKING:
    import keras


def load(model: keras.Model, weights: str) -> None:
    """Gives a network of ours weights by name or from a file; a head keeps its own.

    Args:
        model: From `models.classifier` or `models.backbone`.
        weights: `bundled`, `pretrained` (as fetched, or as another package has it), `random` (those
            it has), or a file's path.

    Raises:
        UserError: There are no such weights, or they do not fit.
    """
    file = named.weights_file(model.name, weights)
    if file is not None:
        from keras_cnn.pretrained import weights as files  # keras from here on

        files.load(model, file)
