"""3,781 photographs of clothing in ten classes, CC0 1.0, that come with the package.

Source: https://github.com/alexeygrigorev/clothing-dataset-small. `clothing.zip` holds its three
parts as squares of 64 pixels, one JPEG a class: the class's photographs below each other, in the
order of their names (64 is a multiple of JPEG's blocks, so that none bleeds into the next). The
same file is made again from a checkout of that repository by

    python -m keras_cnn.data.clothing <folder>
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn.data.listing import Listing, Source
from keras_cnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np

BUNDLE = Path(__file__).with_name("clothing.zip")
CLASS_NAMES = (
    *("dress", "hat", "longsleeve", "outwear", "pants"),
    *("shirt", "shoes", "shorts", "skirt", "t-shirt"),
)
PARTS = {"train": "train", "valid": "validation", "test": "test"}  # of the repository
SMALLEST_CLASS = 112  # photographs to train on
IMAGE_SIZE = 64
JPEG_QUALITY = 91  # the zip has 7.8 MB
ORIGIN = """Photographs of clothing: https://github.com/alexeygrigorev/clothing-dataset-small
Commit 11961516512414bf9f6c150a832cfd21b54a6b54, CC0 1.0 (LICENSE). Centre squares of 64 pixels.
Made by: python -m keras_cnn.data.clothing <folder of that repository>
"""

Images = tuple["np.ndarray", "np.ndarray"]  # uint8 (n, 64, 64, 3), and labels, int64 (n,)


def source() -> Source:
    """The parts as their authors made them: 3,068 to train, 341 for choices, 372 to test."""
    return _source("clothing", {split: partial(_read, split) for split in PARTS})


def large_test() -> Source:
    """Fewer to train and more to test: 112 of each class, and 2,320.

    What is not among the first 112 training photographs of its class goes to the test part, for
    narrower intervals where few images a class are drawn. Validation is as it was.
    """
    contents = {"train": _first_of_train, "valid": partial(_read, "valid"), "test": _rest_and_test}
    return _source("clothing:large_test", contents)


def for_choices() -> Source:
    """The photographs to train on, and the 341 for choices in the place of the test part.

    Settings are compared on these, so that the test part measures what nobody has chosen by it.
    """
    contents = {"train": "train", "valid": "valid", "test": "valid"}
    return _source(
        "clothing:choices", {split: partial(_read, part) for split, part in contents.items()}
    )


def _source(name: str, contents: dict[str, Callable[[], Images]]) -> Source:
    splits = {
        split: partial(Listing, f"{name} 1 {split}", content) for split, content in contents.items()
    }
    return Source(CLASS_NAMES, splits)


def _read(split: str) -> Images:
    import numpy as np
    from PIL import Image

    strips = []
    try:
        with zipfile.ZipFile(BUNDLE) as bundle:
            for name in CLASS_NAMES:
                with Image.open(io.BytesIO(bundle.read(f"{split}/{name}.jpg"))) as strip:
                    strips.append(np.asarray(strip).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3))
    except (OSError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{BUNDLE} is damaged ({error}): install keras_cnn again") from None
    labels = np.repeat(np.arange(len(CLASS_NAMES)), [len(strip) for strip in strips])
    return np.concatenate(strips), labels.astype(np.int64)


def _first_of_train() -> Images:
    images, labels = _read("train")
    first = _rank_in_class(labels) < SMALLEST_CLASS
    return images[first], labels[first]


def _rest_and_test() -> Images:
    import numpy as np

    images, labels = _read("train")
    rest = _rank_in_class(labels) >= SMALLEST_CLASS
    test_images, test_labels = _read("test")
    return np.concatenate([images[rest], test_images]), np.r_[labels[rest], test_labels]


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """How many images of its class come before each, (n,), where labels are sorted."""
    import numpy as np

    return np.arange(len(labels)) - np.searchsorted(labels, labels)


def make(folder: Path, bundle: Path = BUNDLE) -> None:
    """Makes the bundle from the repository's folder, by the decoding that any folder gets.

    Args:
        folder: A checkout of the repository; holds `train`, `validation`, `test` and `LICENSE`.
        bundle: The zip file to write.

    Raises:
        UserError: The folder is another, or one of its photographs cannot be decoded.
    """
    from PIL import Image

    from keras_cnn import files
    from keras_cnn.data import decode

    names: dict[str, list[str]] = {}
    with files.replacing(bundle) as partial_file, zipfile.ZipFile(partial_file, "w") as archive:

        def write(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name), content)  # without a date: the same bytes again

        license_file = folder / "LICENSE"
        if not license_file.is_file():
            raise UserError(f"{folder} is not a checkout of clothing-dataset-small: no LICENSE")
        write("LICENSE", license_file.read_bytes())
        write("ORIGIN.txt", ORIGIN.encode())
        for split, part in PARTS.items():
            for name in CLASS_NAMES:
                paths = sorted((folder / part / name).glob("*.jpg"))
                decoded = decode.decode_batch([str(path) for path in paths], IMAGE_SIZE)
                if decoded.unreadable or not paths:
                    raise UserError(
                        f"{folder / part / name}: {decoded.unreadable or 'no photographs'}"
                    )
                names[f"{split}/{name}"] = [path.stem for path in paths]
                strip = io.BytesIO()
                rows = decoded.images.reshape(-1, IMAGE_SIZE, 3)  # below each other
                Image.fromarray(rows).save(
                    strip, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True
                )
                write(f"{split}/{name}.jpg", strip.getvalue())
        archive.writestr(
            zipfile.ZipInfo("names.json"),
            json.dumps(names, indent=0),
            zipfile.ZIP_DEFLATED,
        )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
