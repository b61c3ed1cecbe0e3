"""The eval mode that sticks: after its first test pass the deck's loop never trained again."""

from __future__ import annotations

import keras


class StickyEvalMode:
    """What a model needs for `EvalModeSticks`; `behaviour` of `torch_fast.fast`.

    Attributes:
        inference_mode: Whether dropout stays off and BatchNorm stays on its statistics also in
            training steps. A traced training step must be made anew after it changes.
    """

    inference_mode = False

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        """Runs the model, in inference mode where that has stuck."""
        return super().call(inputs, training=False if self.inference_mode else training, mask=mask)


class EvalModeSticks(keras.callbacks.Callback):
    """After the first epoch the model trains on in inference mode.

    What a loop does that calls `eval()` for its first test pass and never `train()` again: dropout
    is off, BatchNorm runs on (and no longer updates) its statistics, weights go on training.
    Needs a model that is a `StickyEvalMode`.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Switches the model over once, and has its training step traced anew."""
        if not self.model.inference_mode:
            self.model.inference_mode = True
            self.model.make_train_function(force=True)
