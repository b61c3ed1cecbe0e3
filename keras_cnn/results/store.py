"""Run folders: lock, atomic write, read.

A run's folder appears whole, by one rename, or not at all:

    artifacts/<recipe>/<row>-<variant>-<repeat>-<identity>/
        run.json          spec: what decided the result; place: where it stands in a table
        environment.json  backend, device, versions, fingerprints of data and weights
        history.csv       one line an epoch
        metrics.json      the final figures
        confusion.csv     counts, true class by row, predicted class by column
        model.keras       raw 0-255 RGB images to probabilities
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from keras_cnn import files
from keras_cnn.errors import UserError
from keras_cnn.recipe.spec import Place, Run, flat_settings

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
        place: Where it stands in a table.
        spec: What decided it, as plain data.
        environment: Backend, device and versions.
        history: One dict an epoch, keys as in `HISTORY_COLUMNS`.
        metrics: The final figures; accuracies in [0, 1].
        class_names: In the order of the labels.
        confusion: Counts, true class by row, predicted class by column.
    """

    folder: Path
    place: Place
    spec: dict
    environment: dict
    history: list[dict[str, float]]
    metrics: dict[str, float]
    class_names: list[str]
    confusion: list[list[int]]

    def __repr__(self) -> str:
        accuracy = self.metrics.get("test_accuracy")
        told = "" if accuracy is None else f", test accuracy {accuracy:.1%}"
        return f"Result({self.folder.name}{told})"

    @property
    def settings(self) -> dict[str, object]:
        """All settings of the run by name, whatever their class."""
        return flat_settings(self.spec)

    @property
    def model_file(self) -> Path:
        """The saved model, which `keras.models.load_model` reads."""
        return self.folder / "model.keras"


@contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Holds a run's lock; the operating system frees it however the process ends.

    Args:
        folder: The run's folder.
        wait: Wait until no other process holds it.

    Raises:
        Busy: Another process holds it.
    """
    from filelock import Timeout  # here, as in `files.locked`

    lock = folder.parent / ".locks" / f"{folder.name}.lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(lock, wait=wait))
        except Timeout:
            raise Busy(folder.name) from None
        yield


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


def write(
    folder: Path,
    run: Run,
    environment: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, object],
    class_names: Sequence[str],
    confusion: Sequence[Sequence[int]],
    save_model: Callable[[Path], None],
) -> None:
    """Writes a finished run; its folder appears whole, in place of an older one.

    Call it while holding the run's lock. The arguments are as in `Result`; `save_model` is called
    with the path that the model is to be written to.
    """
    with new_folder(folder) as partial:
        write_json(partial / "run.json", run.model_dump())
        write_json(partial / "environment.json", environment)
        rows = [[record[key] for key in HISTORY_COLUMNS] for record in history]
        write_csv(partial / "history.csv", HISTORY_COLUMNS, rows)
        counts = [[name, *row] for name, row in zip(class_names, confusion, strict=True)]
        write_csv(partial / "confusion.csv", ["true class", *class_names], counts)
        write_json(partial / "metrics.json", metrics)
        save_model(partial / "model.keras")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes one JSON object, readable by a person."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a table; floats in full, so that reading gives back the same bits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read(folder: str | Path) -> Result:
    """Reads a finished run.

    Args:
        folder: `OUT/<recipe>/<row>-<variant>-<repeat>-<identity>`.

    Raises:
        UserError: The folder is damaged.
    """
    folder = Path(folder).expanduser()
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
        described = _read_object(folder / "run.json", Run.model_fields)
        return Result(
            folder=folder,
            place=Place.model_validate(described["place"]),
            spec=_read_spec(described["spec"]),
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


def read_as(folder: Path, run: Run) -> Result:
    """Reads a finished run as `read` does, and updates where it stands in its run.json.

    Its place and the path of its data are no part of its identity: another command may have made
    it under other names than the run at hand.
    """
    result = read(folder)
    spec = run.spec.model_dump(mode="json")
    if (result.place, result.spec) == (run.place, spec):
        return result
    with files.replacing(folder / "run.json") as partial:
        write_json(partial, run.model_dump())
    return replace(result, place=run.place, spec=spec)


def _read_spec(content: object) -> dict:
    _require(isinstance(content, dict), "run.json: spec is not an object")
    for name, value in (("images", dict), ("network", dict), ("training", dict), ("backend", str)):
        _require(isinstance(content.get(name), value), f"run.json: spec lacks {name!r}")
    return content


def _read_object(path: Path, keys: Iterable[str]) -> dict:
    content = json.loads(path.read_text(encoding="utf-8"))
    _require(isinstance(content, dict), f"{path.name} is not an object")
    for key in keys:
        _require(key in content, f"{path.name} lacks {key!r}")
    return content


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
