"""What a folder of images has to train and to test on, and its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn.data import formats, layout
from keras_cnn.data.layout import Level
from keras_cnn.data.listing import Division, Listing, Source
from keras_cnn.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

LAYOUT = "train/<class>/*.png and test/<class>/*.png, or one <class>/*.png, are expected"
NAMED = 3  # examples given in a line


def source(folder: Path) -> Source:
    """What to train and test on in a folder.

    `train|valid|test/<class>/*` gives the splits of these names, in any of their usual spellings
    (`layout.SPLIT_NAMES`); where there is no test folder, valid serves as test. Any other folder of
    folders is one flat `<class>/*`, about a fifth of which is test (`division`). A class has all
    images below its folder; `layout.classes` tells which folders are classes. They are sorted by
    name. Names that begin with a dot are passed over.

    Args:
        folder: The folder of images.

    Raises:
        UserError: The layout is neither, or the splits differ in their classes.
    """
    folder = Path(os.path.realpath(folder))  # `resolve` raises on a link to itself
    inside = layout.unpacked(folder)
    splits = layout.split_folders(inside)
    if not splits:
        return _flat(folder, inside)
    if "train" not in splits:
        raise UserError(f"{inside} has {splits.popitem()[1].name} but no train: {LAYOUT}")
    beside = _beside(inside, splits)
    if len(splits) == 1:
        raise UserError(
            f"{inside} has train but neither test nor valid with class folders in it: add one, or "
            f"give {splits['train']}, which is then split into train and test"
        )
    notes = []
    if "test" not in splits:
        notes += [
            f"there is no test folder with classes in it: {splits['valid'].name} serves as test"
        ]
        splits["test"] = splits.pop("valid")
    levels = {"train": layout.classes(splits["train"])}
    levels |= {
        split: layout.classes(at, levels["train"].depth)
        for split, at in splits.items()
        if split != "train"
    }
    _refuse_other_classes(splits, levels)
    _refuse_one_class(splits["train"], levels["train"])
    told = {"train": [*_of_groups(levels["train"]), *_left_out(beside, splits)]}
    return Source(
        class_names=tuple(levels["train"].classes),
        splits={
            split: partial(_listing, folder, at, levels[split], told.get(split, ()))
            for split, at in splits.items()
        },
        notes=tuple(notes),
        strays=tuple(entry.name + "/" * layout.is_folder(entry) for entry in beside),
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
    inside = layout.unpacked(folder)
    splits = layout.split_folders(inside)
    if not splits and split != "test":
        raise UserError(
            f"{folder} has no split {split!r}: it is one flat <class>/*, whose images all are test"
        )
    splits = splits or {"test": inside}
    if "valid" in splits:
        splits.setdefault("test", splits["valid"])
    if split not in splits:
        raise UserError(f"{folder} has no split {split!r}: {nearest(split, splits)}")
    at = splits[split]
    depth = layout.classes(splits["train"]).depth if "train" in splits else None
    level = layout.classes(at, depth)
    classes = {name: places for name, places in level.classes.items() if layout.has_image(places)}
    if not classes:
        raise UserError(f"no folders of images in {at}: {LAYOUT}")
    level = level._replace(classes=classes)
    whole = Division("all", _draw_test) if at == inside else None
    told = _of_groups(level)
    return Source(tuple(classes), {split: partial(_listing, folder, at, level, told, whole)})


def has_training_images(folder: Path) -> bool:
    """Whether a folder has a train split."""
    return "train" in layout.split_folders(layout.unpacked(Path(os.path.realpath(folder))))


def similar(path: Path) -> Path | None:
    """The folder that a mistyped path may mean: the nearest name beside its first wrong part."""
    while not path.parent.is_dir():
        path = path.parent
    try:
        beside = [entry.name for entry in layout.entries(path.parent) if layout.is_folder(entry)]
    except UserError:  # not ours to read
        return None
    close = get_close_matches(path.name, beside, n=1)
    return path.with_name(close[0]) if close else None


def _flat(folder: Path, at: Path) -> Source:
    level = layout.classes(at)
    if not level.classes:
        raise UserError(f"no folders of images in {at}: {LAYOUT}")
    if not any(map(layout.has_image, level.classes.values())):
        raise UserError(f"no images in the folders of {at}: {LAYOUT}")
    _refuse_one_class(at, level)
    told = _of_groups(level)
    return Source(
        class_names=tuple(level.classes),
        splits={
            part: partial(_listing, folder, at, level, told, Division(part, _draw_test))
            for part in ("train", "test")
        },
        notes=(
            "one flat folder: about a fifth of each class are test, each image by its own look, so "
            "that others may join or leave; equal and nearly equal images are on one side",
        ),
    )


def _listing(
    folder: Path, at: Path, level: Level, told: Iterable[str], division: Division | None = None
) -> Listing:
    """The images below class folders, sorted by class, folder and name."""
    paths: list[str] = []
    labels: list[int] = []
    deeper: list[str] = []
    strays = [
        one for passed in level.passed for one in layout.entries(passed) if layout.is_image(one)
    ]
    names = tuple(level.classes)
    digest = hashlib.sha256(repr((str(at), names, division is None)).encode())
    for label, places in enumerate(level.classes.values()):
        found = [layout.below(place) for place in places]
        images = [entry for one in found for entry in one.images]
        strays += [entry for one in found for entry in one.strays]
        deeper += [os.path.relpath(entry.path, at) for one in found for entry in one.deeper]
        if not images:
            raise UserError(f"{places[0]} holds no images ({' '.join(formats.IMAGE_SUFFIXES)})")
        states = [entry.stat() for entry in images]
        seen = [(state.st_size, state.st_mtime_ns) for state in states]
        paths += [entry.path for entry in images]
        labels += [label] * len(images)
        digest.update(repr([*zip((entry.path for entry in images), seen, strict=True)]).encode())
        if any(entry.name.lower().endswith(formats.HEIC_SUFFIXES) for entry in images):
            digest.update(repr(formats.reads_heic()).encode())  # installed later, it reads them
    shown = tuple(
        os.path.relpath(entry.path, folder) + "/" * layout.is_folder(entry) for entry in strays
    )
    notes = [*told]
    if deeper:
        notes += [f"images in {_some(deeper)} are of the class whose folder that lies in"]
    content = partial(_content, paths, labels)
    return Listing(digest.hexdigest(), content, str(folder), shown, division, tuple(notes))


def _draw_test(labels: np.ndarray, hashes: np.ndarray) -> np.ndarray | None:
    """As `division.draw_test`."""
    from keras_cnn.data import division  # it imports NumPy

    return division.draw_test(labels, hashes)


def _content(paths: list[str], labels: list[int]) -> tuple[list[str], np.ndarray]:
    import numpy as np

    return paths, np.array(labels, np.int64)


def _beside(folder: Path, splits: Mapping[str, Path]) -> list[os.DirEntry[str]]:
    """Folders and images beside the folders of the splits."""
    names = {path.name for path in splits.values()}
    return [
        entry
        for entry in layout.entries(folder)
        if entry.name not in names and (layout.is_folder(entry) or layout.is_image(entry))
    ]


def _left_out(beside: Iterable[os.DirEntry[str]], splits: Mapping[str, Path]) -> list[str]:
    """A line on the folders of images beside the splits; none where there are none."""
    names = [
        f"{entry.name}/"
        for entry in beside
        if layout.is_folder(entry) and layout.has_image([Path(entry.path)])
    ]
    if not names:
        return []
    others = ", ".join(path.name for path in splits.values())
    return [
        f"the images of {_some(names)} beside {others} are left out: to use them, put them into "
        f"the class folders of {splits['train'].name}"
    ]


def _of_groups(level: Level) -> list[str]:
    """A line that says why classes have paths for names; none where they have not."""
    if not level.depth:
        return []
    groups = dict.fromkeys(name.rpartition("/")[0] for name in level.classes)
    return [
        f"{_some([*filter(None, groups)])} hold no images themselves and are read as groups of "
        f"classes, such as {next(iter(level.classes))}"
    ]


def _some(names: list[str]) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _refuse_other_classes(splits: Mapping[str, Path], levels: Mapping[str, Level]) -> None:
    """All splits must have the classes of train."""
    for split in splits:
        for has, lacks in (("train", split), (split, "train")):
            missing = sorted(levels[has].classes.keys() - levels[lacks].classes.keys())
            if missing:
                more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                raise UserError(
                    f"{splits[lacks]} lacks {', '.join(missing[:5])}{more}: "
                    f"{splits['train'].name} and {splits[split].name} need the same class folders"
                )


def _refuse_one_class(folder: Path, level: Level) -> None:
    if len(level.classes) < 2:
        raise UserError(f"{folder} has one class only ({next(iter(level.classes))}): {LAYOUT}")
