"""Candidates compared on held-out training images, and the best of them taught with all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from keras_cnn.errors import UserError, nearest
from keras_cnn.methods.on_features import Head
from keras_cnn.methods.settings import (
    LinearDiscriminant,
    LinearProbe,
    Method,
    NearestMean,
    Supervised,
)
from keras_cnn.teach import backbones, figures, folds, learners, tuning
from keras_cnn.teach.backbones import Backbone
from keras_cnn.teach.candidates import Candidate
from keras_cnn.teach.figures import OutOfFold
from keras_cnn.training.evaluation import loss_and_accuracy

if TYPE_CHECKING:
    import keras

STRENGTHS = (30.0, 300.0)  # of the linear probe's penalty
SHRINKAGES = (0.03, 0.1, 0.2, 0.4, 0.7, 0.9)  # of the linear discriminant
# The nearest mean and the linear discriminant take all classes for equally likely.
HEADS: dict[str, tuple[Method, ...]] = {
    "nearest_mean": (NearestMean(),),
    "linear_discriminant": tuple(
        LinearDiscriminant(shrinkage=shrinkage, normalised=normalised)
        for normalised in (False, True)
        for shrinkage in SHRINKAGES
    ),
    "linear_probe": tuple(LinearProbe(regularization_strength=one) for one in STRENGTHS),
    "fine_tuning": (tuning.SETTINGS,),
}
PROMISING = 6  # heads that are tried on other backbones and fits than the first


@dataclass(frozen=True)
class Photos:
    """Training images.

    Attributes:
        labels: int64 (n,), every class from 0 on at least once.
        groups: (n,) equal for images that are to stay on one side of every fold.
        images: From a height and width in pixels, and a fit, to uint8 (n, s, s, 3).
    """

    labels: np.ndarray
    groups: np.ndarray
    images: Callable[[int, str], np.ndarray]


@dataclass(frozen=True)
class Compared:
    """A candidate, and what the folds say.

    Attributes:
        candidate: What was tried.
        found: What models say of images they have not seen.
        head: Taught with all training images; None of what is fine-tuned.
        train: Loss and accuracy on them, before calibration.
        drawn: The folds, as of `folds.draw`.
        seconds: It took, without the features.
        network: Fine-tuned with all training images, from images to logits; None of heads.
    """

    candidate: Candidate
    found: OutOfFold
    head: Head | None
    train: tuple[float, float]
    drawn: np.ndarray
    seconds: float
    network: keras.Model | None = None

    @property
    def fold_count(self) -> int:
        """In how many folds it was judged."""
        return int(self.drawn.max()) + 1

    @property
    def trained_share(self) -> float:
        """The share of the training images that a fold's model has learnt from."""
        return folds.trained_share(self.drawn)


@dataclass
class Clock:
    """The time there is.

    Attributes:
        seconds: From now on.
        began: When it was started, by `time.monotonic`.
    """

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds, not below 0."""
        return max(0.0, self.seconds - (time.monotonic() - self.began))


# Called with what is done, how much of it, of how much: "features", 256, 3068.
Notify = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """A `Notify` that says nothing."""


def heads(method: str, balance: bool = False) -> tuple[Method, ...]:
    """The settings to try of a method, or of all of them: `auto`.

    Args:
        method: Its name, or `auto`.
        balance: Whether every class is to count alike, however many images it has.

    Raises:
        UserError: There is no such method here.
    """
    if method not in ("auto", *HEADS):
        raise UserError(f"no method {method!r}: {nearest(method, ['auto', *HEADS])}")
    chosen = HEADS if method == "auto" else {method: HEADS[method]}
    return tuple(
        one.model_copy(update={"balanced": balance}) if isinstance(one, LinearProbe) else one
        for settings in chosen.values()
        for one in settings
    )


def search(
    photos: Photos,
    tried: Sequence[Backbone],
    fits: Sequence[str],
    methods: Sequence[Method],
    clock: Clock,
    seed: int,
    balance: bool = False,
    notify: Notify = quiet,
) -> list[Compared]:
    """Compares methods on the features of backbones and fits, as many as the time allows.

    All methods are tried on the first backbone, and the most promising on the others; the last
    stage of the best backbone is fine-tuned; then the promising ones are tried at its other fits.

    Args:
        photos: The training images.
        tried: The backbones; the first is tried whatever the time, each other one where it will
            take no more than is left.
        fits: How images are brought to a square.
        methods: Settings of the methods to try on each.
        clock: The time there is.
        seed: Seeds the folds.
        balance: Whether every class is to count alike, however many images it has.
        notify: Called as the work goes on.

    Returns:
        The candidates, that of least log loss on the held-out images first: of few images it
        tells more than accuracy does.
    """
    on_features = [one for one in methods if not isinstance(one, Supervised)]
    compared: list[Compared] = []
    spent = 0.0  # by the last one, but for the backbone's features

    def loss(one: Compared) -> float:
        return figures.log_loss(one.found, balance)

    def add(backbone: Backbone, fit: str, settings: Sequence[Method]) -> None:
        nonlocal spent
        each = backbones.seconds_an_image(backbone)
        # The images set aside are to come, at most as many as these.
        if compared and spent + 2 * each * len(photos.labels) > clock.left:
            notify(f"no time for {backbone.name}, {fit}", 0, 1)
            return
        began = time.monotonic()
        features = features_of(photos, backbone, fit, notify)
        compared.extend(_compared(photos, backbone, fit, features, settings, seed, notify))
        spent = max(spent, time.monotonic() - began - each * len(photos.labels))

    if not on_features:
        return [_tuned(photos, tried[0], fits[0], tuning.SETTINGS, seed, notify)]
    add(tried[0], fits[0], on_features)
    promising = [one.candidate.settings for one in sorted(compared, key=loss)[:PROMISING]]
    for backbone in tried[1:]:
        add(backbone, fits[0], promising)
    chosen = min(compared, key=loss).candidate.start
    best = next(one for one in tried if (one.name, one.weights) == chosen)
    if len(on_features) < len(methods):
        tuned = _tuned(photos, best, fits[0], tuning.SETTINGS, seed, notify, clock)
        compared += [tuned] if tuned else []
    first = photos.images(best.image_size, fits[0])
    for fit in fits[1:]:
        # Of images that are square all fits are one.
        if not np.array_equal(first, photos.images(best.image_size, fit)):
            add(best, fit, promising)
    return sorted(compared, key=loss)


def _tuned(
    photos: Photos,
    backbone: Backbone,
    fit: str,
    settings: Supervised,
    seed: int,
    notify: Notify,
    clock: Clock | None = None,
) -> Compared | None:
    """Fine-tuning, compared like the others; None where the time does not allow it."""
    began = time.monotonic()
    images = photos.images(backbone.image_size, fit)
    material = tuning.material(
        backbone, images, features_of(photos, backbone, fit), photos.labels, seed
    )
    many = len(photos.labels) >= folds.IMAGES_OF_REPEATS
    drawn = folds.draw(photos.labels, photos.groups, seed, 3 if many else folds.MOST_FOLDS)[:1]
    count = int(drawn.max()) + 1
    passes = settings.epochs * count  # each image is in all folds but one, and in the last run
    each = material.seconds_an_image(settings) * passes + 2 * backbones.seconds_an_image(backbone)
    if clock and each * len(photos.labels) > clock.left:
        notify(f"no time for fine-tuning of {backbone.name}, {fit}", 0, 1)
        return None
    learn = _told(material.learner(settings), notify, count)
    found = said(learn, photos.labels, drawn)
    candidate = Candidate(backbone.name, backbone.weights, backbone.image_size, fit, settings)
    network = material.tuned(settings, np.arange(len(photos.labels)))
    logits = material.logits(network)
    train = loss_and_accuracy(softmax(logits, axis=1), photos.labels)
    return Compared(candidate, found, None, train, drawn, time.monotonic() - began, network)


def _told(learn: folds.Learner, notify: Notify, count: int) -> folds.Learner:
    """A learner that tells how many folds are done."""
    done = itertools.count(1)

    def told(training: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        made = learn(training, held_out)
        notify("fine-tuning, folds", next(done), count)
        return made

    return told


def features_of(photos: Photos, backbone: Backbone, fit: str, notify: Notify = quiet) -> np.ndarray:
    """The features (n, channels) of the training images, kept on disk."""
    images = photos.images(backbone.image_size, fit)
    what, network = f"features of {backbone.name}, {fit}", backbones.network(backbone)
    return backbones.features(network, images, lambda done: notify(what, done, len(images)))


def _compared(
    photos: Photos,
    backbone: Backbone,
    fit: str,
    features: np.ndarray,
    methods: Sequence[Method],
    seed: int,
    notify: Notify,
) -> Iterator[Compared]:
    drawn = folds.draw(photos.labels, photos.groups, seed)
    for number, settings in enumerate(methods, start=1):
        began = time.perf_counter()
        learn = learners.on_features(settings, features, photos.labels)
        found = said(learn, photos.labels, drawn)
        candidate = Candidate(backbone.name, backbone.weights, backbone.image_size, fit, settings)
        head = learners.fitter(settings)(features, photos.labels)
        train = loss_and_accuracy(softmax(head.logits(features), axis=1), photos.labels)
        seconds = time.perf_counter() - began
        yield Compared(candidate, found, head, train, drawn, seconds)
        notify(f"candidates on {backbone.name}, {fit}", number, len(methods))


def said(learn: folds.Learner, labels: np.ndarray, drawn: np.ndarray) -> OutOfFold:
    """What a learner says of each image from the folds that do not hold it."""
    classes = int(labels.max()) + 1
    logits = np.empty((len(drawn), len(labels), classes))
    for repeat, held_out, given in folds.out_of_fold(learn, labels, drawn, classes):
        logits[repeat, held_out] = given
    return figures.out_of_fold(labels, logits)
