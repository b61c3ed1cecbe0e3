"""One run: what decides its result, and where it stands in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field, SerializeAsAny, model_validator

from keras_cnn import environment
from keras_cnn.deck.settings import METHODS as DECK_METHODS
from keras_cnn.errors import UserError, nearest
from keras_cnn.methods.settings import (
    DEFAULT_SEED,
    METHODS,
    Backend,
    Group,
    Images,
    Method,
    Network,
)

KNOWN_METHODS: dict[str, type[Method]] = {
    settings.name(): settings for settings in (*METHODS, *DECK_METHODS)
}
# What decides of what folds say, beside the method.
OF_FOLDS = ("keras_cnn.teach.folds", "keras_cnn.teach.figures")
SEEDS = ("seed", "shots_seed")  # in which the repeats of a row differ
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def method_settings(name: str) -> type[Method]:
    """The class of a method's settings.

    Args:
        name: A method's name, or `module.function` of one's own, made with `methods.method`.

    Raises:
        UserError: There is no such method.
    """
    if name in KNOWN_METHODS:
        return KNOWN_METHODS[name]
    module, _, function = name.rpartition(".")
    if not module or module.startswith("."):
        raise UserError(f"no method {name!r}: {nearest(name, KNOWN_METHODS)}")
    try:
        return getattr(environment.own_module(module), function).settings
    except (UserError, AttributeError) as error:
        raise UserError(
            f"no method {name!r}: {error}; it must be a function made with methods.method, in a "
            "module that can be imported"
        ) from error


class Spec(Group):
    """What decides a result; nothing else of a run is seen by a method or is in its identity.

    Attributes:
        method: The method's name.
        images: Which images.
        network: Which network it begins with.
        training: The method's settings.
        seed: Seeds new weights, the order of the images and all else that is drawn in training.
        shots_seed: Seeds the draw of the shots.
        backend: The Keras backend.
        threads: Processor threads it computes with: sums are split among them, and rounded so.
        plain: On torch, trained by Keras's own step in place of `torch_fast`'s.
        folds: What it says of the training images is of this many folds, each by a model that has
            not seen it: its test images are the training images. None: it is tested on test images.
    """

    method: str
    images: SerializeAsAny[Images]
    network: SerializeAsAny[Network]
    training: SerializeAsAny[Method]
    seed: Seed = DEFAULT_SEED
    shots_seed: Seed = DEFAULT_SEED
    backend: Backend = "torch"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    plain: bool = False
    folds: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _typed_by_method(cls, values: Mapping[str, object]) -> dict[str, object]:
        """Plain data, as read from a file, in the classes its method asks for."""
        settings = method_settings(str(values.get("method")))
        classes = {"images": settings.images, "network": settings.network, "training": settings}
        return {
            name: classes[name].model_validate(value)
            if name in classes and isinstance(value, Mapping)
            else value
            for name, value in values.items()
        }

    @property
    def settings(self) -> dict[str, object]:
        """All settings by name, whatever their class."""
        return flat_settings(self.model_dump())

    def code(self) -> Iterator[str]:
        """The modules whose behaviour decides the result, by dotted name."""
        for group in (self.images, self.network, self.training):
            yield from group.code()
        if self.folds is not None:
            yield from OF_FOLDS
            if self.method == "supervised":
                yield "keras_cnn.teach.tuning"


class Place(Group):
    """Where a run stands in a table; nothing of it decides what the run gives.

    Attributes:
        recipe: The recipe's name.
        row: The row's name.
        variant: The variant's name.
        repeat: Counted from 0.
        profile: The profile's name.
        comparable: Whether the settings are those behind the deck's own number (the variant
            apart), so that the two may stand side by side.
    """

    recipe: str
    row: str
    variant: str
    repeat: Annotated[int, Field(ge=0)]
    profile: str
    comparable: bool


class Run(Group):
    """One row, one variant, one repeat of a recipe.

    Attributes:
        spec: What decides its result.
        place: Where it stands.
    """

    spec: Spec
    place: Place

    def with_spec(self, **changes: object) -> Run:
        """The run with some fields of its spec changed, as `threads`."""
        return self.model_copy(update={"spec": self.spec.model_copy(update=changes)})


def flat_settings(spec: Mapping[str, object]) -> dict[str, object]:
    """All settings of a spec, given as plain data, by name; how it computes is none."""
    groups = ("images", "network", "training")
    others = (*groups, "threads", "plain", "folds")
    flat = {name: value for name, value in spec.items() if name not in others}
    return flat | {name: value for group in groups for name, value in spec[group].items()}
