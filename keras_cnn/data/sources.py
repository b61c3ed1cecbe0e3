"""Named sources and folders of images, loaded as uint8 arrays with labels and a fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn.data import folders
from keras_cnn.data.fit import Fit, check
from keras_cnn.data.listing import Listing, Source
from keras_cnn.errors import UserError, nearest, printable
from keras_cnn.home import home

if TYPE_CHECKING:
    import numpy as np

# Those of the network are fetched, `synthetic` is also `synthetic:N`.
SOURCES = (
    *("clothing", "clothing:large_test", "clothing:choices"),
    *("cinic10", "cifar10", "tiny_imagenet", "digits", "synthetic"),
)


@dataclass(frozen=True)
class Split:
    """Images and their classes.

    Attributes:
        images: uint8 (n, h, w, 3), RGB. Mapped from the cache file: pages are read when used, and
            writing changes this process's copy alone.
        labels: int64 (n,), indices into `class_names`.
        class_names: In the order of the labels; may be empty.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shape, classes = self.images.shape, len(self.class_names) or "?"
        return f"Split({shape[0]} images of {shape[1:]}, {classes} classes)"


@dataclass(frozen=True)
class Dataset:
    """A source's images at one size.

    Attributes:
        name: The source's name, or the folder's path, as it was asked for.
        class_names: In the order of the labels.
        splits: By name: `train`, `valid`, `test`.
        fingerprint: Hexadecimal; made of the pixels, labels and class names of `splits`.
        image_size: Height and width in pixels.
        fit: How they were brought to a square.
        digests: By split, a number for each image (n,), equal where the pixels are.
        hashes: By split, one that is nearly equal where the pictures are: `near_duplicates`.
        files: By split, what gives each image's file, relative to the folder; of a folder only.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    fingerprint: str
    image_size: int
    fit: Fit = "crop"
    digests: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    hashes: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    files: dict[str, Callable[[], list[str]]] = field(default_factory=dict, repr=False)


def load(
    name: str,
    image_size: int = 32,
    splits: Sequence[str] = ("train", "test"),
    fit: Fit = "crop",
) -> Dataset:
    """Loads images, decoding them the first time.

    A folder of images holds either `train|valid|test/<class>/*` (without a test folder, valid
    serves as test) or one `<class>/*`, of which about a fifth is test (`division`). Files that
    cannot be decoded are left out, with one line on stderr when that is found.

    Args:
        name: `clothing` (photographs that come with the package; `clothing:large_test` has more to
            test on, `clothing:choices` tests on those for choices), `cinic10`, `cifar10`,
            `tiny_imagenet` (fetched before), `digits`, `synthetic`, `synthetic:N` (N images a
            split), or the path of a folder of PNG, JPEG, WebP, BMP, TIFF or HEIC files.
        image_size: Pixels. Each image is scaled to this height and width; a square image of that
            size keeps its pixels.
        splits: Which splits to load.
        fit: What becomes of an image that is no square: `crop` takes its centre square, `pad` the
            whole with a grey border, `squash` the whole without its proportions.

    Raises:
        UserError: There is no such source, folder or split, or no layout of the two.
    """
    return _loaded(name, find(name), image_size, splits, fit)


def load_for_testing(
    name: str,
    image_size: int = 32,
    split: str = "test",
    trained_on: str = "",
    fit: Fit = "crop",
) -> Dataset:
    """Loads images to test a model on, and training images of the same source beside them.

    A folder needs no training images and may hold one class; of a flat `<class>/*` all images are
    test, unless the model was trained on that very folder.

    Args:
        name: As for `load`, and so is the next.
        image_size: Pixels.
        split: The split to test on.
        trained_on: The fingerprint of the data that the model was trained on.
        fit: As for `load`.

    Raises:
        UserError: There is no such source, folder or split, or no image in it.
    """
    if is_named(name) or _was_trained_on(name, image_size, trained_on, fit):
        return load(name, image_size, tuple(dict.fromkeys(("train", split))), fit)
    source = folders.source_for_testing(_folder(name), split)
    return _loaded(name, source, image_size, (split,), fit)


def count_shared(dataset: Dataset, split: str = "test") -> int:
    """How many images of a split have the pixels of one of the source's training images.

    The training images are loaded where they are not in the data set.
    """
    import numpy as np

    name, train = dataset.name, dataset.digests.get("train")
    if train is None and (is_named(name) or folders.has_training_images(_folder(name))):
        loaded = load_for_testing(name, dataset.image_size, "train", fit=dataset.fit)
        train = loaded.digests["train"]
    return 0 if train is None else int(np.isin(dataset.digests[split], train).sum())


def _was_trained_on(name: str, image_size: int, trained_on: str, fit: Fit) -> bool:
    try:
        return bool(trained_on) and fingerprint(name, image_size, fit=fit) == trained_on
    except UserError:  # nothing can be trained on it
        return False


def _loaded(name: str, source: Source, image_size: int, splits: Sequence[str], fit: Fit) -> Dataset:
    from keras_cnn.data import cache

    check(fit)
    decoded, names = {}, {}
    for split in splits:
        if split not in source.splits:
            raise UserError(f"{name} has no split {split!r}: {nearest(split, source.splits)}")
        listing = source.splits[split]()
        decoded[split] = cache.decoded(
            listing, source.class_names, image_size, title(name), split, fit
        )
        if listing.folder:
            names[split] = partial(_file_names, listing, decoded[split].indices)
    identities = sorted((split, content.fingerprint) for split, content in decoded.items())
    return Dataset(
        name=name,
        class_names=source.class_names,
        splits={
            split: Split(content.images, content.labels, tuple(source.class_names))
            for split, content in decoded.items()
        },
        fingerprint=hashlib.sha256(json.dumps(identities).encode()).hexdigest(),
        image_size=image_size,
        fit=fit,
        digests={split: content.digests for split, content in decoded.items()},
        hashes={split: content.hashes for split, content in decoded.items()},
        files=names,
    )


def _file_names(listing: Listing, indices: np.ndarray) -> list[str]:
    paths, _ = listing.content()
    return [os.path.relpath(paths[index], listing.folder) for index in indices]


def fingerprint(
    name: str,
    image_size: int = 32,
    splits: Sequence[str] = ("train", "test"),
    fit: Fit = "crop",
) -> str:
    """The fingerprint that `load` gives, with its arguments and errors.

    It says what was decoded, not where it lies: a copied or touched folder keeps it. Quick once the
    images are decoded.
    """
    return load(name, image_size, splits, fit).fingerprint  # maps the pixels, reads none


def find(name: str) -> Source:
    """What a name stands for; a source's name goes before a folder of the same name.

    Raises:
        UserError: It is neither a source nor a folder, or has to be fetched first.
    """
    if name in SOURCES or (name.startswith("synthetic:") and name != "synthetic:"):
        return _named(name)
    return folders.source(_folder(name))


def _folder(name: str) -> Path:
    """The folder of a name that is no source's."""
    for written in (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))):
        folder = Path(written).expanduser()
        if name and folder.is_dir():  # an empty name would be the current folder
            return folder
    folder = Path(name).expanduser()
    if "://" in name:
        raise UserError(f"{name} is an address: download it, and give the folder of the images")
    if name and folder.exists():
        raise UserError(f"{name} is a file: give the folder that holds the images")
    similar = folders.similar(folder) if name else None
    if similar and (folder.parent != Path() or not get_close_matches(name, SOURCES, cutoff=0.5)):
        raise UserError(f"no folder {name!r}: did you mean {str(similar)!r}?")
    raise UserError(
        f"no data {name!r}: {nearest(name, SOURCES)}, or give the path of a folder of images"
    )


def is_named(name: str) -> bool:
    """Whether a name is a source's, not the path of a user's folder."""
    return name.partition(":")[0] in SOURCES


def title(name: str) -> str:
    """A short name for people: a folder's own name without the path, on one line."""
    return (
        name if name in SOURCES else printable(Path(os.path.realpath(Path(name).expanduser())).name)
    )


def _named(name: str) -> Source:
    from keras_cnn.data import cifar10, clothing, generated, tiny_imagenet  # they import NumPy

    kind, _, count = name.partition(":")
    if kind == "synthetic":
        return generated.synthetic(_count(name, count or "1000"))
    bundled = {
        "clothing": clothing.source,
        "clothing:large_test": clothing.large_test,
        "clothing:choices": clothing.for_choices,
        "digits": generated.digits,
    }
    if name in bundled:
        return bundled[name]()
    folder = home() / name
    if not folder.is_dir():
        raise UserError(
            f"{name} is not on this machine ({folder}): run `python -m keras_cnn fetch {name}`"
        )
    fetched = {"cifar10": cifar10.source, "tiny_imagenet": tiny_imagenet.source}
    return fetched.get(name, folders.source)(folder)


def _count(name: str, size: str) -> int:
    is_whole = size.isascii() and size.isdigit() and len(size) < 8
    if not is_whole or not 10 <= int(size) <= 1_000_000:
        raise UserError(
            f"{name[:40]!r}: synthetic:N needs a whole number of at least 10 images a split, "
            "and at most 1,000,000"
        )
    return int(size)
