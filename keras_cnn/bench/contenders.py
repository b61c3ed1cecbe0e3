"""What takes turns in a bench: `python -m keras_cnn.bench.contenders NAME THREADS` is one of them.

Each prepares itself, then does one turn for each line on standard input and writes how many images
it got through in how many seconds.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import environment, files
from keras_cnn.bench import episodes, finetuning, neighbours, serving
from keras_cnn.data import Split
from keras_cnn.torch_fast import memory, waiting

if TYPE_CHECKING:
    import keras
    import torch

Turn = Callable[[], int]  # does something once, returns through how many images

BATCH_SIZE = 64
HIDDEN_UNITS = {"baseline": 32, "enhanced": 64}
DROPOUT = {"baseline": 0.25, "enhanced": 0.5}
STEPS = {"baseline": 30, "enhanced": 8}  # a turn of a few seconds on a core
if environment.has_gpu():
    STEPS = {"baseline": 100, "enhanced": 50}
REPEATS = 5


def _images(count: int) -> Split:
    draw = np.random.default_rng(0)
    return Split(draw.integers(0, 256, (count, 32, 32, 3), np.uint8), draw.integers(0, 10, count))


# --- training ----------------------------------------------------------------------------------


def torch_loop(network: str, channels_last: bool) -> Turn:
    """The loop one would write by hand, at its best: float images in memory, a fused optimizer."""
    import torch
    from torch import nn

    from keras_cnn.training.feed import on_device

    shown = _images(BATCH_SIZE * STEPS[network])
    inputs, targets = on_device(shown.images), on_device(shown.labels)  # where Keras puts them
    layout = torch.channels_last if channels_last else torch.contiguous_format
    inputs = inputs.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=layout)
    model = _torch_network(network).to(inputs.device, memory_format=layout)
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


def _torch_network(network: str) -> torch.nn.Module:
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


def our_fit(network: str) -> Turn:
    """Our way of training."""
    return _our_turn(_compiled(_keras_network(network), 1e-3), _images_of(network), BATCH_SIZE)


def keras_fit(network: str) -> Turn:
    """`fit` as it comes."""
    return _keras_turn(_keras_network(network), 1e-3, _images_of(network), BATCH_SIZE)


def _images_of(network: str) -> Split:
    return _images(BATCH_SIZE * STEPS[network])


def _keras_network(network: str) -> keras.Model:
    from keras_cnn import models

    return models.classifier(
        network, 10, dropout=DROPOUT[network], hidden_units=HIDDEN_UNITS[network]
    )


def _compiled(model: keras.Model, learning_rate: float) -> keras.Model:
    import keras

    from keras_cnn import torch_fast
    from keras_cnn.training import optimizers

    model = torch_fast.fast(model)
    model.compile(
        optimizer=optimizers.build("adam", learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _our_turn(model: keras.Model, split: Split, batch_size: int) -> Turn:
    from keras_cnn.training import feed

    batches = feed.shuffled(split, batch_size, seed=0)

    def turn() -> int:
        model.fit(batches, shuffle=False, verbose=0, callbacks=[feed.BeginEpoch(batches)])
        return len(split.labels)

    return turn


def _keras_turn(model: keras.Model, learning_rate: float, split: Split, batch_size: int) -> Turn:
    import keras

    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def turn() -> int:
        model.fit(split.images, split.labels, batch_size=batch_size, verbose=0)
        return len(split.labels)

    return turn


# --- feeding -----------------------------------------------------------------------------------


def feed(as_floats: bool) -> Turn:
    """Our feed, shuffled anew each turn; as floats with what the training step does first."""
    from keras_cnn.training.feed import shuffled

    batches = shuffled(_images(50_000), BATCH_SIZE, seed=0)
    epochs = itertools.count()

    def turn() -> int:
        batches.begin_epoch(next(epochs))
        for index in range(len(batches)):
            images, _ = batches[index]
            if as_floats:
                images.float()
        return 50_000

    return turn


def sliced_tensor() -> Turn:
    """One float tensor sliced by a permutation."""
    import torch

    from keras_cnn.training.feed import on_device

    shown = _images(50_000)
    inputs, targets = on_device(shown.images).float(), on_device(shown.labels)

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

    folder = files.temporary_folder()
    atexit.register(folder.cleanup)
    images = loader.ImageFiles.written(_images(5_000), Path(folder.name) / "png")
    workers = Feeding(feed="files", workers=2, persistent_workers=True)
    batches = loader.batches(images, BATCH_SIZE, workers, seed=0)
    return lambda: sum(len(labels) for _, labels in batches)


# --- few-shot ----------------------------------------------------------------------------------


def fewshot_training(kept: bool) -> Turn:
    """A ConvNeXt-Atto whose last two stages train, on kept features or on images."""
    model, split = _fewshot(kept)
    return _our_turn(_compiled(model, 1e-4), split, 16)


def fewshot_evaluation(kept: bool) -> Turn:
    """The same, evaluated."""
    from keras_cnn.training import feed

    model, split = _fewshot(kept)
    model, batches = _compiled(model, 1e-4), feed.in_order(split, 256)

    def turn() -> int:
        model.evaluate(batches, verbose=0)
        return len(split.labels)

    return turn


def fewshot_keras_fit() -> Turn:
    """The same by Keras's `fit` as it comes, on images."""
    model, split = _fewshot(kept=False)
    return _keras_turn(model, 1e-4, split, 16)


def _fewshot(kept: bool) -> tuple[keras.Model, Split]:
    """The model and what it is fed: where `kept`, what the frozen stages give for the images."""
    import keras

    from keras_cnn import models
    from keras_cnn.models.freeze import constant_part

    split = _images(1_000)
    graph = models.classifier("convnext_atto", 10, unfrozen_stages=2)
    for layer in graph.layers:  # at their initial 1e-6 the blocks add next to nothing
        if isinstance(layer, keras.layers.EinsumDense):
            layer.kernel.assign(keras.ops.full_like(layer.kernel, 0.3))
    if not kept:
        return graph, split
    constant, features = constant_part(graph)
    inputs = constant.predict(split.images, batch_size=256, verbose=0)
    return keras.Model(features, graph.output), Split(inputs, split.labels)


# --- repeats -----------------------------------------------------------------------------------


def repeats(parallel: int, threads: int) -> Turn:
    """Five repeats of a small recipe, from nothing to their folders."""
    from keras_cnn import recipe
    from keras_cnn.recipe import resolve
    from keras_cnn.results import identity
    from keras_cnn.runs import engine
    from keras_cnn.runs.executors.local import Local
    from keras_cnn.runs.jobs import Job

    settings = {"data": "synthetic:2000", "epochs": 3}
    runs = resolve.runs(recipe.read("reliability"), "mini", repeats=REPEATS, overrides=settings)
    runs = [run.with_spec(threads=threads) for run in runs]

    def turn() -> int:
        with files.temporary_folder() as out:
            jobs = [Job(run, identity.run_folder(run, Path(out))) for run in runs]
            failed = engine.execute(jobs, Local(jobs, parallel), lambda event: None)
        if failed:
            raise RuntimeError(failed[0].error)
        return REPEATS * 3 * 2000

    return turn


# --- against peers -----------------------------------------------------------------------------


def counted(prepare: Callable[[], Callable[[], object]], images: int) -> Turn:
    """A turn of what `prepare` makes, which gets through so many images."""
    turn = prepare()

    def count() -> int:
        turn()
        return images

    return count


def tuned(sleeps_beside_others: bool) -> Turn:
    """An epoch of fine-tuning, to be taken beside other processes."""
    job = finetuning.Job("convnext_atto", images=320, epochs=1)
    if sleeps_beside_others:
        waiting.sleep_beside_others()
    return counted(partial(finetuning.ours, job), job.images)


def _peers() -> Iterator[tuple[str, Callable[[], Turn]]]:
    layouts = {"torch": False, "torch channels-last": True}
    for name, job in finetuning.JOBS.items():
        ways = {"ours": partial(finetuning.ours, job)}
        for layout, channels_last in layouts.items():
            loop = partial(finetuning.torch_loop, job, channels_last=channels_last)
            ways[f"{layout}, features kept"] = partial(loop, keeps_features=True)
            ways[f"{layout}, no_grad"] = partial(loop, keeps_features=False)
        for way, prepare in ways.items():
            yield f"{name} {way}", partial(counted, prepare, job.passes)
    job = episodes.PROTOTYPICAL
    ways = {"ours": partial(episodes.our_episodes, job)}
    for layout, channels_last in layouts.items():
        ways[f"easyfsl's, {layout}"] = partial(episodes.easyfsl_episodes, job, channels_last)
    for way, prepare in ways.items():
        yield f"episodes {way}", partial(counted, prepare, job.images * job.count)
    job = episodes.MAML
    for order, second in {"first": False, "second": True}.items():
        for way, prepare in {
            "ours": episodes.our_tasks,
            "functional_call": episodes.functional_tasks,
            "higher": episodes.higher_tasks,
        }.items():
            images = job.images * job.count * episodes.TASKS_A_STEP
            yield (
                f"maml {order} order {way}",
                partial(counted, partial(prepare, job, second), images),
            )
    for name, job in serving.SERVED.items():
        ways = {
            "ours": partial(serving.predicting_ours, job),
            "onnxruntime": partial(serving.predicting_in_onnxruntime, job),
        }
        for layout, channels_last in layouts.items():
            ways[layout] = partial(serving.predicting_in_torch, job, channels_last)
        for way, prepare in ways.items():
            yield f"predict {name} {way}", partial(counted, prepare, job.images)
    for name, job in {"224": serving.PHOTOGRAPHS, "32": serving.SMALL}.items():
        yield f"decode to {name} ours", partial(serving.decoding_ours, job)
        yield f"decode to {name} DataLoader", partial(serving.decoding_in_loader, job)


CONTENDERS: dict[str, Callable[[], Turn]] = {
    **dict(_peers()),
    neighbours.SLEEPS: partial(tuned, sleeps_beside_others=True),
    neighbours.SPINS: partial(tuned, sleeps_beside_others=False),
    neighbours.ALONE: partial(tuned, sleeps_beside_others=False),
    **{f"{network} ours": partial(our_fit, network) for network in STEPS},
    **{f"{network} keras fit": partial(keras_fit, network) for network in STEPS},
    **{f"{network} torch": partial(torch_loop, network, False) for network in STEPS},
    **{f"{network} torch channels-last": partial(torch_loop, network, True) for network in STEPS},
    "feed": partial(feed, as_floats=False),
    "feed as floats": partial(feed, as_floats=True),
    "sliced tensor": sliced_tensor,
    "png loader": png_loader,
    "kept training": partial(fewshot_training, kept=True),
    "whole training": partial(fewshot_training, kept=False),
    "few-shot keras fit": fewshot_keras_fit,
    "kept evaluation": partial(fewshot_evaluation, kept=True),
    "whole evaluation": partial(fewshot_evaluation, kept=False),
    "repeats together": partial(repeats, parallel=2, threads=1),
    "repeats in sequence": partial(repeats, parallel=1, threads=2),
}


def main(name: str, threads: int) -> None:
    """Prepares a contender, then does its turns until standard input ends."""
    # Standard output is for the turns alone: what libraries print goes to standard error.
    turns = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    memory.keep_freed_memory()  # for all alike
    turn = CONTENDERS[name]()
    torch = sys.modules.get("torch")
    if torch:
        torch.set_num_threads(threads)
    for _ in sys.stdin:
        began = time.perf_counter()
        images = turn()
        if torch and torch.cuda.is_available():
            torch.cuda.synchronize()  # what a GPU was given to do
        print(json.dumps({"images": images, "seconds": time.perf_counter() - began}), file=turns)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
