"""What can be found out before any run: mistakes are told at once, and alone."""

from __future__ import annotations

from collections.abc import Sequence

from keras_cnn.errors import UserError
from keras_cnn.methods.settings import Method
from keras_cnn.pretrained.named import NAMED_WEIGHTS
from keras_cnn.recipe.spec import Run
from keras_cnn.runs import engine, images


def check(runs: Sequence[Run]) -> None:
    """Draws the images and fits the weights files of every run once.

    Raises:
        UserError: The data or the weights cannot be used, or a class has too few images.
    """
    check_images(runs)
    given = {
        (*run.spec.network.model_dump().values(), run.spec.images.image_size): run.spec
        for run in runs
        if run.spec.network.weights not in NAMED_WEIGHTS  # whose files are known to fit
    }
    for spec in given.values():
        engine.check_weights(spec)


def check_images(runs: Sequence[Run]) -> None:
    """Draws the images of every run once, without a framework, and shows them to its method.

    Raises:
        UserError: The data cannot be used, or a class has too few images.
    """
    by_images: dict[tuple, dict[Method, Run]] = {}
    for run in runs:
        drawn = (run.spec.images, run.spec.shots_seed)
        by_images.setdefault(drawn, {})[run.spec.training] = run
    for by_settings in by_images.values():
        train, test = images.sample(next(iter(by_settings.values())).spec)
        for settings, run in by_settings.items():
            try:
                settings.check_images(train, test)
            except UserError as error:
                raise UserError(f"row {run.place.row}: {error}") from None


def count_shared(runs: Sequence[Run]) -> int:
    """The most test images of any run's data that have the pixels of its training images."""
    sources = {(run.spec.images.data, run.spec.images.image_size): run.spec for run in runs}
    return max(map(images.count_shared, sources.values()), default=0)
