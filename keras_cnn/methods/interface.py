"""How a method is called and what it gives back: the same for each of them, here once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import ValidationError

from keras_cnn import environment
from keras_cnn.data import Split
from keras_cnn.data.fit import Fit, check
from keras_cnn.errors import UserError, nearest
from keras_cnn.methods.settings import DEFAULT_SEED, LargeImages, Method
from keras_cnn.statistics import diverged_at
from keras_cnn.timing import timed

if TYPE_CHECKING:
    import keras

ARGUMENTS = """\
Args:
    network: Functional, raw images (n, h, w, 3), 0 to 255, to logits (n, classes), as
        `models.classifier` makes it. What of it is trainable trains, in place.
    train: A `data.Split`, or images uint8 (n, h, w, 3) and labels (n,) from 0 on, to learn from.
    test: The same, to evaluate on.
    seed: Seeds all that is drawn.
    report: Called with each epoch's record, as `print`; None keeps quiet.
    **settings: The keywords below."""

Report = Callable[[dict[str, float]], None]  # is given an epoch's record
Labelled = Split | tuple[np.ndarray, np.ndarray]


class Learned(NamedTuple):
    """What a method's own code gives back.

    Attributes:
        history: One record an epoch, keys as in `training.history.record`.
        network: Raw images (n, h, w, 3), 0 to 255, to logits (n, classes).
        measures: What the method measures besides, by the names of `recipe.measures.MEASURES`.
        probabilities: Of the test images (n, classes), where the method has computed them.
    """

    history: list[dict[str, float]]
    network: keras.Model
    measures: dict[str, float]
    probabilities: np.ndarray | None = None


@dataclass(frozen=True, repr=False)
class Trained:
    """What a method has made of a network.

    Attributes:
        model: Raw images (n, h, w, 3), 0 to 255, to probabilities (n, classes); of Keras's own
            layers, so that the file that `save` writes needs Keras alone.
        history: One record an epoch: `epoch`, `learning_rate`, `train_loss`, `train_accuracy`,
            `test_loss`, `test_accuracy` (accuracies in [0, 1]) and `seconds`.
        measures: `test_accuracy_over_images`, the share of test images that `model` classifies
            right, and what the method measures besides; where the losses, the model's weights or
            its probabilities are not finite, `diverged_at_epoch`, and no such share (nan).
        probabilities: Of the test images, (n, classes) float32; rows sum to 1.
    """

    model: keras.Model
    history: list[dict[str, float]]
    measures: dict[str, float] = field(default_factory=dict)
    probabilities: np.ndarray | None = None

    def __repr__(self) -> str:
        epoch = self.measures.get("diverged_at_epoch")
        accuracy = self.measures["test_accuracy_over_images"]
        end = f"diverged at epoch {epoch}" if epoch else f"{accuracy:.1%} of the test images"
        return f"Trained({len(self.history)} epochs, {end})"

    def save(self, path: str | Path, class_names: Sequence[str] = (), fit: Fit = "crop") -> None:
        """Writes the model with a card that `predict` and `evaluate` read.

        Args:
            path: Ends in `.keras`.
            class_names: In the order of the labels.
            fit: How the images were brought to a square, as for `keras_cnn.data.load`; `predict`
                and `evaluate` do likewise.

        Raises:
            UserError: It is no fit, or the file cannot be written.
        """
        from keras_cnn.models import saved

        check(fit)
        card = {"class_names": list(class_names), "image_size": self.model.input.shape[1]}
        card["fit"] = fit
        saved.save(self.model, path, card)


def method(settings: type[Method]) -> Callable[[Callable[..., Learned]], Callable[..., Trained]]:
    """Makes a method of a function: decorates it so that it can be called on arrays.

    The function takes `(network, train, test, settings, seed, report)` and gives a `Learned`. What
    users call takes the fields of `settings` as keywords, checked, in place of the object; `help`
    of it tells them and the arguments that all methods have:

        train(network, train, test, *, seed=213, report=None, **fields of settings) -> Trained

    Args:
        settings: The class of its settings, whose fields are its keywords.

    Returns:
        The decorator. The method has its class as `.settings`.
    """

    def decorate(learn: Callable[..., Learned]) -> Callable[..., Trained]:
        parameters = inspect.signature(learn).parameters.values()
        extra = [each for each in parameters if each.kind is each.KEYWORD_ONLY]

        @functools.wraps(learn)
        def train(
            network: keras.Model,
            train: Labelled,
            test: Labelled,
            *,
            seed: int = DEFAULT_SEED,
            report: Report | None = None,
            **given: object,
        ) -> Trained:
            also = {each.name: given.pop(each.name) for each in extra if each.name in given}
            chosen = _checked(settings, given)
            environment.check_keras()
            network = _functional(network)
            any_size = settings.images is LargeImages  # they are cropped to the network's
            train = _split(train, network, "train", any_size)
            test = _split(test, network, "test")
            chosen.check_images(train, test)
            report = report or (lambda record: None)
            with timed("training"):
                learned = learn(network, train, test, chosen, seed, report, **also)
            with timed("evaluation"):
                return _trained(learned, test)

        train.settings = settings
        train.__signature__ = _signature(settings, extra)
        train.__doc__ = "\n\n".join([inspect.getdoc(learn) or "", ARGUMENTS, _keywords(settings)])
        return train

    return decorate


def _trained(learned: Learned, test: Split) -> Trained:
    """The model to keep, and what it makes of the test images."""
    from keras_cnn.models import saved
    from keras_cnn.training import frozen

    classifier = saved.classifier(learned.network)
    probabilities = learned.probabilities
    if probabilities is None:
        probabilities = frozen.outputs(classifier, test.images)
    hits = probabilities.argmax(axis=1) == test.labels
    made = {"test_accuracy_over_images": float(hits.mean()), **learned.measures}
    epoch = diverged_at(learned.history)
    ends = probabilities, *classifier.get_weights()
    if epoch is None and not all(np.isfinite(array).all() for array in ends):
        epoch = int(learned.history[-1]["epoch"])
    if epoch is not None:
        made |= {"diverged_at_epoch": epoch, "test_accuracy_over_images": np.nan}
    return Trained(classifier, learned.history, made, probabilities)


def _functional(network: keras.Model) -> keras.Model:
    """A network as a functional model, which a built `keras.Sequential` is inside."""
    import keras

    ends = [getattr(network, name, None) or () for name in ("inputs", "outputs")]
    if [len(tensors) for tensors in ends] != [1, 1]:
        raise UserError(
            f"network is a {type(network).__name__}: a functional keras.Model with one input and "
            "one output is needed, or a keras.Sequential that begins with keras.Input"
        )
    (images,), (logits,) = ends
    if isinstance(network, keras.Sequential):
        return keras.Model(images, logits, name=network.name)
    return network


def _checked(settings: type[Method], given: dict[str, object]) -> Method:
    for name in given:
        if name not in settings.model_fields:
            raise UserError(
                f"{settings.name()} has no {name!r}: {nearest(name, settings.model_fields)}"
            )
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else settings.name()
        told = f"{name} is {given[name]!r}" if name in given else name
        raise UserError(f"{told}: {first['msg'].lower()}") from None


def _split(labelled: Labelled, network: keras.Model, which: str, any_size: bool = False) -> Split:
    """Images and labels as the methods take them; refuses other shapes, types and ranges."""
    class_count = network.output.shape[-1]
    given = labelled if isinstance(labelled, Split) else Split(*labelled)
    images, labels = np.asanyarray(given.images), np.asarray(given.labels)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise UserError(
            f"{which} images are {images.dtype} {images.shape}: uint8 (n, height, width, 3), "
            "values 0 to 255, are needed"
        )
    size = tuple(network.input.shape[1:3])
    if images.shape[1:3] != size and not any_size:
        raise UserError(
            f"{which} images are {images.shape[1:3]} pixels and the network takes {size}: "
            "models.classifier(..., image_size=...) makes one for them"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{which} labels are {labels.dtype} {labels.shape}: one whole number for each of "
            f"{len(images)} images is needed"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= class_count:
        found = f"from {labels.min()} to {labels.max()}" if len(labels) else "of no image"
        raise UserError(f"{which} labels are {found}: the network has {class_count} outputs")
    names = given.class_names or tuple(map(str, range(class_count)))
    if len(names) != class_count:
        raise UserError(
            f"{which} images are of {len(names)} classes: the network has {class_count} outputs"
        )
    return Split(images, labels.astype(np.int64, copy=False), names)


def _signature(settings: type[Method], extra: Sequence[inspect.Parameter]) -> inspect.Signature:
    """What `help` shows: the settings as keywords with their defaults."""
    kind = inspect.Parameter
    keywords = {
        name: kind.empty if field.is_required() else field.get_default()
        for name, field in settings.model_fields.items()
    }
    keywords |= {each.name: each.default for each in extra}
    keywords |= {"seed": DEFAULT_SEED, "report": None}
    return inspect.Signature(
        [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in ("network", "train", "test")]
        + [kind(name, kind.KEYWORD_ONLY, default=value) for name, value in keywords.items()]
    )


def _keywords(settings: type[Method]) -> str:
    """The settings' descriptions, those of the classes they are inherited from first."""
    parts = ["Settings:"]
    for group in reversed(settings.__mro__):
        own = settings.model_fields.keys() & vars(group).get("__annotations__", {})
        if own and group.__doc__:
            parts.append(inspect.getdoc(group).partition("Attributes:\n")[2].rstrip())
    return "\n".join(filter(None, parts))
