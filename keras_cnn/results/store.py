"""Run folders: identity, lock, atomic write, read. Never imports keras.

A run's folder appears whole, by one rename, or not at all:

    artifacts/<recipe>/<row>-<variant>-<repeat>-<hash>/
        run.json          the resolved run
        environment.json  backend, device, versions, fingerprints of data and weights
        history.csv       one line an epoch
        metrics.json      the final figures
        confusion.csv     counts, true class by row, predicted class by column
        model.keras       raw 0-255 RGB images to probabilities
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from keras_cnn import data, files
from keras_cnn.errors import UserError
from keras_cnn.home import home
from keras_cnn.pretrained import named
from keras_cnn.recipe.resolve import Place, Run
from keras_cnn.recipe.settings import CODE_VERSIONS

HISTORY_COLUMNS = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
)
FINAL_FIGURES = ("train_accuracy", "test_accuracy", "train_images", "test_images", "seconds")


class Busy(Exception):
    """Another process holds the run."""


@dataclass(frozen=True)
class Result:
    """A finished run, as read from its folder.

    Attributes:
        folder: Where it lies.
        run: The resolved run, as plain data.
        environment: Backend, device and versions.
        history: One dict an epoch, keys as in `HISTORY_COLUMNS`.
        metrics: The final figures; accuracies in [0, 1].
        class_names: In the order of the labels.
        confusion: Counts, true class by row, predicted class by column.
    """

    folder: Path
    run: dict
    environment: dict
    history: list[dict[str, float]]
    metrics: dict[str, float]
    class_names: list[str]
    confusion: list[list[int]]

    @property
    def place(self) -> Place:
        """Where the run stands in a table."""
        return Place(**{name: self.run[name] for name in Place.model_fields})

    @property
    def settings(self) -> dict[str, object]:
        """All settings of the run by name, whatever their group."""
        groups = [value for value in self.run.values() if isinstance(value, dict)]
        return {"backend": self.run["backend"]} | {
            k: v for group in groups for k, v in group.items()
        }


def identity(run: Run) -> str:
    """The name of a run's folder, hashed from everything that decides its result.

    That is: the resolved settings, the content of the data and of the weights (not where they
    lie), the version of the method's code, the repeat and the backend.

    Args:
        run: The run.

    Raises:
        UserError: The data or the weights are not on this machine.
    """
    decisive = run.model_dump(exclude={"profile", "comparable"})
    found = fingerprints(run)
    decisive["data"]["data"] = found["data"]
    decisive["model"]["weights"] = found["weights"]
    decisive["code"] = CODE_VERSIONS[run.training.method]
    text = json.dumps(decisive, sort_keys=True)
    return f"{run.row}-{run.variant}-{run.repeat}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def fingerprints(run: Run) -> dict[str, str]:
    """Of the `data` and the `weights` a run starts from, by their content.

    Raises:
        UserError: They are not on this machine.
    """
    return {
        "data": data_fingerprint(run.data.data, run.data.image_size),
        "weights": weights_fingerprint(run.model.model, run.model.weights),
    }


@lru_cache
def data_fingerprint(name: str, image_size: int) -> str:
    """The fingerprint of a data source's decoded content."""
    return data.fingerprint(name, image_size)


@lru_cache
def weights_fingerprint(model: str, weights: str) -> str:
    """The fingerprint of the weights a run starts from; `random` has itself."""
    path = named.weights_file(model, weights)
    return "random" if path is None else named.fingerprint(path)


def run_folder(run: Run, out: Path) -> Path:
    """Where a run's result lies, or will."""
    return out / run.recipe / identity(run)


def checkpoint_file(run: Run) -> Path:
    """Where a run that takes hours keeps its state: by what it is, whatever folder it goes to."""
    return home() / "checkpoints" / f"{identity(run)}.h5"


@contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Holds a run's lock; the operating system frees it however the process ends.

    Args:
        folder: The run's folder.
        wait: Wait until no other process holds it.

    Raises:
        Busy: Another process holds it.
    """
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{folder.name}.lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(folder.name) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a run into; on leaving without an error it becomes `folder`, whole.

    Call it while holding the run's lock: what an earlier, killed process left is removed.

    Args:
        folder: The run's folder; an older result there is replaced.

    Yields:
        An empty folder beside it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    replaced = folder.with_name(f".{folder.name}.replaced")
    _restore(folder, replaced)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.iterdir(), partial]:
            files.sync(path)
        if folder.exists():
            os.rename(folder, replaced)
        os.rename(partial, folder)
        files.sync(folder.parent)
    finally:
        _restore(folder, replaced)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _restore(folder: Path, replaced: Path) -> None:
    """Puts an older result back that nothing took the place of."""
    if replaced.exists() and not folder.exists():
        os.rename(replaced, folder)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes one JSON object, readable by a person."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a table; floats in full, so that reading gives back the same bits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read(folder: Path) -> Result:
    """Reads a finished run.

    Raises:
        UserError: The folder is damaged.
    """
    try:
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            history = [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
        with (folder / "confusion.csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        confusion = [[int(count) for count in row[1:]] for row in rows]
        _require(history, "history.csv has no epochs")
        _require(all({*HISTORY_COLUMNS} <= {*row} for row in history), "history.csv lacks a column")
        sides = {len(confusion), *map(len, confusion)}
        _require(sides == {len(header) - 1}, "confusion.csv is not square")
        return Result(
            folder=folder,
            run=_read_object(folder / "run.json", Run.model_fields),
            environment=_read_object(folder / "environment.json", ("backend", "versions")),
            history=history,
            metrics=_read_object(folder / "metrics.json", FINAL_FIGURES),
            class_names=header[1:],
            confusion=confusion,
        )
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: damaged ({error}); delete the folder and run the recipe again"
        ) from None


def relabelled(folder: Path, run: Run) -> Result:
    """Reads a finished run, which from now on says what it was last asked for as.

    Its profile, the path of its data, and whether it may stand beside the deck's figures are no
    part of its identity: another command may have made it under other names.

    Args:
        folder: `run_folder(run, out)`.
        run: What the command at hand asks for.

    Raises:
        UserError: The folder is damaged.
    """
    result = read(folder)
    asked = json.loads(run.model_dump_json())
    if result.run == asked:
        return result
    with files.replacing(folder / "run.json") as partial:
        write_json(partial, asked)
    return replace(result, run=asked)


def _read_object(path: Path, keys: Iterable[str]) -> dict:
    content = json.loads(path.read_text(encoding="utf-8"))
    _require(isinstance(content, dict), f"{path.name} is not an object")
    for key in keys:
        _require(key in content, f"{path.name} lacks {key!r}")
    return content


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
