"""What can be found out before any run: mistakes are told at once, and alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from keras_cnn import environment
from keras_cnn.errors import UserError
from keras_cnn.pretrained.named import NAMED_WEIGHTS
from keras_cnn.recipe.spec import Run, Spec
from keras_cnn.runs import images


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
    if given:
        # In a process of its own: this one goes on without a framework.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            for spec in given.values():
                pool.submit(_fit_weights, spec).result()


def check_images(runs: Sequence[Run]) -> None:
    """Draws the images of every run once, without a framework.

    Raises:
        UserError: The data cannot be used, or a class has too few images.
    """
    for spec in {(run.spec.images, run.spec.shots_seed): run.spec for run in runs}.values():
        images.sample(spec)


def unavailable(backend: str) -> str:
    """Why a backend cannot be used here and what to do; empty where it can."""
    try:
        environment.require(backend)
    except UserError as error:
        return str(error)
    return ""


def _fit_weights(spec: Spec) -> None:
    from keras_cnn import models, pretrained

    network, size = spec.network, spec.images.image_size
    graph = models.backbone(network.model, size, hidden_units=network.hidden_units)
    pretrained.load(graph, network.weights)
