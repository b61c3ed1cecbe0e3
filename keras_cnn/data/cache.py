"""Decoded images on disk: a file for each split, size and fit, memory-mapped when it is read.

    scratch()/decoded/<name>-<image_size>-<fit>-<key>.images
        a line of JSON: `shape` of the images; `parts`, by name the first image, the one after the
            last, and a fingerprint of class names, pixels and labels; `unreadable`, path and
            reason of each file that was left out
        labels       int64 (n,)
        sizes        int32 (n, 2), height and width before scaling
        indices      int64 (n,), which file or array each image was
        digests      uint64 (n,), of each image's pixels (`copies.digests`)
        hashes       uint64 (n,), of each picture's look (`near_duplicates.hashes`)
        images       uint8 (n, s, s, 3)
        a seal, which tells whether a bit has changed since

A split that is drawn from a folder is a part of a file that holds the whole folder. The key covers
the path, size and modification time of each image file, not its content. The folder can be removed
at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from keras_cnn import files, progress
from keras_cnn.data import copies, decode
from keras_cnn.data.fit import Fit
from keras_cnn.data.listing import Division, Listing
from keras_cnn.errors import UserError, printable
from keras_cnn.home import scratch

# Raised by hand when the same file would have other pixels or another hash, or be kept else.
DECODER_VERSION = 4
ARRAYS = {  # of an image
    "labels": ("<i8", ()),
    "sizes": ("<i4", (2,)),
    "indices": ("<i8", ()),
    "digests": ("<u8", ()),
    "hashes": ("<u8", ()),
}
WHOLE = "all"
BLOCK = 1024  # images copied together


@dataclass(frozen=True)
class Decoded:
    """One split, decoded.

    Attributes:
        images: uint8 (n, s, s, 3), mapped copy-on-write.
        labels: int64 (n,).
        sizes: int32 (n, 2), height and width before scaling.
        indices: int64 (n,), which item of the listing's content each image was.
        digests: uint64 (n,), equal where the pixels are.
        hashes: uint64 (n,), nearly equal where the pictures are; the same at any size and fit.
        unreadable: Path, relative to the source's folder, and reason of each file left out.
        fingerprint: Hexadecimal.
    """

    images: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray
    unreadable: list[tuple[str, str]]
    fingerprint: str


def decoded(
    listing: Listing,
    class_names: Sequence[str],
    image_size: int,
    source: str,
    split: str,
    fit: Fit = "crop",
) -> Decoded:
    """The decoded images of a split: from the cache, or decoded into it by one process at a time.

    Args:
        listing: The split.
        class_names: In the order of the labels.
        image_size: Height and width in pixels.
        source: What to call the source in messages and in the file's name.
        split: The split's name.
        fit: How images are brought to a square, as `image_file.decode_image` does.

    Raises:
        UserError: A class has no image that can be decoded, or the cache cannot be written.
    """
    if image_size < 1:
        raise UserError(f"image_size is {image_size}: at least 1 pixel is needed")
    title = source if listing.division else f"{source}-{split}"
    path = _path(listing, class_names, image_size, fit, title)
    part = listing.division.part if listing.division else WHOLE
    try:
        if not _is_intact(path):
            waiting = f"waiting for another process that decodes {title}"
            with files.locked(Path(f"{path}.lock"), say=waiting):
                if not _is_intact(path):  # another process may have made it meanwhile
                    if path.exists():
                        line = f"{path} is damaged: decoding {title} again"
                        print(printable(line), file=sys.stderr, flush=True)
                    _write(path, listing, class_names, image_size, fit, title)
            if not _is_intact(path):
                raise UserError(f"{path} is damaged as soon as it is written: check the disk")
        return _read(path, part)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written or read ({error.strerror}); KERAS_CNN_HOME can name another "
            "folder"
        ) from None


def _path(
    listing: Listing, class_names: Sequence[str], image_size: int, fit: Fit, title: str
) -> Path:
    key = json.dumps([DECODER_VERSION, listing.key, list(class_names), image_size, fit])
    name = re.sub(r"[^\w.-]+", "_", title)[-60:]
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return scratch() / "decoded" / f"{name}-{image_size}-{fit}-{digest}.images"


def _is_intact(path: Path) -> bool:
    """Whether all of the file is as it was written; looked at once a process."""
    try:
        state = path.stat()
    except OSError:
        return False
    return _intact(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache
def _intact(path: Path, *_state: int) -> bool:
    return files.intact(path)


def _read(path: Path, part: str) -> Decoded:
    with path.open("rb") as file:
        head = json.loads(file.readline())
        count = head["shape"][0]
        arrays = {}
        for name, (kind, shape) in ARRAYS.items():
            size = count * np.dtype((kind, shape)).itemsize
            arrays[name] = np.frombuffer(file.read(size), kind).reshape(count, *shape)
        offset = file.tell()
    if part not in head["parts"]:
        raise UserError(
            f"too few images to set some aside for testing: the smallest class has "
            f"{np.bincount(arrays['labels']).min()}; give each class at least 2, or make train and "
            "test folders"
        )
    start, stop, fingerprint = head["parts"][part]
    # Copy-on-write: torch warns of arrays that cannot be written.
    images = np.asarray(np.memmap(path, np.uint8, "c", offset, tuple(head["shape"])))
    unreadable = [tuple(entry) for entry in head["unreadable"]]
    cut = {name: array[start:stop].copy() for name, array in arrays.items()}
    return Decoded(images[start:stop], **cut, unreadable=unreadable, fingerprint=fingerprint)


def _write(
    path: Path,
    listing: Listing,
    class_names: Sequence[str],
    image_size: int,
    fit: Fit,
    title: str,
) -> None:
    items, all_labels = listing.content()
    indices, sizes, hashes, unreadable = [], [], [], []
    with tempfile.TemporaryFile(dir=path.parent) as unordered:  # the order is not known yet
        with progress.bar(f"decoding {title}", len(items)) as advance:
            done = 0
            for batch in decode.batches(items, image_size, fit, hashed=True):
                unordered.write(batch.images)
                indices.append(batch.indices)
                sizes.append(batch.sizes)
                hashes.append(batch.hashes)
                unreadable += [
                    (os.path.relpath(file_path, listing.folder), reason)
                    for file_path, reason in batch.unreadable
                ]
                done += len(batch.indices)
                advance(done + len(unreadable))
        unordered.flush()
        chosen = np.concatenate(indices)
        labels = all_labels[chosen]
        _refuse_lost_classes(labels, all_labels, class_names, title, unreadable)
        shape = (len(labels), image_size, image_size, 3)
        images = np.memmap(unordered, np.uint8, "r", shape=shape)
        kept = labels, np.concatenate(sizes), chosen, copies.digests(images), np.concatenate(hashes)
        arrays = dict(zip(ARRAYS, kept, strict=True))
        head = json.dumps([list(class_names), image_size]).encode()
        _store(path, images, arrays, listing.division, head, unreadable)
    for note in listing.notes:
        print(printable(f"{title}: {note}"), file=sys.stderr, flush=True)
    left_out = {"unreadable": _reasons(unreadable), "other": listing.strays}
    if told := [_listed(what, named) for what, named in left_out.items() if named]:
        print(f"{title}: left out {'; '.join(told)}", file=sys.stderr, flush=True)


def _store(
    path: Path,
    images: np.ndarray,
    arrays: dict[str, np.ndarray],
    division: Division | None,
    head: bytes,
    unreadable: list[tuple[str, str]],
) -> None:
    """Writes the file, its parts one after the other; `head` begins their fingerprints."""
    order, spans = _parts(division, arrays["labels"], arrays["hashes"])
    parts = {}
    for name, (start, stop) in spans.items():
        digest = hashlib.sha256(head)
        for at in range(start, stop, BLOCK):
            digest.update(images[order[at : min(at + BLOCK, stop)]])
        digest.update(arrays["labels"][order[start:stop]].astype("<i8"))
        parts[name] = start, stop, digest.hexdigest()
    described = {"shape": images.shape, "parts": parts, "unreadable": unreadable}
    with files.replacing(path) as partial:
        with partial.open("wb") as file:
            file.write(json.dumps(described).encode() + b"\n")
            for name, (kind, _) in ARRAYS.items():
                file.write(np.ascontiguousarray(arrays[name][order], kind))
            for at in range(0, len(order), BLOCK):
                file.write(images[order[at : at + BLOCK]])
        files.seal(partial)


def _parts(
    division: Division | None, labels: np.ndarray, hashes: np.ndarray
) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """The order of the images in the file, and where in it each part begins and ends."""
    count = len(labels)
    whole = {WHOLE: (0, count)}
    is_test = division.draw(labels, hashes) if division else None
    if is_test is None:
        return np.arange(count), whole
    middle = count - int(is_test.sum())
    parts = whole | {"train": (0, middle), "test": (middle, count)}
    return np.argsort(is_test, kind="stable"), parts


def _refuse_lost_classes(
    labels: np.ndarray,
    all_labels: np.ndarray,
    class_names: Sequence[str],
    title: str,
    unreadable: Sequence[tuple[str, str]],
) -> None:
    lost = np.setdiff1d(all_labels, labels)
    if len(lost):
        raise UserError(
            f"{title}: no image of class {class_names[lost[0]]!r} can be decoded; "
            f"{_listed('unreadable', _reasons(unreadable))}"
        )


def _reasons(unreadable: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{path} ({reason})" for path, reason in unreadable]


def _listed(what: str, named: Sequence[str], most: int = 3) -> str:
    """`2 unreadable files: a.png (empty file), b.png (truncated)`."""
    files = "file" if len(named) == 1 else "files"
    more = ", …" if len(named) > most else ""
    return printable(f"{len(named)} {what} {files}: {', '.join(named[:most])}{more}")
