"""What the files of a run's folder must hold: they may come from anywhere, and may be damaged."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from keras_cnn import files
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.spec import KNOWN_METHODS, Place, Spec

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
FORMULA = ("=", "+", "-", "@", "'")  # what a spreadsheet takes a cell for that begins so
MOST = 2**53  # of anything that is counted
# Files as they were written once; run.json, which is updated, has a checksum in itself.
CHECKED = ("environment.json", "history.csv", "confusion.csv", "metrics.json")
CHECKSUMS, CHECKSUM = "checksums.json", "sha256"

Count = Annotated[int, Field(ge=1, lt=MOST)]
Share = Annotated[float, Field(ge=0, le=1)] | None
NotNegative = Annotated[float, Field(ge=0)] | None


class _AtLeast(BaseModel):
    """A file's object, which may have more members."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Environment(_AtLeast):
    backend: str
    device: str
    processor: str
    versions: dict[str, str]


class _Images(_AtLeast):
    data: str
    image_size: int
    shots: int | None = None
    test_shots: int | None = None


class _Network(_AtLeast):
    model: str
    weights: str


class _OwnMethodSpec(_AtLeast):
    """The other settings of a method of one's own are known to its module alone."""

    method: str
    images: _Images
    network: _Network
    training: dict
    shots_seed: int
    backend: str


_Metrics = create_model(
    "_Metrics",
    __base__=_AtLeast,
    **{
        name: (
            Share if measure.unit == "percent" else NotNegative,
            ... if name in FINAL_FIGURES else None,
        )
        for name, measure in MEASURES.items()
    },
    train_images=Count,
    test_images=Count,
    diverged_at_epoch=(Count | None, None),
    shared_images=(Annotated[int, Field(ge=0, lt=MOST)], 0),
)


def run(path: Path) -> tuple[Place, dict]:
    """Where a run stands, and its spec as plain data.

    Raises:
        OSError: As of the functions below, the file cannot be read.
        ValueError: Likewise, it does not hold what it must.
    """
    described = _object(path)
    place, spec = described.get("place"), described.get("spec")
    checksum = described.pop(CHECKSUM, None)  # older results have none
    if isinstance(spec, dict) and spec.get("method") in (*KNOWN_METHODS,):
        spec = _valid(path, Spec.model_validate, spec).model_dump()
    else:
        _valid(path, _OwnMethodSpec.model_validate, spec)
    place = _valid(path, Place.model_validate, place)
    _require(checksum in (None, _checksum_of(described)), f"{path.name} is not what was written")
    return place, spec


def with_checksum(described: Mapping[str, object]) -> dict[str, object]:
    """What run.json holds: the same and, last, the checksum of it."""
    return {**described, CHECKSUM: _checksum_of(described)}


def _checksum_of(described: Mapping[str, object]) -> str:
    return hashlib.sha256(files.json_text(described).encode()).hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each of the files `CHECKED`, in hexadecimal."""
    return {name: hashlib.sha256(files.content(folder / name)).hexdigest() for name in CHECKED}


def check(folder: Path) -> None:
    """Holds a run's files against the checksums beside them; older results have none.

    Raises:
        OSError: A file cannot be read.
        ValueError: One is not what was written.
    """
    if not (folder / CHECKSUMS).exists():
        return
    written = _object(folder / CHECKSUMS)
    for name, checksum in checksums(folder).items():
        _require(written.get(name) == checksum, f"{name} is not what was written")


def environment(path: Path) -> dict[str, object]:
    """Backend, device, processor and versions a run was made with."""
    found = _object(path)
    _valid(path, _Environment.model_validate, found)
    return found


def metrics(path: Path) -> dict[str, float | None]:
    """The final figures; None what is not finite."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in _object(path).items()
    }
    _valid(path, _Metrics.model_validate, finite)
    return finite


def history(path: Path) -> list[dict[str, float]]:
    """One dict an epoch, with `HISTORY_COLUMNS` among its keys."""
    records = [
        {key: float(value) for key, value in row.items()} for row in csv.DictReader(_text(path))
    ]
    _require(records, "history.csv has no epochs")
    _require(all({*HISTORY_COLUMNS} <= {*row} for row in records), "history.csv lacks a column")
    epochs = [0.0, *(record["epoch"] for record in records)]
    in_order = all(before < after < math.inf for before, after in pairwise(epochs))
    _require(in_order, "history.csv: epochs out of order")
    accuracies = [row[f"{split}_accuracy"] for row in records for split in ("train", "test")]
    _require(not any(one < 0 or one > 1 for one in accuracies), "history.csv: accuracy above 1")
    return records


def confusion(path: Path) -> tuple[list[str], list[list[int]]]:
    """Class names, and counts by true and by predicted class."""
    header, *rows = csv.reader(_text(path))
    counts = [[int(count) for count in row[1:]] for row in rows]
    square = {len(counts), *map(len, counts)} == {len(header) - 1}
    _require(square and counts, "confusion.csv is not square")
    least, most = min(map(min, counts)), sum(map(sum, counts))
    _require(least >= 0 and most < MOST, "confusion.csv: a count below 0 or too large")
    return [_name(cell) for cell in header[1:]], counts


def csv_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe is put before one."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _name(cell: str) -> str:
    """What `csv_cell` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def _text(path: Path) -> io.StringIO:
    return io.StringIO(files.content(path).decode(errors="surrogateescape"), newline="")


def _object(path: Path) -> dict:
    found = files.read_json(path)
    _require(isinstance(found, dict), f"{path.name} is not an object")
    return found


def _valid(path: Path, validate: Callable[[object], BaseModel], content: object) -> BaseModel:
    try:
        return validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path.name}: {where}: {first['msg'].lower()}") from None


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
