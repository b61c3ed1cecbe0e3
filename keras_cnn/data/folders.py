"""Finds the layout of a folder of images, and lists its files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn.data.listing import Listing, Source
from keras_cnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
LAYOUT = "train/<class>/*.png and test/<class>/*.png, or one <class>/*.png, are expected"
TEST_FRACTION = 0.2
FLAT_SEED = 0


def source(folder: Path) -> Source:
    """Finds a folder's layout.

    `train|valid|test/<class>/*` gives the splits of these names (`val` and `validation` are read
    as `valid`); where there is no test folder, valid serves as test. Any other folder of folders is
    one flat `<class>/*`; scikit-learn splits it, stratified, always in the same way.
    Classes are sorted by name. Names that begin with a dot are passed over.

    Args:
        folder: The folder of images.

    Raises:
        UserError: The layout is neither, or the splits differ in their classes.
    """
    folder = folder.resolve()
    found = {
        split: folder / name
        for split, names in SPLIT_FOLDERS.items()
        for name in reversed(names)
        if _subfolders(folder / name)
    }
    if not found:
        return _flat(folder)
    if "train" not in found:
        raise UserError(f"{folder} has {found.popitem()[1].name} but no train: {LAYOUT}")
    if len(found) == 1:
        raise UserError(
            f"{folder} has train but neither test nor valid with class folders in it: add one, or "
            f"give {found['train']}, which is then split into train and test"
        )
    note = ""
    if "test" not in found:
        note = f"there is no test folder with classes in it: {found['valid'].name} serves as test"
        found["test"] = found.pop("valid")
    class_names = _same_classes(found)
    names = {at.name for at in found.values()}
    splits = {
        split: partial(_list_split, folder, at, class_names, names) for split, at in found.items()
    }
    return Source(class_names, splits, note)


def similar(path: Path) -> Path | None:
    """The folder that a mistyped path may mean: the nearest name beside its first wrong part."""
    while not path.parent.is_dir():
        path = path.parent
    try:
        beside = [entry.name for entry in _entries(path.parent) if entry.is_dir()]
    except UserError:  # not ours to read
        return None
    close = get_close_matches(path.name, beside, n=1)
    return path.with_name(close[0]) if close else None


@dataclass(frozen=True)
class _Files:
    paths: list[str]
    labels: list[int]
    strays: tuple[str, ...]
    key: str


def _list_split(
    folder: Path, at: Path, class_names: tuple[str, ...], split_folders: set[str]
) -> Listing:
    files = _list_files(folder, at, class_names)
    beside = [
        _shown(entry)
        for entry in _entries(folder)
        if entry.name not in split_folders and (entry.is_dir() or _is_image(entry))
    ]
    return Listing(files.key, partial(_all, files), str(folder), (*beside, *files.strays))


def _list_files(folder: Path, at: Path, class_names: tuple[str, ...]) -> _Files:
    """The images of `at/<class>/*`, sorted by class and name."""
    paths: list[str] = []
    labels: list[int] = []
    strays = [os.path.relpath(entry.path, folder) for entry in _entries(at) if _is_image(entry)]
    digest = hashlib.sha256(repr((str(at), class_names)).encode())
    for label, class_name in enumerate(class_names):
        seen = []
        for entry in _entries(at / class_name):
            if not _is_image(entry):
                strays.append(os.path.join(os.path.relpath(at / class_name, folder), _shown(entry)))
                continue
            stat = entry.stat()
            seen.append((entry.name, stat.st_size, stat.st_mtime_ns))
            paths.append(entry.path)
        if not seen:
            raise UserError(f"{at / class_name} holds no images ({' '.join(IMAGE_SUFFIXES)})")
        labels += [label] * len(seen)
        digest.update(repr(seen).encode())
    return _Files(paths, labels, tuple(strays), digest.hexdigest())


def _flat(folder: Path) -> Source:
    class_names = tuple(_subfolders(folder))
    if not class_names:
        raise UserError(f"no folders of images in {folder}: {LAYOUT}")
    if not any(_is_image(entry) for name in class_names for entry in _entries(folder / name)):
        raise UserError(f"no images in the folders of {folder}: {LAYOUT}")
    _refuse_one_class(folder, class_names)

    def listed(split: str) -> Listing:
        files = _list_files(folder, folder, class_names)
        return Listing(
            f"{files.key} flat {split}", partial(_drawn, files, split), str(folder), files.strays
        )

    share = round(100 * TEST_FRACTION)
    note = f"one flat folder: {share} % of each class, drawn with seed {FLAT_SEED}, are test"
    return Source(class_names, {split: partial(listed, split) for split in ("train", "test")}, note)


def _all(files: _Files) -> tuple[list[str], np.ndarray]:
    import numpy as np

    return files.paths, np.array(files.labels, np.int64)


def _drawn(files: _Files, split: str) -> tuple[list[str], np.ndarray]:
    """One side of the stratified split of a flat folder, in the order of the listing."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    labels = np.array(files.labels, np.int64)
    try:
        train, test = train_test_split(
            np.arange(len(labels)),
            test_size=TEST_FRACTION,
            stratify=labels,
            random_state=FLAT_SEED,
        )
        all_tested = len(np.unique(labels[test])) == len(np.unique(labels))
    except ValueError:  # a class of one image, or fewer test images than classes
        all_tested = False
    if not all_tested:
        fewest = np.bincount(labels).min()
        raise UserError(
            f"too few images to set {round(100 * TEST_FRACTION)} % aside for testing: the smallest "
            f"class has {fewest}; give each class at least 5, or make train and test folders"
        )
    chosen = np.sort(train if split == "train" else test)
    return [files.paths[index] for index in chosen], labels[chosen]


def _same_classes(found: dict[str, Path]) -> tuple[str, ...]:
    """The class names, which all splits must share."""
    classes = {split: _subfolders(at) for split, at in found.items()}
    expected = classes["train"]
    for split, names in classes.items():
        for has, lacks in ((expected, split), (names, "train")):
            missing = sorted(set(has) - set(classes[lacks]))
            if missing:
                raise UserError(
                    f"{found[lacks]} lacks {_some(missing)}: "
                    f"{found['train'].name} and {found[split].name} need the same class folders"
                )
    _refuse_one_class(found["train"], tuple(expected))
    return tuple(expected)


def _refuse_one_class(folder: Path, class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        raise UserError(f"{folder} has one class only ({class_names[0]}): {LAYOUT}")


def _some(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    for name in names:
        if not _is_text(name):  # no table and no model could hold it
            raise UserError(f"{folder}: the folder {name!r} is not named in UTF-8: rename it")
    return names


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What the folder holds, sorted by name, without names that begin with a dot."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    return sorted(seen, key=attrgetter("name"))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file()


def _shown(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if entry.is_dir() else entry.name
