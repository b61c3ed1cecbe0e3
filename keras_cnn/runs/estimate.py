"""What runs are to be made, and how long they will take."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from keras_cnn import data, files, progress
from keras_cnn.data.fit import Fit
from keras_cnn.errors import UserError, printable
from keras_cnn.recipe import resolve
from keras_cnn.recipe.schema import Settings
from keras_cnn.recipe.spec import SEEDS, Run
from keras_cnn.results import grid, identity, store
from keras_cnn.runs import described
from keras_cnn.runs.preflight import check_images, refuse, row_and_variant

# Training images of 32 pixels a second on a core of an AMD EPYC whose others are busy, too: a guess
# for what has not been run on this machine.
TYPICAL_SPEED = {
    "baseline": 1000.0,
    "enhanced": 120.0,
    "fewshot_cnn": 1100.0,
    "siamese_cnn": 210.0,
    "resnet18": 180.0,
    "convnext_atto": 440.0,
    "convnext_femto": 370.0,
    "convnext_tiny": 55.0,
}
AT_HIDDEN_UNITS = {"baseline": 32, "enhanced": 64}
SECONDS_AN_IMAGE = 0.00013  # at least, however narrow the network
FASTER_IN_EVALUATION = 3.0  # times
OTHER_SPEED = 200.0  # of a network of one's own
FASTER_FROZEN = 1.5  # times, where the first stages do not train
FASTER_AS_FEATURES = 3.0  # where none does, and images are seen once
START_SECONDS = 2.0  # of each run beside its epochs, forked: data, network, saving
ALWAYS_SHOWN = ("data", "model", "weights")


@dataclass(frozen=True)
class Estimate:
    """What of some runs is on disk, and what the others will take.

    Attributes:
        seconds: Duration of each run, by itself; None where its images are not on this machine.
        guessed: Whether each duration rests on `TYPICAL_SPEED`, not on a run like it.
        on_disk: Whether each run is there and stays.
        seconds_left: Until all others are there; None where a duration is not known.
        hindrance: Why they cannot run yet; empty where nothing is in the way.
        left_out: As of `preflight.check_images`.
    """

    seconds: list[float | None]
    guessed: list[bool]
    on_disk: list[bool]
    seconds_left: float | None
    hindrance: str
    left_out: dict[str, str] = field(default_factory=dict)


def estimate(runs: Sequence[Run], out: Path, parallel: int, fresh: bool = False) -> Estimate:
    """Looks for runs on disk and estimates the time of the others.

    Args:
        runs: The runs.
        out: Where results are looked for; the finished runs there tell this machine's speed.
        parallel: Runs at a time; each is taken to keep one core busy.
        fresh: What is on disk will be made again.
    """
    for folder in {out / run.place.recipe for run in runs}:
        store.recover(folder)
    measured = measured_speeds(out)
    expected = [seconds(run, measured) for run in runs]
    on_disk, hindrance, left_out = [], "", {}
    for run in runs:
        try:
            there = identity.run_folder(identity.as_on_disk(run, out), out).exists()
            on_disk.append(there and not fresh)
        except UserError as error:  # data or weights are not here: nothing of it can be on disk
            on_disk.append(False)
            hindrance = str(error)
    missing = [index for index, done in enumerate(on_disk) if not done]
    try:
        left_out = check_images([runs[index] for index in missing])
        if left_out.keys() == set(map(row_and_variant, runs)):
            refuse(left_out)
    except UserError as error:
        hindrance = hindrance or str(error)
    hindrance = hindrance or files.unwritable(out)
    fit = [index for index in missing if row_and_variant(runs[index]) not in left_out]
    guessed = [_minutes(run) is None and _kind(run.spec.settings) not in measured for run in runs]
    left = _together([expected[index] for index in fit], parallel)
    return Estimate(expected, guessed, on_disk, left, hindrance, left_out)


def _together(durations: Sequence[float | None], parallel: int) -> float | None:
    """What runs take, so many at a time, begun in their order."""
    if None in durations:
        return None
    free = [0.0] * parallel  # when each of the runs at a time is over
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def seconds(run: Run, measured: Mapping[tuple, float]) -> float | None:
    """A run's duration on one core; None where its images are not on this machine.

    Args:
        run: The run.
        measured: What `measured_speeds` gives.
    """
    if (minutes := _minutes(run)) is not None:
        return START_SECONDS + 60 * minutes
    images, settings = run.spec.images, run.spec.settings
    counts = _counts(images.data, images.image_size, images.fit)
    if counts is None:
        return None
    class_count, *available = counts
    wanted = (images.shots, images.test_shots)
    seen, tested = (
        count if shots is None else min(shots * class_count, count)
        for shots, count in zip(wanted, available, strict=True)
    )
    seen += tested / FASTER_IN_EVALUATION
    epochs = getattr(run.spec.training, "epochs", 1)  # a method of one's own may have none
    speed = measured.get(_kind(settings)) or _typical_speed(settings)
    return START_SECONDS + seen * epochs * _work(settings) / speed


def _typical_speed(settings: Settings) -> float:
    model = settings["model"]
    speed = TYPICAL_SPEED.get(model, OTHER_SPEED)
    if model in AT_HIDDEN_UNITS:  # nearly all products are of as many channels in as out
        width = settings["hidden_units"] / AT_HIDDEN_UNITS[model]
        speed = 1 / (SECONDS_AN_IMAGE + (1 / speed - SECONDS_AN_IMAGE) * width**2)
    if "unfrozen_stages" not in settings:
        return speed * FASTER_AS_FEATURES
    return speed * FASTER_FROZEN if settings["unfrozen_stages"] is not None else speed


def _minutes(run: Run) -> float | None:
    """What a run is given to train in, where that is set."""
    return getattr(run.spec.training, "minutes", None)


@lru_cache
def _counts(source: str, image_size: int, fit: Fit) -> tuple[int, int, int] | None:
    """Classes, training and test images of a source; None where it is not on this machine."""
    try:
        dataset = data.load(source, image_size, fit=fit)
    except UserError:
        return None
    train, test = (len(dataset.splits[split].labels) for split in ("train", "test"))
    return len(dataset.class_names), train, test


def measured_speeds(out: Path) -> dict[tuple, float]:
    """By kind of run, training images a second in the finished runs under a folder.

    They are counted as images of 32 pixels.
    """
    speeds: dict[tuple, float] = {}
    for path in out.glob("*/*/metrics.json"):
        with contextlib.suppress(UserError):  # no run of ours: no estimate is worth an error
            run = store.read(path.parent)
            seconds = run.metrics["seconds"]
            if seconds:
                seen = run.metrics["train_images"]
                seen += run.metrics["test_images"] / FASTER_IN_EVALUATION
                images = seen * len(run.history)
                speeds[_kind(run.settings)] = images * _work(run.settings) / seconds
    return speeds


def _kind(settings: Settings) -> tuple:
    """What decides the speed, the size of the images apart, which `_work` counts."""
    names = ("model", "hidden_units", "unfrozen_stages", "method", "feed", "backend")
    return tuple(settings.get(name) for name in names)


def _work(settings: Settings) -> float:
    """An image's share of time, that of 32 pixels being 1."""
    return (settings["image_size"] / 32) ** 2


def listing(title: str, runs: Sequence[Run], estimated: Estimate) -> str:
    """The runs, a line for each row and variant, and the time those not on disk will take.

    What all runs, or all of a variant, have in common stands above the rows. What is nowhere
    written is the default of the run's method.

    Args:
        title: The first line.
        runs: The runs.
        estimated: What `estimate` gives for them.
    """
    variants = {run.place.variant: [] for run in runs}
    for run in runs:
        variants[run.place.variant].append(run)
    of_all = _common(runs)
    of_variant = {variant: _common(members) for variant, members in variants.items()}
    lines = [title, f"all: {_special(runs[0], of_all, ALWAYS_SHOWN)}"]
    if len(variants) > 1:
        for variant, members in variants.items():
            own = {key: value for key, value in of_variant[variant].items() if key not in of_all}
            lines.append(f"{variant}: {_special(members[0], own) or 'the defaults'}")
    rows: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(runs):
        rows.setdefault((run.place.row, run.place.variant), []).append(index)
    cells = []
    for (row, variant), members in rows.items():
        settings, others = _settings(runs[members[0]]), map(_settings, variants[variant])
        in_all = settings.keys() & set.intersection(*map(set, others))
        own = {k: value for k, value in settings.items() if k not in of_variant[variant]}
        done = sum(estimated.on_disk[index] for index in members)
        each = _each(estimated, [index for index in members if not estimated.on_disk[index]])
        special = _special(runs[members[0]], own, in_all)
        cells.append((f"row {row}", variant, _runs(len(members), done), each, special))
    lines += grid.aligned(cells)
    if any("~" in each for *_, each, _ in cells):
        lines.append(
            "~: nothing like it has been run here; a guess, from what a core of an AMD EPYC does."
        )
    lines += [f"row {row} is left out: {why}" for row, why in estimated.left_out.items()]
    lines.append(f"{summary(estimated)}.")
    if estimated.hindrance:
        lines.append(f"They cannot run yet: {estimated.hindrance}")
    return "\n".join(lines)


def _each(estimated: Estimate, left: Sequence[int]) -> str:
    """`"7 s each"`, or `"~7 s each"` where that is a guess: the longest of the runs to be made."""
    if not left:
        return ""
    if any(estimated.seconds[index] is None for index in left):
        return "time not known"
    sign = "~" if any(estimated.guessed[index] for index in left) else ""
    return f"{sign}{progress.duration(max(estimated.seconds[index] for index in left))} each"


def summary(estimated: Estimate) -> str:
    """`"36 runs, 12 on disk, about 4 min 02 s for the others"`."""
    done = sum(estimated.on_disk)
    text = _runs(len(estimated.on_disk), done)
    if done == len(estimated.on_disk):
        return text
    others = "the others" if done else "all of them"
    if estimated.seconds_left is None:
        return f"{text}, time of {others} not known"
    return f"{text}, about {progress.duration(estimated.seconds_left)} for {others}"


def _runs(count: int, done: int) -> str:
    return f"{progress.runs(count)}, {done} on disk" if done else progress.runs(count)


def _settings(run: Run) -> Settings:
    """A run's settings that a listing may name: repeats differ in their seeds."""
    return {key: value for key, value in run.spec.settings.items() if key not in SEEDS}


def _common(runs: Sequence[Run]) -> Settings:
    """The settings that all of the runs have, and have alike."""
    first, *others = map(_settings, runs)
    return {k: v for k, v in first.items() if all(k in one and one[k] == v for one in others)}


def _special(run: Run, settings: Settings, always: Sequence[str] = ()) -> str:
    """Those of a run's settings that are not at their defaults, or always shown, as for `--set`."""
    defaults = resolve.defaults(type(run.spec.training))
    return " ".join(
        f"{key}={printable(described.written(value))}"
        for key, value in settings.items()
        if key in always or value != defaults[key]
    )
