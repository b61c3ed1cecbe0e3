"""Decoded images on disk: one HDF5 file for each split and size, memory-mapped when it is read.

    home()/decoded/<name>-<split>-<image_size>-<key>.h5
        images       uint8 (m, s, s, 3), contiguous, so that NumPy can map it; rows beyond the
                     labels are unused (they were kept for files that turned out damaged)
        labels       int64 (n,)
        sizes        int32 (n, 2), height and width before scaling
        unreadable   JSON, path and reason of each file that was left out
        .fingerprint hash of class names, pixels and labels

The key covers the path, size and modification time of each file, not its content. The folder can be
removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from keras_cnn import files, progress
from keras_cnn.data import decode
from keras_cnn.data.listing import Listing
from keras_cnn.errors import UserError
from keras_cnn.home import home

DECODER_VERSION = 1  # raised by hand when the same file would decode to other pixels


@dataclass(frozen=True)
class Decoded:
    """One split, decoded.

    Attributes:
        images: uint8 (n, s, s, 3), mapped copy-on-write.
        labels: int64 (n,).
        sizes: int32 (n, 2), height and width before scaling.
        unreadable: Path, relative to the source's folder, and reason of each file left out.
        fingerprint: Hexadecimal.
    """

    images: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    unreadable: list[tuple[str, str]]
    fingerprint: str


def decoded(listing: Listing, class_names: Sequence[str], image_size: int, title: str) -> Decoded:
    """The decoded images of a split: from the cache, or decoded into it by one process at a time.

    Args:
        listing: The split.
        class_names: In the order of the labels.
        image_size: Height and width in pixels.
        title: What to call the split in messages and in the file's name.

    Raises:
        UserError: A class has no image that can be decoded, or the cache cannot be written.
    """
    if image_size < 1:
        raise UserError(f"image_size is {image_size}: at least 1 pixel is needed")
    key = json.dumps([DECODER_VERSION, listing.key, list(class_names), image_size])
    name = re.sub(r"[^\w.-]+", "_", title)[-60:]
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = home() / "decoded" / f"{name}-{image_size}-{digest}.h5"
    found = _read(path)
    if found:
        return found
    try:
        waiting = f"waiting for another process that decodes {title}"
        with files.locked(Path(f"{path}.lock"), say=waiting):
            found = _read(path)  # another process may have made it meanwhile
            if not found:
                if path.exists():
                    print(f"{path} is damaged: decoding {title} again", file=sys.stderr)
                _write(path, listing, class_names, image_size, title)
                found = _read(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error}); KERAS_CNN_HOME can name another folder"
        ) from None
    if not found:
        raise UserError(f"{path} is damaged as soon as it is written: check the disk")
    return found


def _read(path: Path) -> Decoded | None:
    """What the file holds; None when it is missing or damaged."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            images, labels = file["images"], file["labels"][:]
            offset, shape = images.id.get_offset(), (len(labels), *images.shape[1:])
            if images.dtype != np.uint8 or len(labels) > len(images) or offset is None:
                return None
            sizes = file["sizes"][:]
            unreadable = [tuple(entry) for entry in json.loads(file["unreadable"][()])]
            fingerprint = file.attrs["fingerprint"]
        # Copy-on-write: torch warns of arrays that cannot be written.
        mapped = np.asarray(np.memmap(path, np.uint8, "c", offset, shape))
        return Decoded(mapped, labels, sizes, unreadable, fingerprint)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError):
        return None


def _write(
    path: Path, listing: Listing, class_names: Sequence[str], image_size: int, title: str
) -> None:
    items, all_labels = listing.content()
    digest = hashlib.sha256(json.dumps([list(class_names), image_size]).encode())
    kept, sizes, unreadable = [], [], []
    with (
        files.replacing(path, alone=True) as partial,
        h5py.File(partial, "w") as file,
        progress.bar(f"decoding {title}", len(items)) as advance,
    ):
        images = file.create_dataset("images", (len(items), image_size, image_size, 3), np.uint8)
        row = 0
        for batch in decode.batches(items, image_size):
            if len(batch.images):
                images[row : row + len(batch.images)] = batch.images
            row += len(batch.images)
            digest.update(batch.images)
            kept.append(batch.indices)
            sizes.append(batch.sizes)
            unreadable += [
                (os.path.relpath(file_path, listing.folder), reason)
                for file_path, reason in batch.unreadable
            ]
            advance(row + len(unreadable))
        labels = all_labels[np.concatenate(kept)]
        _refuse_lost_classes(labels, all_labels, class_names, title, unreadable)
        digest.update(labels.astype("<i8"))
        file["labels"] = labels
        file["sizes"] = np.concatenate(sizes)
        file["unreadable"] = json.dumps(unreadable)
        file.attrs["fingerprint"] = digest.hexdigest()
    if unreadable:
        print(f"{title}: left out {_named(unreadable)}", file=sys.stderr, flush=True)


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
            f"{_named(unreadable)}"
        )


def _named(unreadable: Sequence[tuple[str, str]], most: int = 3) -> str:
    """`2 unreadable files: a.png (empty file), b.png (truncated)`."""
    named = ", ".join(f"{path} ({reason})" for path, reason in unreadable[:most])
    files = "file" if len(unreadable) == 1 else "files"
    return f"{len(unreadable)} unreadable {files}: {named}{', …' if len(unreadable) > most else ''}"
