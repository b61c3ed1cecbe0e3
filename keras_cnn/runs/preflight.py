"""What can be found out before any run: mistakes are told at once, and alone."""

from __future__ import annotations

from collections.abc import Sequence

from keras_cnn.errors import UserError
from keras_cnn.pretrained.named import NAMED_WEIGHTS
from keras_cnn.recipe.spec import Run, Spec
from keras_cnn.runs import images
from keras_cnn.runs.child import Child


def check(runs: Sequence[Run]) -> dict[str, str]:
    """Draws the images and fits the weights files of every run once.

    Returns:
        As `check_images`.

    Raises:
        UserError: The data or the weights cannot be used.
    """
    left_out = check_images(runs)
    given = {
        (*run.spec.network.model_dump().values(), run.spec.images.image_size): run.spec
        for run in runs
        if run.spec.network.weights not in NAMED_WEIGHTS  # whose files are known to fit
    }
    for spec in given.values():
        check_weights(spec)
    return left_out


def check_weights(spec: Spec) -> None:
    """Fits the weights a run starts from to its network, in a process of its own.

    Raises:
        UserError: They cannot be used.
    """
    child = Child({"weights_of": spec.model_dump()}, spec)
    try:
        errors = [record["error"] for record in child.records() if "error" in record]
        code, death, _ = child.end()
    except BaseException:  # an interrupt, too, leaves no process
        child.kill()
        raise
    if code:
        raise UserError(errors[0] if errors else f"{spec.network.weights}: {death}")


def check_images(runs: Sequence[Run]) -> dict[str, str]:
    """Draws the images of every run once, without a framework, and shows them to its method.

    Returns:
        Why a method cannot learn from its images, by row and variant.

    Raises:
        UserError: The data cannot be used, or a class has too few images.
    """
    by_images: dict[tuple, list[Run]] = {}
    for run in runs:
        by_images.setdefault((run.spec.images, run.spec.shots_seed), []).append(run)
    left_out: dict[str, str] = {}
    for some in by_images.values():
        train, test = images.sample(some[0].spec)
        for run in some:
            if row_and_variant(run) not in left_out:
                try:
                    run.spec.training.check_images(train, test)
                except UserError as error:
                    left_out[row_and_variant(run)] = str(error)
    return left_out


def refuse(left_out: dict[str, str]) -> None:
    """Refuses a plan of which no run is left.

    Raises:
        UserError: The first reason why.
    """
    row, why = next(iter(left_out.items()))
    raise UserError(f"row {row}: {why}")


def row_and_variant(run: Run) -> str:
    """What a line on a row calls it."""
    return f"{run.place.row} {run.place.variant}"


def taken_whole(runs: Sequence[Run]) -> dict[str, int]:
    """Classes of which some run has all images because they are few, and how many."""
    asked = {
        (one.data, one.image_size, one.fit, one.shots): run.spec
        for run in runs
        for one in (run.spec.images,)
    }
    return {name: n for spec in asked.values() for name, n in images.taken_whole(spec).items()}


def count_shared(runs: Sequence[Run]) -> int:
    """The most test images of any run's data that have the pixels of its training images."""
    asked = ((run.spec.images, run.spec) for run in runs)
    sources = {(one.data, one.image_size, one.fit): spec for one, spec in asked}
    return max(map(images.count_shared, sources.values()), default=0)
