"""Finds the layout of a folder of images, and lists its files."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from keras_cnn.data import formats
from keras_cnn.data.formats import IMAGE_SUFFIXES
from keras_cnn.data.listing import Division, Listing, Source
from keras_cnn.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
LAYOUT = "train/<class>/*.png and test/<class>/*.png, or one <class>/*.png, are expected"
TEST_FRACTION = 0.2
FLAT_SEED = 0

# By class, the folders that hold it: of names that are one in Unicode, such as the two forms of é,
# a file system may hold both.
Classes: TypeAlias = "dict[str, list[Path]]"


def source(folder: Path) -> Source:
    """What to train and test on in a folder.

    `train|valid|test/<class>/*` gives the splits of these names (`val` and `validation` are read
    as `valid`); where there is no test folder, valid serves as test. Any other folder of folders is
    one flat `<class>/*`; scikit-learn splits it, stratified, always in the same way, but for equal
    images, which stay on one side. Classes are sorted by name. Names that begin with a dot are
    passed over.

    Args:
        folder: The folder of images.

    Raises:
        UserError: The layout is neither, or the splits differ in their classes.
    """
    folder = Path(os.path.realpath(folder))  # `resolve` raises on a link to itself
    splits = split_folders(folder)
    if not splits:
        return _flat(folder)
    if "train" not in splits:
        raise UserError(f"{folder} has {splits.popitem()[1].name} but no train: {LAYOUT}")
    if len(splits) == 1:
        raise UserError(
            f"{folder} has train but neither test nor valid with class folders in it: add one, or "
            f"give {splits['train']}, which is then split into train and test"
        )
    note = ""
    if "test" not in splits:
        note = f"there is no test folder with classes in it: {splits['valid'].name} serves as test"
        splits["test"] = splits.pop("valid")
    classes = {split: _classes(at) for split, at in splits.items()}
    _refuse_other_classes(splits, classes)
    _refuse_one_class(splits["train"], classes["train"])
    return Source(
        class_names=tuple(classes["train"]),
        splits={
            split: partial(_listing, folder, at, classes[split]) for split, at in splits.items()
        },
        note=note,
        strays=_strays(folder, splits.values()),
    )


def source_for_testing(folder: Path, split: str) -> Source:
    """What to test a model on in a folder; needs no training images, and may be of one class.

    Args:
        folder: As of `source`; of a flat folder all images are test.
        split: The one split to give.

    Raises:
        UserError: There is no such split, or no image in it.
    """
    folder = Path(os.path.realpath(folder))  # `resolve` raises on a link to itself
    splits = split_folders(folder)
    if not splits and split != "test":
        raise UserError(
            f"{folder} has no split {split!r}: it is one flat <class>/*, whose images all are test"
        )
    splits = splits or {"test": folder}
    if "valid" in splits:
        splits.setdefault("test", splits["valid"])
    if split not in splits:
        raise UserError(f"{folder} has no split {split!r}: {nearest(split, splits)}")
    at = splits[split]
    classes = {name: places for name, places in _classes(at).items() if _has_image(places)}
    if not classes:
        raise UserError(f"no folders of images in {at}: {LAYOUT}")
    whole = Division("all", draw_test) if at == folder else None
    return Source(tuple(classes), {split: partial(_listing, folder, at, classes, whole)})


def split_folders(folder: Path) -> dict[str, Path]:
    """By split, the folder with its classes; none where a folder is flat."""
    return {
        split: folder / name
        for split, names in SPLIT_FOLDERS.items()
        for name in reversed(names)
        if (folder / name).is_dir() and _classes(folder / name)
    }


def similar(path: Path) -> Path | None:
    """The folder that a mistyped path may mean: the nearest name beside its first wrong part."""
    while not path.parent.is_dir():
        path = path.parent
    try:
        beside = [entry.name for entry in _entries(path.parent) if _is(entry.is_dir)]
    except UserError:  # not ours to read
        return None
    close = get_close_matches(path.name, beside, n=1)
    return path.with_name(close[0]) if close else None


def draw_test(labels: np.ndarray, digests: np.ndarray) -> np.ndarray | None:
    """Draws a fifth of a flat folder's images of each class as test, always the same.

    Images of equal pixels stay on one side, unless a class has too few that differ.

    Args:
        labels: (n,) integers.
        digests: (n,) equal where the pixels are.

    Returns:
        Bool (n,); None where a class has too few images.
    """
    import numpy as np

    _, first, number = np.unique(digests, return_index=True, return_inverse=True)
    for originals in (first[number], np.arange(len(labels))):
        is_test = _drawn(labels, originals)
        if is_test is not None:
            break
    return is_test


def _drawn(labels: np.ndarray, originals: np.ndarray) -> np.ndarray | None:
    """Which images are copies of drawn ones; None where a class is lost on one side."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    distinct = np.unique(originals)
    try:
        _, test = train_test_split(
            distinct,
            test_size=TEST_FRACTION,
            stratify=labels[distinct],
            random_state=FLAT_SEED,
        )
    except ValueError:  # a class of one image, or fewer test images than classes
        return None
    is_test = np.isin(originals, test)
    sides = [len(np.unique(labels[side])) for side in (is_test, ~is_test)]
    return is_test if sides == [len(np.unique(labels))] * 2 else None


def _flat(folder: Path) -> Source:
    classes = _classes(folder)
    if not classes:
        raise UserError(f"no folders of images in {folder}: {LAYOUT}")
    if not any(map(_has_image, classes.values())):
        raise UserError(f"no images in the folders of {folder}: {LAYOUT}")
    _refuse_one_class(folder, classes)
    return Source(
        class_names=tuple(classes),
        splits={
            part: partial(_listing, folder, folder, classes, Division(part, draw_test))
            for part in ("train", "test")
        },
        note=f"one flat folder: {TEST_FRACTION:.0%} of each class, drawn with seed {FLAT_SEED}, "
        "are test; equal images are on one side",
    )


def _listing(folder: Path, at: Path, classes: Classes, division: Division | None = None) -> Listing:
    """The images of `at/<class>/*`, sorted by class and name."""
    paths: list[str] = []
    labels: list[int] = []
    strays = [entry for entry in _entries(at) if _is_image(entry)]
    digest = hashlib.sha256(repr((str(at), tuple(classes), division is None)).encode())
    for label, places in enumerate(classes.values()):
        inside = [entry for place in places for entry in _entries(place)]
        images = [entry for entry in inside if _is_image(entry)]
        strays += [entry for entry in inside if not _is_image(entry)]
        if not images:
            raise UserError(f"{places[0]} holds no images ({' '.join(IMAGE_SUFFIXES)})")
        states = [entry.stat() for entry in images]
        seen = [(state.st_size, state.st_mtime_ns) for state in states]
        paths += [entry.path for entry in images]
        labels += [label] * len(images)
        digest.update(repr([*zip((entry.path for entry in images), seen, strict=True)]).encode())
        if any(entry.name.lower().endswith(formats.HEIC_SUFFIXES) for entry in images):
            digest.update(repr(formats.reads_heic()).encode())  # installed later, it reads them
    shown = tuple(os.path.relpath(entry.path, folder) + "/" * _is(entry.is_dir) for entry in strays)
    content = partial(_content, paths, labels)
    return Listing(digest.hexdigest(), content, str(folder), shown, division)


def _content(paths: list[str], labels: list[int]) -> tuple[list[str], np.ndarray]:
    import numpy as np

    return paths, np.array(labels, np.int64)


def _strays(folder: Path, splits: Iterable[Path]) -> tuple[str, ...]:
    """Folders and images beside the folders of the splits."""
    names = {path.name for path in splits}
    beside = [entry for entry in _entries(folder) if entry.name not in names]
    return tuple(
        entry.name + "/" * _is(entry.is_dir)
        for entry in beside
        if _is(entry.is_dir) or _is_image(entry)
    )


def _refuse_other_classes(splits: Mapping[str, Path], classes: Mapping[str, Classes]) -> None:
    """All splits must have the classes of train."""
    for split in splits:
        for has, lacks in (("train", split), (split, "train")):
            missing = sorted(classes[has].keys() - classes[lacks].keys())
            if missing:
                more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                raise UserError(
                    f"{splits[lacks]} lacks {', '.join(missing[:5])}{more}: "
                    f"{splits['train'].name} and {splits[split].name} need the same class folders"
                )


def _refuse_one_class(folder: Path, classes: Classes) -> None:
    if len(classes) < 2:
        raise UserError(f"{folder} has one class only ({next(iter(classes))}): {LAYOUT}")


def _classes(folder: Path) -> Classes:
    """The folders within a folder, by class; links that lead back to where they lie are none."""
    inside = os.path.realpath(folder)
    classes: Classes = {}
    for entry in _entries(folder):
        target = os.path.realpath(entry.path) if entry.is_symlink() else ""
        if not _is(entry.is_dir) or (target and Path(inside).is_relative_to(target)):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:  # no table and no model could hold it
            raise UserError(
                f"{folder}: the folder {entry.name!r} is not named in UTF-8: rename it"
            ) from None
        classes.setdefault(unicodedata.normalize("NFC", entry.name), []).append(Path(entry.path))
    return dict(sorted(classes.items()))


def _has_image(places: Sequence[Path]) -> bool:
    return any(_is_image(entry) for place in places for entry in _entries(place))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What the folder holds, sorted by name, without names that begin with a dot."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    return sorted(seen, key=attrgetter("name"))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and _is(entry.is_file)


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is a file, or a folder; a link to itself is neither."""
    try:
        return kind()
    except OSError:
        return False
