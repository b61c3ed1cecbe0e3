"""Run folders: atomic write, read.

A run's folder appears whole, by one rename, or not at all:

    artifacts/<recipe>/<row>-<variant>-<repeat>-<identity>/
        run.json          spec: what decided the result; place: where it stands in a table; sha256
        environment.json  backend, device, versions, fingerprints of data and weights
        history.csv       one line an epoch
        metrics.json      the final figures
        confusion.csv     counts, true class by row, predicted class by column
        checksums.json    SHA-256 of the four files above; older results have none
        predictions.npz   what the model makes of each test image (`predictions`)
        model.keras       raw 0-255 RGB images to probabilities
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from keras_cnn import files
from keras_cnn.errors import UserError
from keras_cnn.recipe.spec import Place, Run, flat_settings
from keras_cnn.results import contents
from keras_cnn.results.claims import Busy, held
from keras_cnn.results.contents import FINAL_FIGURES, HISTORY_COLUMNS, csv_cell
from keras_cnn.statistics import diverged_at

if TYPE_CHECKING:
    from keras_cnn.results.intervals import Hits
    from keras_cnn.results.predictions import Predictions

__all__ = ["FINAL_FIGURES", "HISTORY_COLUMNS", "Busy", "Result", "held", "read", "write"]

PREDICTIONS = "predictions.npz"
HIDDEN = re.compile(r"\.(?P<folder>.+?)(\.\d+@.*)?\.(replaced|partial)")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Result:
    """A finished run, as read from its folder.

    Attributes:
        folder: Where it lies.
        place: Where it stands in a table.
        spec: What decided it, as plain data.
        environment: Backend, device and versions.
        history: One dict an epoch, keys as in `HISTORY_COLUMNS`.
        metrics: The final figures; accuracies in [0, 1], None what is not finite.
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
        if self.diverged_at:
            return f"Result({self.folder.name}, diverged at epoch {self.diverged_at})"
        return f"Result({self.folder.name}, test accuracy {self.metrics['test_accuracy']:.1%})"

    @property
    def diverged_at(self) -> int | None:
        """The epoch from which on its loss, or in the end its weights, were not finite; or None."""
        return self.metrics.get("diverged_at_epoch") or diverged_at(self.history)

    @property
    def names_one_class(self) -> bool:
        """Whether its model names the same class for every test image: it has learnt nothing."""
        return sum(any(counts) for counts in zip(*self.confusion, strict=True)) == 1

    @property
    def settings(self) -> dict[str, object]:
        """All settings of the run by name, whatever their class."""
        return flat_settings(self.spec)

    @property
    def predictions(self) -> Predictions | None:
        """Each test image's class and probabilities, read anew; None in older results.

        Raises:
            UserError: The file is damaged.
        """
        from keras_cnn.results import predictions  # it imports NumPy

        return self._predicted(predictions.read)

    @property
    def hits(self) -> Hits | None:
        """Which test images are classified right, read anew; None in older results.

        Raises:
            UserError: The file is damaged.
        """
        from keras_cnn.results import predictions

        return self._predicted(predictions.hits)

    def _predicted(self, read: Callable[[Path], Read]) -> Read | None:
        try:
            return read(self.folder / PREDICTIONS)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, error) from None

    @property
    def model_file(self) -> Path:
        """The saved model, which `keras.models.load_model` reads."""
        return self.folder / "model.keras"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a run into; on leaving without an error it becomes `folder`, whole.

    Call it while holding the run's claim: what an earlier, killed process left is removed. Should
    another process bring the run into place meanwhile, which had lost its claim, that one stays.

    Args:
        folder: The run's folder; an older result there is replaced.

    Yields:
        An empty folder beside it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    replaced = folder.with_name(f".{folder.name}.replaced")
    _restore(folder, replaced)
    shutil.rmtree(replaced, ignore_errors=True)
    is_new = not files.is_there(folder)
    partial = files.partial_path(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in [*partial.iterdir(), partial]:
            files.sync(path)
        if not is_new:
            os.rename(folder, replaced)
        try:
            os.rename(partial, folder)
        except OSError:
            if not (is_new and files.is_there(folder)):
                raise
        files.sync(folder.parent)
    finally:
        _restore(folder, replaced)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _restore(folder: Path, replaced: Path) -> None:
    """Puts an older result back that nothing took the place of."""
    if replaced.exists() and not folder.exists():
        os.rename(replaced, folder)


def recover(recipe_folder: Path) -> None:
    """Brings back the results that a kill left hidden, and clears what it left half written.

    Those that a process is writing now are left alone, and all where the folder is read-only.
    """
    for hidden in sorted([*recipe_folder.glob(".*.replaced"), *recipe_folder.glob(".*.partial")]):
        name = HIDDEN.fullmatch(hidden.name)
        if name and hidden.is_dir():
            folder = recipe_folder / name["folder"]
            with contextlib.suppress(Busy, OSError), held(folder):
                _restore(folder, folder.with_name(f".{folder.name}.replaced"))
                shutil.rmtree(hidden, ignore_errors=True)


def write(
    folder: Path,
    run: Run,
    environment: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, object],
    class_names: Sequence[str],
    confusion: Sequence[Sequence[int]],
    save_model: Callable[[Path], None],
    predicted: Predictions | None = None,
) -> None:
    """Writes a finished run; its folder appears whole, in place of an older one.

    Call it while holding the run's claim. The arguments are as in `Result`; `save_model` is called
    with the path that the model is to be written to, `predicted` is what it makes of the test
    images.
    """
    with new_folder(folder) as partial:
        write_json(partial / "run.json", contents.with_checksum(run.model_dump()))
        write_json(partial / "environment.json", environment)
        rows = [[record[key] for key in HISTORY_COLUMNS] for record in history]
        write_csv(partial / "history.csv", HISTORY_COLUMNS, rows)
        names = [csv_cell(name) for name in class_names]
        counts = [[name, *row] for name, row in zip(names, confusion, strict=True)]
        write_csv(partial / "confusion.csv", ["true class", *names], counts)
        write_json(partial / "metrics.json", metrics)
        write_json(partial / contents.CHECKSUMS, contents.checksums(partial))
        if predicted is not None:
            from keras_cnn.results import predictions

            predictions.write(predicted, partial / PREDICTIONS)
        save_model(partial / "model.keras")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes one JSON object, readable by a person; what is not finite is null."""
    path.write_text(files.json_text(content) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a table; floats in full, so that reading gives back the same bits."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
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
    from keras_cnn.results import predictions

    folder = Path(folder).expanduser()
    try:
        with contextlib.suppress(FileNotFoundError):  # results of earlier versions have none
            predictions.check(folder / PREDICTIONS)
        place, spec = contents.run(folder / "run.json")
        class_names, confusion = contents.confusion(folder / "confusion.csv")
        result = Result(
            folder=folder,
            place=place,
            spec=spec,
            environment=contents.environment(folder / "environment.json"),
            history=contents.history(folder / "history.csv"),
            metrics=contents.metrics(folder / "metrics.json"),
            class_names=class_names,
            confusion=confusion,
        )
        contents.check(folder)
        return result
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(f"{folder}: damaged ({error}); delete the folder and run the recipe again")


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
        write_json(partial, contents.with_checksum(run.model_dump()))
    return replace(result, place=run.place, spec=spec)
