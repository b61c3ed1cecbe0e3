"""What takes turns in a bench: `python -m keras_cnn.bench.contenders NAME THREADS` is one of them.

Each prepares itself, then does one turn for each line on standard input and writes how many images
it got through in how many seconds.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from keras_cnn import environment
from keras_cnn.data import Split
from keras_cnn.torch_fast import memory

if TYPE_CHECKING:
    import torch

Turn = Callable[[], int]  # does something once, returns through how many images

BATCH_SIZE = 64
HIDDEN_UNITS = {"baseline": 32, "enhanced": 64}
DROPOUT = {"baseline": 0.25, "enhanced": 0.5}
STEPS = {"baseline": 30, "enhanced": 8}  # a turn of a few seconds on a core
if environment.has_gpu():
    STEPS = {"baseline": 100, "enhanced": 50}
REPEATS = 5


def _images(count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (count, 32, 32, 3), np.uint8), draw.integers(0, 10, count)


# --- training ----------------------------------------------------------------------------------


def torch_loop(network: str, channels_last: bool) -> Turn:
    """The loop one would write by hand, at its best: float images in memory, a fused optimizer."""
    import torch
    from torch import nn

    from keras_cnn.training.feed import on_device

    images, labels = _images(BATCH_SIZE * STEPS[network])
    inputs, targets = on_device(images), on_device(labels)  # where Keras puts them
    model = _torch_network(network).to(inputs.device)
    inputs = inputs.permute(0, 3, 1, 2).float().div_(255).contiguous()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    model.train()

    def turn() -> int:
        total = torch.zeros((), device=targets.device)
        for chosen in torch.randperm(len(targets), device=targets.device).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen])
            loss.backward()
            optimizer.step()
            total += loss.detach()  # a number would have to be waited for
        total.item()
        return len(targets)

    return turn


def keras_loop(network: str, ours: bool) -> Turn:
    """`fit` as it comes, or ours."""
    import keras

    from keras_cnn import models, torch_fast
    from keras_cnn.training import feed, optimizers

    model = models.classifier(
        network, 10, dropout=DROPOUT[network], hidden_units=HIDDEN_UNITS[network]
    )
    model = torch_fast.fast(model) if ours else model
    model.compile(
        optimizer=optimizers.build("adam", 1e-3) if ours else keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images, labels = _images(BATCH_SIZE * STEPS[network])
    batches = feed.shuffled(Split(images, labels), BATCH_SIZE, seed=0)

    def turn() -> int:
        if ours:
            model.fit(batches, shuffle=False, verbose=0, callbacks=[feed.BeginEpoch(batches)])
        else:
            model.fit(images, labels, batch_size=BATCH_SIZE, verbose=0)
        return len(labels)

    return turn


def _torch_network(network: str) -> object:
    from torch import nn

    width, parts, channels = HIDDEN_UNITS[network], [], 3
    for growth in (1, 1) if network == "baseline" else (1, 2, 4):
        for _ in range(2):
            parts += [nn.Conv2d(channels, growth * width, 3, padding="same"), nn.ReLU()]
            channels = growth * width
            if network == "enhanced":
                parts.append(nn.BatchNorm2d(channels))
        parts.append(nn.MaxPool2d(2))
    if network == "enhanced":
        parts.append(nn.AdaptiveAvgPool2d(1))
    features = channels if network == "enhanced" else channels * 8 * 8
    head = [nn.Flatten(), nn.Dropout(DROPOUT[network]), nn.Linear(features, 10)]
    return nn.Sequential(*parts, *head)


# --- feeding -----------------------------------------------------------------------------------


def feed() -> Turn:
    """Our feed, shuffled anew each turn."""
    return _fed(lambda images: images)


def feed_as_floats() -> Turn:
    """The same with what the training step does first: the images become floats."""
    return _fed(lambda images: images.float())


def _fed(use: Callable[[torch.Tensor], torch.Tensor]) -> Turn:
    from keras_cnn.training.feed import shuffled

    images, labels = _images(50_000)
    batches = shuffled(Split(images, labels), BATCH_SIZE, seed=0)
    epochs = itertools.count()

    def turn() -> int:
        batches.begin_epoch(next(epochs))
        for index in range(len(batches)):
            use(batches[index][0])
        return len(labels)

    return turn


def sliced_tensor() -> Turn:
    """One float tensor sliced by a permutation."""
    import torch

    from keras_cnn.training.feed import on_device

    images, labels = _images(50_000)
    inputs, targets = on_device(images).float(), on_device(labels)

    def turn() -> int:
        order = torch.randperm(len(targets), device=targets.device)
        for start in range(0, len(targets), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            inputs[chosen], targets[chosen]
        return len(targets)

    return turn


def png_loader() -> Turn:
    """The DataLoader of torch over PNG files, 2 workers that stay."""
    from keras_cnn.methods.settings import Feeding
    from keras_cnn.training import loader

    images, labels = _images(5_000)
    folder = Path(tempfile.mkdtemp(prefix="keras_cnn-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    files = loader.ImageFiles.written(Split(images, labels), folder / "png")
    workers = Feeding(feed="files", workers=2, persistent_workers=True)
    batches = loader.batches(files, BATCH_SIZE, workers, seed=0)
    return lambda: sum(len(labels) for _, labels in batches)


# --- few-shot ----------------------------------------------------------------------------------


def fewshot(kept: bool, evaluates: bool) -> Turn:
    """A ConvNeXt-Atto whose last two stages train, on kept features or on images."""
    from keras_cnn.training.feed import BeginEpoch

    model, batches, test = fewshot_model(kept)

    def turn() -> int:
        if evaluates:
            model.evaluate(test, verbose=0)
        else:
            model.fit(batches, shuffle=False, verbose=0, callbacks=[BeginEpoch(batches)])
        return 1_000

    return turn


def fewshot_keras_fit() -> Turn:
    """The same by Keras's `fit` as it comes, on images."""
    import keras

    model, _, _ = fewshot_model(kept=False)
    model = keras.Model(model.input, model.output)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images, labels = _images(1_000)

    def turn() -> int:
        model.fit(images, labels, batch_size=16, verbose=0)
        return len(labels)

    return turn


def fewshot_model(kept: bool) -> tuple:
    """The compiled model, its training batches of 16 and its test batches of 256.

    Args:
        kept: Feed what the frozen stages give, instead of images through the whole model.
    """
    import keras

    from keras_cnn import models, torch_fast
    from keras_cnn.models.freeze import constant_part
    from keras_cnn.training import feed, optimizers

    images, labels = _images(1_000)
    graph = models.classifier("convnext_atto", 10, unfrozen_stages=2)
    for layer in graph.layers:  # at their initial 1e-6 the blocks add next to nothing
        if isinstance(layer, keras.layers.EinsumDense):
            layer.kernel.assign(keras.ops.full_like(layer.kernel, 0.3))
    if kept:
        constant, features = constant_part(graph)
        images = constant.predict(images, batch_size=256, verbose=0)
        graph = keras.Model(features, graph.output)
    model = torch_fast.fast(graph)
    model.compile(
        optimizer=optimizers.build("adam", 1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    split = Split(images, labels)
    return model, feed.shuffled(split, 16, seed=0), feed.in_order(split, 256)


# --- repeats -----------------------------------------------------------------------------------


def repeats(parallel: int, threads: int) -> Turn:
    """Five repeats of a small recipe, from nothing to their folders."""

    def turn() -> int:
        with tempfile.TemporaryDirectory(prefix="keras_cnn-") as out:
            run_repeats(parallel, threads, Path(out))
        return REPEATS * 3 * 2000

    return turn


def run_repeats(parallel: int, threads: int, out: Path) -> list[Path]:
    """Runs the five repeats; returns their folders.

    Args:
        parallel: How many at a time.
        threads: Threads of each.
        out: Where the folders go.
    """
    from keras_cnn import recipe
    from keras_cnn.recipe import resolve
    from keras_cnn.results import identity
    from keras_cnn.runs import engine

    plan = recipe.read("reliability")
    settings = {"data": "synthetic:2000", "epochs": 3}
    runs = resolve.runs(plan, "mini", repeats=REPEATS, overrides=settings)
    jobs = [engine.Job(run, identity.run_folder(run, out)) for run in runs]
    failed = engine.execute(jobs, parallel, threads, lambda event: None)
    if failed:
        raise RuntimeError(failed[0].error)
    return [job.folder for job in jobs]


CONTENDERS: dict[str, Callable[[], Turn]] = {
    **{
        f"{network} {name}": partial(function, network, flag)
        for network in STEPS
        for name, function, flag in (
            ("ours", keras_loop, True),
            ("keras fit", keras_loop, False),
            ("torch", torch_loop, False),
            ("torch channels-last", torch_loop, True),
        )
    },
    "feed": feed,
    "feed as floats": feed_as_floats,
    "sliced tensor": sliced_tensor,
    "png loader": png_loader,
    "kept training": partial(fewshot, kept=True, evaluates=False),
    "whole training": partial(fewshot, kept=False, evaluates=False),
    "few-shot keras fit": fewshot_keras_fit,
    "kept evaluation": partial(fewshot, kept=True, evaluates=True),
    "whole evaluation": partial(fewshot, kept=False, evaluates=True),
    "repeats together": partial(repeats, parallel=2, threads=1),
    "repeats in sequence": partial(repeats, parallel=1, threads=2),
}


def report_stream() -> IO[str]:
    """Standard output for reports alone: what libraries print goes to standard error from here."""
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return reports


def _as_it_is() -> None:
    """Nothing is under way when a turn ends."""


def main(name: str, threads: int) -> None:
    """Prepares a contender, then does its turns until standard input ends."""
    reports = report_stream()
    memory.keep_freed_memory()  # for all alike
    prepare = CONTENDERS[name]
    turn = prepare()
    finish = _as_it_is
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
        if torch.cuda.is_available():
            finish = torch.cuda.synchronize
    for _ in sys.stdin:
        began = time.perf_counter()
        images = turn()
        finish()  # what a GPU was given to do
        print(json.dumps({"images": images, "seconds": time.perf_counter() - began}), file=reports)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
