"""Evaluation mode that sticks: the deck's loop never called train() again."""

from __future__ import annotations

import keras


class StickyEvalMode:
    """Goes before a functional model's class: training steps can be run in inference mode.

    Attributes:
        inference_mode: Whether dropout stays off and BatchNorm stays on its statistics also in
            training steps. A traced training step must be made anew after it changes.
    """

    inference_mode = False

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        """Runs the graph; `training` reaches it only while evaluation mode does not stick."""
        training = False if self.inference_mode else training
        return super().call(inputs, training=training, mask=mask)


class EvalModeSticks(keras.callbacks.Callback):
    """After the first epoch the model, a `StickyEvalMode`, trains on in inference mode.

    What a loop does that calls `eval()` for its first test pass and never `train()` again: dropout
    is off, BatchNorm runs on (and no longer updates) its statistics, weights go on training.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Switches the model over once, and has its training step traced anew."""
        if not self.model.inference_mode:
            self.model.inference_mode = True
            self.model.make_train_function(force=True)
