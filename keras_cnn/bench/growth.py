"""Seconds and memory as work grows.

`python -m keras_cnn.bench.growth PART SIZE` is one measurement: a process of its own, with data and
results in a folder of its own that goes with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from keras_cnn import environment, files
from keras_cnn.results import grid
from keras_cnn.results.grid import Column

SIZES = {
    "images": (1_000, 10_000, 50_000, 270_000),
    "runs": (1, 8, 64, 512),
    "classes": (10, 30, 100, 300, 1_000),
}
HOW = {
    "images": "PNG files of 32 x 32 pixels (gratings in ten classes) in train/<class>, from the "
    "folder on: decoding, reading what is decoded, and an epoch of baseline with 10 hidden units, "
    "batch 64, one thread.",
    "runs": "A sweep of runs that do next to nothing (100 generated images, baseline with 4 hidden "
    "units, an epoch, one thread, a core each), from nothing to its table and pictures.",
    "classes": "10,000 images' probabilities, drawn: the scores and the report by class, the "
    "confusion matrix and its picture, the file of predictions and the CSV.",
}
TEST_IMAGES = 1_000  # of the part images
CLASSIFIED = 10_000  # of the part classes
MEMORY = "most memory, MB"
Figures = dict[str, float]  # by what was measured: seconds, but for MEMORY


def measured(part: str, most: int | None = None) -> dict[int, Figures]:
    """Figures by size, each size once.

    Args:
        part: One of `SIZES`.
        most: Leaves out larger sizes.
    """
    found = {}
    for size in SIZES[part]:
        if most is not None and size > most:
            continue
        with files.temporary_folder() as folder:
            home = {"KERAS_CNN_HOME": str(Path(folder, "home"))}
            done = subprocess.run(
                [*environment.PYTHON, "-m", __name__, part, str(size)],
                cwd=folder,
                env=environment.of_child("torch", 1) | home,
                stdout=subprocess.PIPE,
                check=True,
            )
        found[size] = json.loads(done.stdout.splitlines()[-1])
    return found


def slopes(found: Mapping[int, Figures]) -> Figures:
    """By figure, the slope over size in log-log, by least squares: 1 grows in proportion."""
    return {name: _slope([*found], values) for name, values in _columns(found).items()}


def rows(found: Mapping[int, Figures]) -> Iterator[list[object]]:
    """A table's rows, headings first: a size and its figures."""
    yield ["size", *_columns(found)]
    for size, figures in found.items():
        yield [size, *figures.values()]


def markdown(found: Mapping[int, Figures]) -> str:
    """The figures by size, and their slopes."""
    headings, *lines = rows(found)
    cells = [[f"{line[0]:,}", *(f"{value:,.2f}" for value in line[1:])] for line in lines]
    if len(found) > 1:
        told = (f"{slope:.2f}" for slope in slopes(found).values())
        cells.append(["slope in log-log", *told])
    return grid.markdown(list(map(Column, headings, zip(*cells, strict=True))))


def draw(part: str, found: Mapping[int, Figures], path: Path) -> None:
    """Draws the figures over size into a PNG file."""
    from keras_cnn import plots

    by_unit: dict[str, dict[str, list[float]]] = {"seconds": {}, "megabytes": {}}
    for name, values in _columns(found).items():
        by_unit["megabytes" if name == MEMORY else "seconds"][name] = values
    title = f"As the number of {part} grows"
    plots.save(lambda: plots.growth(title, part, [*found], by_unit, slopes(found)), path)


def _columns(found: Mapping[int, Figures]) -> dict[str, list[float]]:
    names = next(iter(found.values()))
    return {name: [figures[name] for figures in found.values()] for name in names}


def _slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    positive = np.maximum(values, 1e-3)
    return float(np.polyfit(np.log(sizes), np.log(positive), 1)[0]) if len(sizes) > 1 else np.nan


# --- what a process measures ---------------------------------------------------------------------


def _images(count: int) -> Figures:
    from keras_cnn import data, methods, models
    from keras_cnn.torch_fast import memory

    _write_pictures(Path("pictures"), {"train": count, "test": TEST_IMAGES})
    memory.keep_freed_memory()  # as a run does
    found: Figures = {}
    with _clock(found, "decoding, s"):
        data.load("pictures")
    with _clock(found, "reading, s"):
        splits = data.load("pictures").splits
    network = models.classifier("baseline", 10, hidden_units=10)
    with _clock(found, "an epoch, s"):
        methods.supervised.train(
            network, splits["train"], splits["test"], epochs=1, batch_size=64, report=lambda _: None
        )
    return found


def _write_pictures(folder: Path, counts: Mapping[str, int]) -> None:
    """Gratings as PNG files, written by a process that takes its memory with it."""
    code = "import sys; from keras_cnn.bench import growth; growth.write_pictures(*sys.argv[1:])"
    for split, count in counts.items():
        command = [*environment.PYTHON, "-c", code, str(folder / split), str(count)]
        subprocess.run(command, check=True)


def write_pictures(folder: str, count: str) -> None:
    """Writes so many PNG files into the folders of ten classes."""
    from PIL import Image

    from keras_cnn.data import sources

    split = sources.find(f"synthetic:{count}").splits["train"]()
    images, labels = split.content()
    for label in range(10):
        Path(folder, str(label)).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = Path(folder, str(label), f"{number:06d}.png")
        Image.fromarray(image).save(path, compress_level=1)


def _runs(count: int) -> Figures:
    from keras_cnn.runs import publish, study

    overrides = {"data": "synthetic:100", "epochs": 1, "hidden_units": 4}
    found: Figures = {}
    with _clock(found, "plan, s"):
        plan = study.plan(
            "reliability",
            profile="mini",
            variant="as_run",
            repeats=count,
            overrides=overrides,
            out="results",
            threads=1,
        )
        work = study.prepare(plan)
    with _clock(found, "runs, s"):
        done = study.execute(work)
    if len(done.results) != count:
        raise RuntimeError(f"{len(done.results)} of {count} runs are there")
    with _clock(found, "table and pictures, s"):
        publish.publish(done)
    with _clock(found, "second call, s"):
        publish.publish(study.execute(study.prepare(plan)))
    return found | {"a run, s": found["runs, s"] / count}


def _classes(count: int) -> Figures:
    from keras_cnn import plots
    from keras_cnn.models import saved
    from keras_cnn.prediction import Evaluation
    from keras_cnn.results import predictions, scores, store

    draw = np.random.default_rng(0)
    labels = np.arange(CLASSIFIED) % count
    shares = draw.random((CLASSIFIED, count), np.float32) ** 8
    shares[np.arange(CLASSIFIED), labels] += draw.random(CLASSIFIED, np.float32)
    shares /= shares.sum(axis=1, keepdims=True)
    names = [f"class {label}" for label in range(count)]
    made = Evaluation(names, labels, shares)
    found: Figures = {}
    with _clock(found, "scores, s"):
        scores.scores(labels, shares)
    with _clock(found, "report, s"):
        made.report()
    with _clock(found, "confusion, s"):
        counts = saved.confusion(labels, shares)
    with _clock(found, "predictions, s"):
        predictions.write(
            predictions.of(labels, shares, np.arange(CLASSIFIED)), Path("predictions.npz")
        )
    with _clock(found, "CSV, s"):
        headings, *lines = made.rows()
        store.write_csv(Path("predictions.csv"), headings, lines)
    with _clock(found, "picture, s"):
        plots.save(lambda: plots.confusion_matrix("", counts, names), Path("confusion.png"))
    return found


PARTS: dict[str, Callable[[int], Figures]] = {
    "images": _images,
    "runs": _runs,
    "classes": _classes,
}


@contextmanager
def _clock(found: Figures, what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    found[what] = time.perf_counter() - began


def main(part: str, size: int) -> None:
    """Prints the figures of one size as a line of JSON; writes into the current folder."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    found = PARTS[part](size)
    memory = environment.peak_memory_megabytes()
    print(json.dumps(found | {MEMORY: memory}), file=reports, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
