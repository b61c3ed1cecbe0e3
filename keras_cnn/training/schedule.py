"""The learning rate by epoch."""

from __future__ import annotations

import math

import keras

from keras_cnn.methods.settings import Descent

VERSION = 1  # raised when a schedule gives other rates


def learning_rate_at(epoch: int, settings: Descent) -> float:
    """The learning rate of an epoch, counted from 0.

    `step` is torch's StepLR, `cosine` its CosineAnnealingLR, which climbs back after
    `schedule_epochs`.
    """
    if settings.schedule == "step":
        return settings.learning_rate * settings.schedule_factor ** (
            epoch // settings.schedule_epochs
        )
    if settings.schedule == "cosine":
        half_period = settings.schedule_epochs
        return settings.learning_rate * (1 + math.cos(math.pi * epoch / half_period)) / 2
    return settings.learning_rate


def callback(settings: Descent) -> keras.callbacks.Callback:
    """Sets the learning rate of each epoch as the settings' schedule has it."""
    return keras.callbacks.LearningRateScheduler(lambda epoch: learning_rate_at(epoch, settings))
