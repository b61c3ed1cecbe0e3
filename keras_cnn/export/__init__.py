"""Trained models for other programs: ONNX, LiteRT, OpenVINO, TensorFlow's SavedModel.

    export.write("model.keras", "onnx")

writes `model.onnx`, and `model.onnx.json` with all that a program has to know beside it. In each
format the input `images` is float32 (n, size, size, 3), raw RGB from 0 to 255, for any n, and the
output `probabilities` is float32 (n, classes): preprocessing is inside. A program without Keras:

    import json
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageOps

    about = json.load(open("model.onnx.json"))
    session = onnxruntime.InferenceSession("model.onnx")

    def square(path):  # where about["fit"] is "crop"; about["preparation"] says it in words
        size = about["image_size"]
        image = Image.open(path)
        image.draft(None, (2 * size, 2 * size))  # a large JPEG at a fraction
        image = ImageOps.exif_transpose(image).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32)

    images = np.stack([square("photo.jpg")])
    (probabilities,) = session.run(["probabilities"], {"images": images})
    print(about["class_names"][probabilities[0].argmax()])

The same in ONNX's `metadata_props` and OpenVINO's runtime information: texts, JSON where they are
no names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import environment, files
from keras_cnn.errors import UserError, printable
from keras_cnn.export.formats import Format, find

if TYPE_CHECKING:
    from keras_cnn.classifier import Classifier

TOLERANCE = 1e-4  # of a probability
IMAGES, FEWEST_IMAGES = 32, 16  # that Keras and the exported model are compared on
CARD_FIELDS = ("calibration", "threshold")  # of the card, what a program that answers goes by
PREPARATION = {
    "crop": "the centre square, scaled to image_size",
    "pad": "scaled to fit into image_size, in the middle of a border of RGB 127, 127, 127",
    "squash": "scaled to image_size in both directions, its proportions lost",
}


class ExportError(Exception):
    """A model cannot be exported, or gives other probabilities in its exported form."""

    def __init__(self, line: str) -> None:
        super().__init__(printable(line))


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: The exported model; a folder in the format `tf_saved_model`.
        about: The JSON file beside it.
        largest_difference: Between its probabilities and Keras's, over all images and classes.
        images: How many were compared.
    """

    file: Path
    about: Path
    largest_difference: float
    images: int


def write(
    model: str | Path,
    format: str,
    out: str | Path | None = None,
    data: str | Path | None = None,
) -> Exported:
    """Exports a saved model, once its probabilities are found to be those of Keras.

    Args:
        model: A `.keras` file.
        format: `onnx`, `litert`, `openvino` or `tf_saved_model`.
        out: The file (in the format `tf_saved_model` the folder); by default beside the model,
            with its name. `OUT.json` is written, too.
        data: A folder of at least 16 images to compare on; by default photographs of clothing.

    Raises:
        UserError: The model, format, file or images cannot be used.
        ExportError: The format cannot hold the model, or it gives other probabilities there.
            Nothing was written.
    """
    from keras_cnn import classifier

    kind = find(format)
    model = Path(model).expanduser()
    files.require(model)
    out = _place(Path(out).expanduser() if out else None, model, kind)
    opened = classifier.opened(model)
    images = _images(opened, Path(data).expanduser() if data else None)
    outputs = opened.outputs(images)
    expected = opened.probabilities(outputs)
    if not np.isfinite(expected).all():
        raise UserError(f"{model}: what it gives is no number: its training diverged")
    about = _about(opened, format, out.name, kind)
    with files.temporary_folder() as folder:
        made = Path(folder, "made")
        made.mkdir()
        request = {
            "format": format,
            "model": str(model.absolute()),
            "ending": opened.ending(outputs),
            "image_size": opened.image_size,
            "out": str(made / out.name),
            "images": str(Path(folder, "images.npy")),
            "probabilities": str(Path(folder, "probabilities.npy")),
            "metadata": {
                key: value if isinstance(value, str) else files.json_text(value, indent=None)
                for key, value in about.items()
            },
        }
        np.save(request["images"], images)
        _convert(request, kind, Path(folder, "request.json"), model)
        difference = _difference(np.load(request["probabilities"]), expected)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{model}: as {format} it gives other probabilities than Keras, by "
                f"{difference:.2g} on {len(images)} images where {TOLERANCE:g} is allowed: "
                "nothing was written"
            )
        about["compared_with_keras"] = {
            "images": len(images),
            "largest_difference": difference,
            "allowed": TOLERANCE,
        }
        sheet = out.with_name(f"{out.name}.json")
        for path in sorted(made.iterdir(), key=lambda path: path.name == out.name):
            _move(path, out.with_name(path.name))
        files.write_text(sheet, files.json_text(about) + "\n")
    return Exported(out, sheet, difference, len(images))


def _place(out: Path | None, model: Path, kind: Format) -> Path:
    """Where the exported model goes, found out before the work.

    Raises:
        UserError: Nothing can be written there, or something else would be lost.
    """
    if out is None:
        out = model.with_name(f"{model.stem}{kind.suffix or '_saved_model'}")
    if out.suffix.lower() != kind.suffix and kind.suffix:
        raise UserError(f"--out is {str(out)!r}: a name that ends in {kind.suffix} is needed")
    if kind.suffix and out.is_dir():
        raise UserError(f"--out is {str(out)!r}: a folder is there")
    if not kind.suffix and out.exists():
        is_ours = out.is_dir() and ((out / "saved_model.pb").is_file() or not any(out.iterdir()))
        if not is_ours or out.resolve() == Path.cwd():
            raise UserError(f"--out is {str(out)!r}: something else is there; name a new folder")
    if not out.parent.is_dir():
        raise UserError(f"--out is {str(out)!r}: there is no folder {out.parent}")
    files.check_writable(out.parent)
    return out


def _images(model: Classifier, folder: Path | None) -> np.ndarray:
    """Images to compare on, uint8 (n, h, w, 3), spread over all there are.

    Raises:
        UserError: They are too few.
    """
    from keras_cnn import prediction
    from keras_cnn.data import clothing, decode

    if folder is None:
        items, _ = clothing.source().splits["test"]().content()
        items = items[_spread(len(items), IMAGES)]
    else:
        paths = prediction.image_files([folder])
        items = [str(paths[place]) for place in _spread(len(paths), 2 * IMAGES)]
    images = decode.decode_batch(items, model.image_size, model.fit).images
    images = images[_spread(len(images), IMAGES)]  # some files may be damaged
    if len(images) < FEWEST_IMAGES:
        raise UserError(
            f"{folder}: {len(images)} images can be read there, at least {FEWEST_IMAGES} are "
            "needed to compare on"
        )
    return images


def _spread(count: int, most: int) -> np.ndarray:
    """Places of at most so many among some, evenly from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _about(model: Classifier, format: str, name: str, kind: Format) -> dict[str, object]:
    """What a program that uses the exported model has to know."""
    square = [None, model.image_size, model.image_size, 3]
    about = {
        "format": format,
        "file": name,
        "class_names": model.class_names,
        "image_size": model.image_size,
        "fit": model.fit,
        "preparation": (
            f"upright as EXIF says, RGB, what is transparent in white; {PREPARATION[model.fit]} "
            "(bicubic, antialiased); JPEG files decoded at the least of 1/8, 1/4, 1/2 and 1 that "
            "leaves twice that size"
        ),
        "input": {
            "name": "images",
            "shape": square,
            "dtype": "float32",
            "meaning": "raw RGB, 0 to 255, height before width; any number of images",
        },
        "output": {
            "name": "probabilities",
            "shape": [None, len(model.class_names)],
            "dtype": "float32",
            "meaning": "the probability of each class, in the order of class_names",
        },
    }
    about |= {
        key: value for key, value in model.card.items() if any(part in key for part in CARD_FIELDS)
    }
    packages = ("keras_cnn", "keras", kind.backend)
    about["written_by"] = {name: environment.version(name) for name in packages}
    return about


def _convert(request: dict[str, object], kind: Format, path: Path, model: Path) -> None:
    """Has a process of the format's backend write the model and try it.

    Raises:
        ExportError: It did not get to its end.
    """
    path.write_text(json.dumps(request), encoding="utf-8")
    done = subprocess.run(
        [*environment.PYTHON, "-m", "keras_cnn.export.convert", str(path)],
        env=environment.of_child(kind.backend, environment.free_cores()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return
    *_, said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    if done.returncode < 0:
        said = f"killed by signal {-done.returncode}{', out of memory?' * (done.returncode == -9)}"
    raise ExportError(f"{model}: cannot be written as {request['format']} ({said})")


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest between probabilities (n, classes); infinite where shapes or numbers fail."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found.astype(np.float64) - expected).max())


def _move(source: Path, target: Path) -> None:
    """A file or a folder to where it belongs, which may be another disk: whole or not at all."""
    if source.is_file():
        with files.replacing(target) as partial:
            shutil.copyfile(source, partial)
        return
    partial = files.partial_path(target)
    try:
        shutil.copytree(source, partial)
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
