"""From a folder of photographs to a model, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.special import softmax

from keras_cnn import environment, files
from keras_cnn.data.fit import FITS, check
from keras_cnn.teach import (
    backbones,
    calibration,
    figures,
    keeping,
    lesson,
    page,
    pictures,
    runs,
    search,
)
from keras_cnn.teach.backbones import Backbone
from keras_cnn.teach.lesson import Lesson
from keras_cnn.teach.pictures import Pictures
from keras_cnn.teach.search import Clock, Compared, Notify, quiet
from keras_cnn.teach.taught import Accuracy, Scored, Taught, Told


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        source: The photographs: a folder, or a data source's name.
        out: Where the model and all else goes.
        backbone: A network's name, or `auto`.
        method: A method's name, or `auto`.
        fit: `crop`, `squash`, `pad`, or `auto`.
        shots: Training images of each class, at most; None takes all.
        balance: Whether every class is to count alike, however many images it has.
        minutes: What it may take.
        error_rate: The share of answers that may be wrong where the model is not unsure.
        seed: Seeds the folds and the draw of the shots.
        command: The command line that asks for it.
    """

    source: str
    out: Path
    backbone: str = "auto"
    method: str = "auto"
    fit: str = "auto"
    shots: int | None = None
    balance: bool = False
    minutes: float = 10.0
    error_rate: float = 0.05
    seed: int = 213
    command: str = ""


def teach(request: Request, notify: Notify = quiet) -> Taught:
    """Teaches a backbone the classes of a folder, and tells how far the result can be trusted.

    Backbones, fits and methods are compared on held-out training images. The best is taught with
    all of them, calibrated by what the folds say, and tested once on the images set aside.

    Args:
        request: What is asked for.
        notify: Called with what is done, how much of it, of how much.

    Raises:
        UserError: The images or the weights cannot be used.
    """
    calibration.check_error_rate(request.error_rate)
    began, clock = time.monotonic(), Clock(60 * request.minutes)
    methods, fits = search.heads(request.method, request.balance), _fits(request.fit)
    tried, why = backbones.choose(request.backbone)
    files.check_writable(request.out)
    images = pictures.of(request.source, tried[0].image_size, request.shots, request.seed)
    photos = images.training()
    environment.seed_everything(request.seed)
    compared = search.search(
        photos, tried, fits, methods, clock, request.seed, request.balance, notify
    )
    learned, *others = (
        lesson.of(one, tried, photos, request.error_rate, request.seed, notify)
        for one in _of_two_methods(compared)
    )
    test = _tested(images, learned, notify)
    model_file = request.out / "model.keras"
    keeping.save(learned, images.class_names, model_file)
    folders = [
        runs.write(one, images, request.out, request.seed, request.shots) for one in compared
    ]
    found, (equal, near) = learned.compared.found, images.copies()
    notes, faults = images.notes_and_faults()
    curve, gain = learned.curve(photos)
    taught = Taught(
        folder=Path(request.source),
        class_names=images.class_names,
        chosen=learned.compared.candidate,
        why_backbone=_why(why, learned, tried),
        candidates=tuple(
            _scored(one, at, request.balance) for one, at in zip(compared, folders, strict=True)
        ),
        train=Told(images.files("train"), photos.labels, found.probabilities, learned.familiarity),
        test=test,
        foretold=figures.foretold(found, gain, learned.compared.trained_share, len(test.labels)),
        tested=_accuracy(test),
        runner_up=_accuracy(_tested(images, others[0], notify)) if others else None,
        majority=float((test.labels == np.bincount(images.all_labels()).argmax()).mean()),
        calibration=learned.calibration,
        curve=curve,
        gain=gain,
        model_file=model_file,
        command=request.command,
        seconds=time.monotonic() - began,  # without the page
        notes=notes,
        faults=faults,
        equal=equal,
        near=near,
        environment=environment.describe(),
    )
    page.write(taught, request.out / "index.html")
    return taught


def _why(first: str, learned: Lesson, tried: Sequence[Backbone]) -> str:
    """A sentence: which backbone was chosen, and why."""
    chosen = learned.backbone
    if chosen == tried[0]:
        return first
    return (
        f"{chosen.name} at {chosen.image_size} pixels, trained on {chosen.about}: on held-out "
        f"training images it does better than {tried[0].name}"
    )


def _of_two_methods(compared: Sequence[Compared]) -> list[Compared]:
    """The best candidate, and the best of another method, if any."""
    best = compared[0]
    method = type(best.candidate.settings)
    others = (one for one in compared if type(one.candidate.settings) is not method)
    return [best, *islice(others, 1)]


def _fits(fit: str) -> tuple[str, ...]:
    if fit == "auto":
        return FITS
    check(fit)
    return (fit,)


def _tested(images: Pictures, learned: Lesson, notify: Notify) -> Told:
    """What a lesson says of the images set aside."""
    backbone, fit = learned.backbone, learned.compared.candidate.fit
    shown = images.test_images(backbone.image_size, fit)
    what = f"features of the test images, {backbone.name}, {fit}"
    features = backbones.features(learned.network, shown, lambda n: notify(what, n, len(shown)))
    probabilities = softmax(learned.head.logits(features).astype(np.float64), axis=1)
    scores = learned.familiar.score(features)
    return Told(images.files("test"), images.test_labels(), probabilities, scores)


def _accuracy(told: Told) -> Accuracy:
    return figures.accuracy(float((told.predicted == told.labels).mean()), len(told.labels))


def _scored(compared: Compared, folder: Path, balance: bool) -> Scored:
    found = compared.found
    accuracy = figures.accuracy(float(found.right.mean()), int(found.told.sum()))
    loss = figures.log_loss(found, balance)  # by which they were chosen
    return Scored(compared.candidate, accuracy, loss, compared.seconds, folder)
