"""Which folders within a folder of images are its splits, and which are its classes."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

from keras_cnn.data.formats import IMAGE_SUFFIXES
from keras_cnn.errors import UserError

# Written in any case, with or without `set`, `data` or `images` behind: `Training_Set`.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
OF_SYSTEMS = {"__MACOSX"}  # what packs and serves files leaves among them

# By class, the folders that hold it: of names that are one in Unicode, such as the two forms of é,
# a file system may hold both.
Classes: TypeAlias = "dict[str, list[Path]]"


class Level(NamedTuple):
    """The folders that are classes.

    Attributes:
        classes: By name, sorted; below groups a name is a path, `animals/cat`.
        depth: How many levels of groups lie above the classes.
        passed: The folders above the classes, which hold none of their images.
    """

    classes: Classes
    depth: int
    passed: list[Path]


class Found(NamedTuple):
    """What lies below a class's folder.

    Attributes:
        images: The image files, those of the folder itself before those of folders in it.
        strays: Other files, and folders without an image.
        deeper: Folders within it that hold images.
    """

    images: list[os.DirEntry[str]]
    strays: list[os.DirEntry[str]]
    deeper: list[os.DirEntry[str]]


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for: `train`, `valid`, `test`, or none of them."""
    letters = re.sub(r"[\W_]+", "", name.casefold())
    plain = re.sub(r"(set|data|images)$", "", letters)
    for split, names in SPLIT_NAMES.items():
        if letters in names or plain in names:
            return split
    return None


def split_folders(folder: Path) -> dict[str, Path]:
    """By split, the folder with its class folders; none where a folder is flat.

    Raises:
        UserError: Two folders are the same split.
    """
    found: dict[str, list[Path]] = {split: [] for split in SPLIT_NAMES}
    for entry in entries(folder):
        split = split_of(entry.name)
        if split and is_folder(entry) and _inner(Path(entry.path)):
            found[split].append(Path(entry.path))
    for split, places in found.items():
        if len({os.path.realpath(place) for place in places}) > 1:
            names = " and ".join(place.name for place in places)
            raise UserError(
                f"{folder}: {names} are one split, {split}: put their images into one of them, or "
                "move the others elsewhere"
            )
    return {split: places[0] for split, places in found.items() if places}


def unpacked(folder: Path) -> Path:
    """The folder, or the one in it with folders of its own, where it holds nothing but that."""
    while not split_folders(folder):
        inside = entries(folder)
        if len(inside) != 1 or not _inner(folder) or not _inner(Path(inside[0].path)):
            break
        folder = Path(inside[0].path)
    return folder


def classes(at: Path, depth: int | None = None) -> Level:
    """The folders within a folder, each a class with all images below it.

    Where none of them holds an image itself, they may be groups, whose folders are the classes:
    `animals/cat`, `animals/dog` and `things/cup`. They are, unless half of the names below them or
    more occur in several, as those of `cat/monday`, `cat/friday`, `dog/monday` and `dog/friday`
    do. Likewise below groups.

    Args:
        at: A flat folder, or that of a split.
        depth: Levels of groups, as another split has them; None finds out.

    Raises:
        UserError: A name is not in UTF-8, or splits lie below the classes.
    """
    level = _inner(at)
    passed, reached = [at], 0
    while level and reached != depth:
        if depth is None and _any_holds_an_image(level):
            break
        below = _below(level)
        if depth is None and not _are_groups(level, below):
            break
        passed += [place for places in level.values() for place in places]
        named: Classes = {}
        for group, inner in below.items():
            for name, places in inner.items():
                named[f"{group}/{name}"] = places
            if not inner:
                named[group] = level[group]
        level, reached = named, reached + 1
    return Level(dict(sorted(level.items())), reached, passed)


def below(place: Path) -> Found:
    """All images of a class's folder and of the folders in it."""
    found = Found([], [], [])
    _search(place, (os.path.realpath(place),), found)
    return found


def has_image(places: Sequence[Path]) -> bool:
    """Whether there is an image in folders or below them."""
    return any(below(place).images for place in places)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What the folder holds, sorted by name, without names that begin with a dot."""
    try:
        with os.scandir(folder) as found:
            seen = [
                entry
                for entry in found
                if not entry.name.startswith(".") and entry.name not in OF_SYSTEMS
            ]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    return sorted(seen, key=attrgetter("name"))


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file with an image's ending."""
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and _is(entry.is_file)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    return _is(entry.is_dir)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself is neither file nor folder
        return False


def _inner(folder: Path) -> Classes:
    """The folders within a folder, by name; links that lead back to where they lie are none."""
    inside = os.path.realpath(folder)
    found: Classes = {}
    for entry in entries(folder):
        target = os.path.realpath(entry.path) if entry.is_symlink() else ""
        if not is_folder(entry) or (target and Path(inside).is_relative_to(target)):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:  # no table and no model could hold it
            raise UserError(
                f"{folder}: the folder {entry.name!r} is not named in UTF-8: rename it"
            ) from None
        found.setdefault(unicodedata.normalize("NFC", entry.name), []).append(Path(entry.path))
    return found


def _any_holds_an_image(level: Classes) -> bool:
    return any(is_image(entry) for places in level.values() for p in places for entry in entries(p))


def _below(level: Classes) -> dict[str, Classes]:
    """By folder of a level, the folders within it."""
    found: dict[str, Classes] = {}
    for name, places in level.items():
        found[name] = {}
        for place in places:
            for inner, more in _inner(place).items():
                found[name].setdefault(inner, []).extend(more)
    return found


def _are_groups(level: Classes, below: dict[str, Classes]) -> bool:
    """Whether the folders of a level, which hold no images, are groups of classes."""
    names = Counter(name for inner in below.values() for name in inner)
    if not any(has_image(places) for inner in below.values() for places in inner.values()):
        return False
    if len(level) > 1 and {"train", "test"} <= {split_of(name) for name in names}:
        group = next(group for group, inner in below.items() if inner)
        raise UserError(
            f"{level[group][0]} holds {' and '.join(below[group])}: put the splits above the "
            "classes, train/<class>/* and test/<class>/*"
        )
    shared = sum(count > 1 for count in names.values())
    return 2 * shared < len(names)


def _search(folder: Path, above: tuple[str, ...], found: Found) -> None:
    """Adds what a folder holds; `above` are the real paths of it and of those it was entered by."""
    inside = entries(folder)
    found.images.extend(entry for entry in inside if is_image(entry))
    for entry in inside:
        if is_image(entry):
            continue
        count = len(found.images)
        if is_folder(entry):
            real = os.path.realpath(entry.path)
            if not any(Path(place).is_relative_to(real) for place in above):  # it leads back
                more = Found([], [], [])
                _search(Path(entry.path), (*above, real), more)
                if more.images:
                    found.images.extend(more.images)
                    found.strays.extend(more.strays)
                    found.deeper.extend([entry, *more.deeper])
        if len(found.images) == count:
            found.strays.append(entry)
