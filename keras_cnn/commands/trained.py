"""The commands for models that are trained: on images, and for other programs."""

from __future__ import annotations

import csv as csv_text  # `csv` and `json` are flags' names
import json as json_text
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from keras_cnn import environment, files
from keras_cnn.commands.shell import chosen_backend, picture_path, say, tell
from keras_cnn.errors import UserError, printable

# An image's file, its classes with their probabilities, and what is to be said of it.
Answer: TypeAlias = tuple[str, list[tuple[str, float]], str]


def predict(
    model: Path,
    *images: str,
    top: int = 3,
    json: bool = False,
    csv: bool = False,
    page: Path | None = None,
    sets: int | None = None,
    backend: str | None = None,
) -> None:
    """Classify images, or all images of a folder, with a saved model.

    Args:
        model: A .keras file, as <run folder>/model.keras.
        images: Image files or folders.
        top: How many classes to name for each image.
        json: Print JSON; a file that cannot be read has an error in it.
        csv: Print CSV, a line for each image and class; a file that cannot be read has an error.
        page: An .html file of small photographs, by class and certainty, the unsure ones apart.
        sets: Name as many classes as hold the true one in so many percent of cases, 80, 90, 95 or
            99; of a model that `teach` has left.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
    """
    from keras_cnn import contact_sheet, prediction

    if not images:
        raise UserError("predict needs IMAGES; see: python -m keras_cnn predict --help")
    if json and csv:
        raise UserError("--json and --csv: give one of them")
    if page:
        if page.suffix.lower() != ".html":
            raise UserError(f"--page is {str(page)!r}: a name that ends in .html")
        files.check_writable(page.parent)
    environment.settle(chosen_backend(backend))
    predictions = prediction.predict(model, images)
    best = predictions.best(len(predictions.class_names) if sets else top)
    if sets:
        held = predictions.sets(sets / 100)
        best = [one[: len(names)] for one, names in zip(best, held, strict=True)]
    answers = list(zip(map(str, predictions.paths), best, predictions.remarks, strict=True))
    if json:
        print(_predictions_json(answers, predictions.unreadable))
    elif csv:
        _print_predictions_csv(answers, predictions.unreadable)
    else:
        for path, classes, remark in answers:
            said = ", ".join(f"{name} {share:.1%}" for name, share in classes)
            tell(f"{path}: {f'{remark}: ' if remark else ''}{said}")
    if page:
        contact_sheet.write(predictions, page)
        say(f"photographs by class: {page}")
    _tell_unreadable(predictions.unreadable)


def _tell_unreadable(unreadable: Sequence[tuple[Path, str]]) -> None:
    for path, reason in unreadable:
        say(printable(f"keras_cnn: {path}: {reason}"))
    if unreadable:
        raise SystemExit(2)


def _predictions_json(answers: Sequence[Answer], unreadable: Sequence[tuple[Path, str]]) -> str:
    keys = ("name", "probability")
    content: list[dict[str, object]] = [
        {"image": path, "classes": [dict(zip(keys, one, strict=True)) for one in classes]}
        | ({"remark": remark} if remark else {})
        for path, classes, remark in answers
    ]
    content += [{"image": str(path), "error": reason} for path, reason in unreadable]
    return json_text.dumps(content, indent=2)


def _print_predictions_csv(
    answers: Sequence[Answer], unreadable: Sequence[tuple[Path, str]]
) -> None:
    from keras_cnn.results.contents import csv_cell

    def cell(text: str) -> str:
        return csv_cell(printable(text))

    table = csv_text.writer(sys.stdout, lineterminator="\n")
    table.writerow(("image", "rank", "class", "probability", "error", "remark"))
    for path, classes, remark in answers:
        for rank, (name, share) in enumerate(classes, start=1):
            table.writerow((cell(path), rank, cell(name), share, "", remark))
    for path, reason in unreadable:
        table.writerow((cell(str(path)), "", "", "", cell(reason), ""))


def evaluate(
    model: Path,
    data: str | None = None,
    split: str = "test",
    out: Path | None = None,
    csv: Path | None = None,
    backend: str | None = None,
) -> None:
    """Accuracy, precision, recall, F1 and confusion matrix of a saved model on a data source.

    Args:
        model: A .keras file, as <run folder>/model.keras.
        data: A source (cinic10, digits, …; a wrong name lists all) or a folder of images.
        split: train, valid or test.
        out: Where the picture goes; by default <model>-confusion.png beside the model.
        csv: A file for each image's place or name, true and predicted class, and probabilities.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
    """
    from keras_cnn import plots, prediction
    from keras_cnn.data import sources

    if not data:
        raise UserError("evaluate needs --data=SOURCE_OR_FOLDER")
    environment.settle(chosen_backend(backend))
    picture = picture_path(out) if out else None
    if csv:
        files.check_writable(csv.parent)
    evaluation = prediction.evaluate(model, data, split)
    images = len(evaluation.labels)
    tell(f"{model} on the {split} split of {data}: {evaluation.accuracy:.2%} of {images} images")
    low, high = (100 * end for end in evaluation.interval)
    loss, error = (evaluation.scores[n] for n in ("negative_log_likelihood", "calibration_error"))
    print(
        f"95 percent interval on new images {low:.1f} to {high:.1f} percent, negative log "
        f"likelihood {loss:.3f}, expected calibration error {100 * error:.1f} points"
    )
    if evaluation.shared:
        print(f"{evaluation.shared} of them have the pixels of training images")
    print()
    print(evaluation.report())
    title = f"{model.name} on {sources.title(data)}, {split}"
    counts, names = evaluation.confusion(), evaluation.class_names
    picture = picture or model.with_name(f"{model.stem}-confusion.png")
    plots.save(partial(plots.confusion_matrix, title, counts, names), picture)
    tell(f"confusion matrix: {picture}")
    if csv:
        _write_csv(csv, evaluation.rows())
        tell(f"each image's probabilities: {csv}")


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Writes a table of which no cell is one that a spreadsheet takes for a formula."""
    from keras_cnn.results.contents import csv_cell

    with files.replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv_text.writer(file, lineterminator="\n")
        for row in rows:
            writer.writerow(csv_cell(printable(c)) if isinstance(c, str) else c for c in row)


def embed(model: Path, folder: str, out: Path | None = None, backend: str | None = None) -> None:
    """Write what a saved model sees in the images of a folder: the features its head is given.

    Args:
        model: A .keras file, as <run folder>/model.keras.
        folder: A folder of images, or one image.
        out: features.npz (arrays `features`, float32 (n, channels), and `files`) or a .csv file.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
    """
    from keras_cnn import similarity

    if out is None or out.suffix.lower() not in (".npz", ".csv"):
        raise UserError("embed needs --out=FILE, a name that ends in .npz or .csv")
    files.check_writable(out.parent)
    environment.settle(chosen_backend(backend))
    found = similarity.embed(model, folder)
    place = Path(folder).expanduser()
    place = place if place.is_dir() else place.parent
    names = [path.relative_to(place).as_posix() for path in found.paths]
    if out.suffix.lower() == ".npz":
        import numpy as np

        with files.replacing(out) as partial, partial.open("wb") as file:
            np.savez(file, features=found.features, files=np.array(names))
    else:
        count = found.features.shape[1]
        rows = ([name, *map(float, row)] for name, row in zip(names, found.features, strict=True))
        _write_csv(out, [["file", *(f"feature {number}" for number in range(count))], *rows])
    tell(f"{len(names)} images, {found.features.shape[1]} features of each: {out}")
    _tell_unreadable(found.unreadable)


def similar(model: Path, image: str, folder: str, top: int = 5, backend: str | None = None) -> None:
    """Name the images of a folder that a saved model finds most alike to one image.

    Args:
        model: A .keras file, as <run folder>/model.keras.
        image: An image file; where it lies in the folder, it is not among those named.
        folder: A folder of images.
        top: How many to name, each with the cosine of their features: 1 is the same direction.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
    """
    from keras_cnn import similarity

    environment.settle(chosen_backend(backend))
    found, unreadable = similarity.similar(model, image, folder, top)
    for path, cosine in found:
        tell(f"{path}: {cosine:.3f}")
    _tell_unreadable(unreadable)


def export(
    model: Path, format: str | None = None, out: Path | None = None, data: Path | None = None
) -> None:
    """Write a saved model for programs without Keras: ONNX, LiteRT, OpenVINO or SavedModel.

    OUT.json beside it has the class names and all else that such a program needs. Nothing is
    written (exit code 1) unless its probabilities are those of Keras.

    Args:
        model: A .keras file, as <run folder>/model.keras.
        format: onnx, litert, openvino or tf_saved_model.
        out: The file, or for tf_saved_model the folder; by default beside the model.
        data: A folder of images to compare on; photographs of clothing by default.
    """
    from keras_cnn import export as exporting

    if not format:
        raise UserError("export needs --format=onnx, litert, openvino or tf_saved_model")
    environment.settle(chosen_backend())
    try:
        done = exporting.write(model, format, out, data)
    except exporting.ExportError as error:
        say(f"keras_cnn: {error}")
        raise SystemExit(1) from None
    tell(
        f"{done.file}: as Keras on {done.images} images, to {done.largest_difference:.1g} of a "
        "probability"
    )
    tell(f"class names, image size, input and output: {done.about}")
