"""What runs are to be made, and how long they will take. Never imports keras."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from keras_cnn import data, progress
from keras_cnn.errors import UserError
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.settings import Compute, Data, Feeding, Model
from keras_cnn.results import grid, store
from keras_cnn.runs.worker import check_images

# Training images a second on one core of a laptop-class processor at 32 pixels, evaluation between
# epochs included: a first guess, until runs on this machine have been measured.
IMAGES_PER_SECOND = {
    "baseline": 700.0,
    "enhanced": 100.0,
    "fewshot_cnn": 700.0,
    "siamese_cnn": 60.0,
    "resnet18": 250.0,
    "convnext_atto": 500.0,
    "convnext_femto": 200.0,
    "convnext_pico": 130.0,
    "convnext_nano": 90.0,
    "convnext_tiny": 40.0,
}
# The hidden units these are of, and how the time grows with more: linearly, quadratically.
WIDTHS = {"baseline": (32, 1), "enhanced": (64, 2)}
START_SECONDS = 6.0  # of each run: process, framework, network, saving
NOT_HERE = {  # classes, training images
    "cinic10": (10, 90_000),
    "cifar10": (10, 50_000),
    "tiny_imagenet": (200, 100_000),
}
SHOWN_ALWAYS = ("data", "model", "weights")


@dataclass(frozen=True)
class Estimate:
    """What of some runs is on disk, and what the others will take.

    Attributes:
        seconds: Duration of each run, by itself.
        on_disk: Whether each run is there and stays.
        seconds_left: Until all others are there.
        hindrance: Why they cannot run yet; empty where nothing is in the way.
    """

    seconds: list[float]
    on_disk: list[bool]
    seconds_left: float
    hindrance: str


def estimate(runs: Sequence[Run], out: Path, parallel: int, fresh: bool = False) -> Estimate:
    """Looks for runs on disk and estimates the time of the others.

    Args:
        runs: The runs.
        out: Where results are looked for; the finished runs there tell this machine's speed.
        parallel: Runs at a time; each is taken to keep one core busy.
        fresh: What is on disk will be made again.
    """
    measured = measured_speeds(out)
    expected = [seconds(run, measured) for run in runs]
    on_disk, hindrance = [], ""
    for run in runs:
        try:
            on_disk.append(store.run_folder(run, out).exists() and not fresh)
        except UserError as error:  # data or weights are not here: nothing of it can be on disk
            on_disk.append(False)
            hindrance = str(error)
    missing = [index for index, done in enumerate(on_disk) if not done]
    try:
        check_images([runs[index] for index in missing])
    except UserError as error:
        hindrance = hindrance or str(error)
    free = [0.0] * parallel  # when each of the runs at a time is over
    for index in missing:
        heapq.heapreplace(free, free[0] + expected[index])
    return Estimate(expected, on_disk, max(free), hindrance)


def seconds(run: Run, measured: Mapping[tuple, float]) -> float:
    """A run's duration on one core.

    Args:
        run: The run.
        measured: What `measured_speeds` gives.
    """
    spec = run.model_dump()
    classes, images = _counts(run.data.data, run.data.image_size)
    if run.data.shots is not None:
        images = run.data.shots * classes
    minutes = getattr(run.training, "minutes", None)
    if minutes is not None:
        return START_SECONDS + 60 * minutes
    speed = measured.get(_kind(spec), IMAGES_PER_SECOND.get(run.model.model, 100.0))
    return START_SECONDS + images * run.training.epochs * _work(spec) / speed


def measured_speeds(out: Path) -> dict[tuple, float]:
    """By kind of run, training images a second in the finished runs under a folder.

    They are counted as images of 32 pixels in a network of the default width.
    """
    speeds: dict[tuple, float] = {}
    for path in out.glob("*/*/metrics.json"):
        try:
            run = json.loads((path.parent / "run.json").read_text())
            metrics = json.loads(path.read_text())
            images = metrics["train_images"] * metrics["epochs"]
            speeds[_kind(run)] = images * _work(run) / metrics["seconds"]
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue  # not a run of ours: no estimate is worth an error
    return speeds


def listing(title: str, runs: Sequence[Run], estimated: Estimate) -> str:
    """The runs, a line for each row and variant, and the time those not on disk will take.

    What all runs, or all of a variant, have in common stands above the rows. What is nowhere
    written is the default of the run's method.

    Args:
        title: The first line.
        runs: The runs.
        estimated: What `estimate` gives for them.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault((run.row, run.variant), []).append(index)
    shared = _alike(runs)
    of_variant = {
        variant: _alike([run for run in runs if run.variant == variant])
        for variant in dict.fromkeys(run.variant for run in runs)
    }
    lines = [title, f"all: {_written(_not_default(runs[0], shared, SHOWN_ALWAYS))}"]
    if len(of_variant) > 1:
        for variant, alike in of_variant.items():
            own = {key: value for key, value in alike.items() if key not in shared}
            changed = _not_default(next(run for run in runs if run.variant == variant), own)
            lines.append(f"{variant}: {_written(changed) or 'the defaults'}")
    rows = []
    for (row, variant), members in groups.items():
        others = [run.settings for run in runs if run.variant == variant]
        told_apart = [key for key in others[0] if all(key in other for other in others)]
        own = {
            key: value
            for key, value in runs[members[0]].settings.items()
            if key not in of_variant[variant]
        }
        done = sum(estimated.on_disk[index] for index in members)
        left = [estimated.seconds[index] for index in members if not estimated.on_disk[index]]
        rows.append(
            (
                f"row {row}",
                variant,
                _runs(len(members), done),
                f"{progress.duration(max(left))} each" if left else "",
                _written(_not_default(runs[members[0]], own, told_apart)),
            )
        )
    lines += grid.aligned(rows)
    lines.append(f"{summary(estimated)}.")
    if estimated.hindrance:
        lines.append(f"They cannot run yet: {estimated.hindrance}")
    return "\n".join(lines)


def summary(estimated: Estimate) -> str:
    """`"36 runs, 12 on disk, about 4 min 02 s for the others"`."""
    done = sum(estimated.on_disk)
    text = _runs(len(estimated.on_disk), done)
    if done == len(estimated.on_disk):
        return text
    others = "the others" if done else "all of them"
    return f"{text}, about {progress.duration(estimated.seconds_left)} for {others}"


def _runs(count: int, done: int) -> str:
    return f"{progress.runs(count)}, {done} on disk" if done else progress.runs(count)


@lru_cache
def _counts(source: str, image_size: int) -> tuple[int, int]:
    """Classes and training images of a data source, guessed where it is not on this machine."""
    try:
        dataset = data.load(source, image_size)
    except UserError:
        return NOT_HERE.get(source, (10, 10_000))
    return len(dataset.class_names), len(dataset.splits["train"].labels)


def _kind(run: dict) -> tuple:
    """What decides the speed, size and width apart, which `_work` counts."""
    model, training = run["model"], run["training"]
    feed = run["feeding"]["feed"]
    return model["model"], model["unfrozen_stages"], training["method"], feed, run["backend"]


def _work(run: dict) -> float:
    """An image's share of time, that of 32 pixels in a network of the default width being 1."""
    model = run["model"]
    default, power = WIDTHS.get(model["model"], (1, 0))
    width = (model["hidden_units"] or default) / default
    return (run["data"]["image_size"] / 32) ** 2 * width**power


def _not_default(
    run: Run, settings: Mapping[str, object], always: Sequence[str] = ()
) -> dict[str, object]:
    """Those of a run's settings that are not its method's defaults, or are always to be shown."""
    groups = (Compute, Data, Model, Feeding, type(run.training))
    defaults = {key: field.default for group in groups for key, field in group.model_fields.items()}
    return {k: value for k, value in settings.items() if k in always or value != defaults[k]}


def _alike(runs: Sequence[Run]) -> dict[str, object]:
    """The settings that all of the runs have, and have alike."""
    first, *others = (run.settings for run in runs)
    return {k: v for k, v in first.items() if all(k in o and o[k] == v for o in others)}


def _written(settings: dict[str, object]) -> str:
    """As `--set` takes them."""
    return " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    )
