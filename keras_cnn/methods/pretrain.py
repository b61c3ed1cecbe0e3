"""Pretraining of a small backbone on many images, in the way of ConvNeXt (arXiv:2201.03545)."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import keras
import numpy as np

from keras_cnn import torch_fast
from keras_cnn.data import Split, augment
from keras_cnn.data.crops import random_resized_crops
from keras_cnn.errors import UserError
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import Pretrain
from keras_cnn.training import batch_size, feed, gradients, optimizers
from keras_cnn.training.checkpoint import Checkpoint
from keras_cnn.training.feed import BeginEpoch, Feed
from keras_cnn.training.history import History

VERSION = 1  # raised when a change makes the same settings give another result
TRIAL_STEPS = 30
NOT_DECAYED = ("bias", "gamma", "beta")  # nor are the layer scales
_STREAM = 3  # of crops and colours, apart from the order of images


@method(Pretrain)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: Pretrain,
    seed: int,
    report: Report,
    *,
    checkpoint: str | Path | None = None,
) -> Learned:
    """Trains a classifier on many images; one that was killed goes on after its last epoch.

        network = models.classifier("convnext_atto", class_count=200, stochastic_depth=0.1)
        trained = methods.pretrain.train(network, train, test, epochs=56, checkpoint="state.h5")

    Training images may be of any size: they are cropped to the network's. `checkpoint` is the file
    to go on from where it is there, and to keep the state in after each epoch; give it a new name
    for other settings. Records have two more keys, how many epochs there will be (`epochs`) and of
    how many `images`.

    Returns:
        The history, and the network with the average of its weights.
    """
    classes = network.output.shape[-1]
    size = network.input.shape[1]
    changed = partial(_changed, train, settings, size, classes, seed)
    drawn = feed.shuffled(changed, settings.batch_size, seed)
    shares = augment.one_hot(test.labels, classes)
    tested = feed.in_order(Split(test.images, shares), batch_size.of(test.images.shape))
    in_bfloat16 = _multiplies_in_bfloat16(settings.mixed_precision)
    model = torch_fast.fast(network, mixed_precision=in_bfloat16)
    state = Checkpoint(checkpoint)
    epochs = state.planned_epochs() or _planned_epochs(settings, model, drawn, tested)
    _compile(model, settings, epochs, len(drawn))
    records = state.restore(model)
    ahead = {"epochs": epochs, "images": len(train.labels)}  # for whoever watches
    history = History(lambda record: report(record | ahead))
    for record in records:
        history.records.append(record)
        report(record | ahead)
    state.keep(history.records, epochs)
    model.fit(
        drawn,
        epochs=epochs,
        initial_epoch=len(records),
        shuffle=False,  # of whole batches
        validation_data=tested,
        callbacks=[
            BeginEpoch(drawn),
            keras.callbacks.SwapEMAWeights(),  # while the test images are evaluated
            history,
            state,
        ],
        verbose=0,
    )
    if len(records) == epochs:  # `fit` had nothing left to do, and did not end with the average
        model.optimizer.finalize_variable_values(model.trainable_variables)
    return Learned(history.records, network, {})


def _changed(
    train: Split, settings: Pretrain, size: int, classes: int, seed: int, epoch: int
) -> Split:
    """The training images of an epoch: crops (n, size, size, 3), smoothed labels (n, classes)."""
    generator = np.random.default_rng((seed, epoch, _STREAM))
    crops = random_resized_crops(train.images, size, settings.smallest_crop, generator)
    if settings.colour:
        factors = generator.uniform(1 - settings.colour, 1 + settings.colour, (3, len(crops)))
        crops = augment.adjust_colour(crops, *factors, np.zeros(len(crops)))
    shares = augment.one_hot(train.labels, classes)
    if settings.cutmix_share:
        pasted = generator.random(len(crops)) < settings.cutmix_share
        images, both = augment.cutmix(crops, train.labels, classes, generator)
        crops[pasted], shares[pasted] = images[pasted], both[pasted]
    smoothing = np.float32(settings.label_smoothing)
    return Split(crops, shares * (1 - smoothing) + smoothing / classes)


def _multiplies_in_bfloat16(wanted: bool | None) -> bool:
    if keras.backend.backend() != "torch":
        if wanted:
            raise UserError("mixed_precision is for torch: leave it out, or use --backend=torch")
        return False
    if wanted is not None:
        return wanted
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()  # nothing public says so in all torch from 2.6


def _compile(model: keras.Model, settings: Pretrain, epochs: int, steps_an_epoch: int) -> None:
    steps = epochs * steps_an_epoch
    warm_up = min(round(settings.warm_up_epochs * steps_an_epoch), steps // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warm_up else settings.learning_rate,
        steps - warm_up,
        warmup_target=settings.learning_rate if warm_up else None,
        warmup_steps=warm_up,
    )
    optimizer = optimizers.averaged_adamw(rate, settings.weight_decay, settings.average_decay)
    optimizer.exclude_from_weight_decay(
        [
            weight
            for weight in model.trainable_weights
            if weight.name in NOT_DECAYED or weight.path.split("/")[0].endswith("_scale")
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])


def _planned_epochs(settings: Pretrain, model: keras.Model, drawn: Feed, tested: Feed) -> int:
    """How many epochs there are, or are time for; the model is left as it was.

    An epoch is the drawing of its images, its steps, of which some are tried, and a test pass.
    """
    if settings.minutes is None:
        return settings.epochs
    before = gradients.arrays(model.variables)
    _compile(model, settings, 1, 10 * TRIAL_STEPS)
    model.fit(drawn, epochs=1, steps_per_epoch=2, verbose=0, shuffle=False)  # warms up
    began = time.perf_counter()
    steps = min(TRIAL_STEPS, len(drawn))
    model.fit(drawn, epochs=1, steps_per_epoch=steps, verbose=0, shuffle=False)
    seconds = (time.perf_counter() - began) / steps * len(drawn)
    began = time.perf_counter()
    drawn.begin_epoch(1)
    model.evaluate(tested, verbose=0)
    seconds += time.perf_counter() - began
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return max(1, int(settings.minutes * 60 / seconds))
