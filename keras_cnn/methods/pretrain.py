"""Pretraining of a small backbone on many images, in the way of ConvNeXt (arXiv:2201.03545)."""

from __future__ import annotations

import time
from functools import partial

import keras
import numpy as np

from keras_cnn import data
from keras_cnn.data import Split, augment
from keras_cnn.data.crops import random_resized_crops
from keras_cnn.data.sampling import draw_shots
from keras_cnn.errors import UserError
from keras_cnn.methods import Outcome, networks
from keras_cnn.models import saved
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.settings import Pretrain
from keras_cnn.results import store
from keras_cnn.torch_fast import fast
from keras_cnn.training import optimizers
from keras_cnn.training.callbacks import History, Report
from keras_cnn.training.checkpoint import Checkpoint
from keras_cnn.training.feed import Feed, Reshuffle

TRIAL_STEPS = 30
NOT_DECAYED = ("bias", "gamma", "beta")  # nor are the layer scales
_STREAM = 3  # of crops and colours, apart from the order of images


def train(run: Run, train: Split, test: Split, class_names: list[str], report: Report) -> Outcome:
    """Trains a classifier; a run that was killed goes on after its last epoch.

    Args:
        run: What to do; `run.training` is a `Pretrain`.
        train: Images (n, h, w, 3) uint8 and labels (n,): which ones train; they are loaded anew,
            larger, to be cropped.
        test: Images to evaluate on after each epoch, with the moving average of the weights.
        class_names: In the order of the labels.
        report: Called with one record an epoch, how many there will be (`epochs`) and of how many
            `images`.

    Returns:
        The history, the test images' probabilities (n, classes), and the model to save.
    """
    settings: Pretrain = run.training
    classes = len(class_names)
    large = _large_images(run, class_names)
    feed = Feed(
        train.images,
        augment.one_hot(train.labels, classes),
        settings.batch_size,
        run.training_seed,
        partial(_changed, run, large, classes),
    )
    graph = networks.classifier(run, classes)
    tested = Feed(
        test.images, augment.one_hot(test.labels, classes), networks.EVALUATION_BATCH_SIZE
    )
    model = fast(graph, mixed_precision=_multiplies_in_bfloat16(settings.mixed_precision))
    checkpoint = Checkpoint(store.checkpoint_file(run))
    epochs = checkpoint.planned_epochs() or _planned_epochs(run, model, feed, tested)
    _compile(model, settings, epochs, len(feed))
    records = checkpoint.restore(model)
    ahead = {"epochs": epochs, "images": len(train.labels)}  # for whoever watches
    history = History(lambda record: report(record | ahead))
    for record in records:
        history.records.append(record)
        report(record | ahead)
    checkpoint.keep(history.records, epochs)
    model.fit(
        feed,
        epochs=epochs,
        initial_epoch=len(records),
        shuffle=False,  # of whole batches
        validation_data=tested,
        callbacks=[
            Reshuffle(feed),
            keras.callbacks.SwapEMAWeights(),  # while the test images are evaluated
            history,
            checkpoint,
        ],
        verbose=0,
    )
    if len(records) == epochs:  # `fit` had nothing left to do, and did not end with the average
        model.optimizer.finalize_variable_values(model.trainable_variables)
    classifier = saved.classifier(graph)
    return Outcome(history.records, networks.outputs(classifier, test.images), classifier)


def _large_images(run: Run, class_names: list[str]) -> Split:
    """The training images in the size that crops are cut from."""
    split = data.load(run.data.data, run.training.crop_from, ("train",)).splits["train"]
    if run.data.shots is None:
        return split
    chosen = draw_shots(split.labels, run.data.shots, run.shots_seed, class_names)
    return Split(np.asarray(split.images[chosen]), split.labels[chosen])


def _changed(run: Run, large: Split, classes: int, epoch: int) -> Split:
    """The training images of an epoch: crops (n, h, w, 3) and smoothed labels (n, classes)."""
    settings: Pretrain = run.training
    generator = np.random.default_rng((run.training_seed, epoch, _STREAM))
    crops = random_resized_crops(
        large.images, run.data.image_size, settings.smallest_crop, generator
    )
    if settings.colour:
        factors = generator.uniform(1 - settings.colour, 1 + settings.colour, (3, len(crops)))
        crops = augment.adjust_colour(crops, *factors, np.zeros(len(crops)))
    shares = augment.one_hot(large.labels, classes)
    if settings.cutmix_share:
        pasted = generator.random(len(crops)) < settings.cutmix_share
        images, of_both = augment.cutmix(crops, large.labels, classes, generator)
        crops[pasted], shares[pasted] = images[pasted], of_both[pasted]
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


def _planned_epochs(run: Run, model: keras.Model, feed: Feed, tested: Feed) -> int:
    """How many epochs there are, or are time for; the model is left as it was.

    An epoch is the drawing of its images, its steps, of which some are tried, and a test pass.
    """
    settings: Pretrain = run.training
    if settings.minutes is None:
        return settings.epochs
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    _compile(model, settings, 1, 10 * TRIAL_STEPS)
    model.fit(feed, epochs=1, steps_per_epoch=2, verbose=0, shuffle=False)  # warms up
    began = time.perf_counter()
    steps = min(TRIAL_STEPS, len(feed))
    model.fit(feed, epochs=1, steps_per_epoch=steps, verbose=0, shuffle=False)
    seconds = (time.perf_counter() - began) / steps * len(feed)
    began = time.perf_counter()
    feed.begin_epoch(1)
    model.evaluate(tested, verbose=0)
    seconds += time.perf_counter() - began
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return max(1, int(settings.minutes * 60 / seconds))
