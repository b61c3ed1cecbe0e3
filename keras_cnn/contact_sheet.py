"""A page of small photographs by what a model says of them: one HTML file, on a phone too."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from keras_cnn import files, pages
from keras_cnn.data import decode
from keras_cnn.prediction import Predictions

SIDE = 128  # pixels of a photograph's longer side
QUALITY = 70  # of a JPEG: about 4 KB each
MOST = 2000  # photographs: 10 MB, which a phone still scrolls
STYLE = """
.photos { display: grid; gap: 1rem 0.8rem; margin: 1rem 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); }
.photos li { min-width: 0; font-size: 0.85rem; line-height: 1.35; overflow-wrap: anywhere; }
.photos img { display: block; width: 8rem; max-width: 100%; height: auto; border-radius: 0.3rem;
  background: var(--stripe); }
.file { display: block; color: var(--soft); font-size: 0.8rem; }
"""


def write(predictions: Predictions, path: Path, most: int = MOST) -> None:
    """Writes the page: the photographs of each class, the most certain first.

    Args:
        predictions: Of at least one image; the files are read again.
        path: The HTML file, replaced as a whole.
        most: Photographs that are shown; of each class as many as of the others, or all it has.
    """
    best = predictions.probabilities.argmax(axis=1)
    sure = predictions.probabilities.max(axis=1)
    places = {
        label: found[np.argsort(-sure[found], kind="stable")]
        for label in range(len(predictions.class_names))
        if len(found := np.flatnonzero(best == label))
    }
    room = _room([len(found) for found in places.values()], most)
    shown = {label: found[:room] for label, found in places.items()}
    photographs = _photographs(predictions.paths, np.concatenate([*shown.values()]))
    count = len(predictions.paths)
    title = f"{count:,} image{'s' * (count > 1)} by class"
    contents, parts = [], [f"<h1>{title}</h1>"]
    parts.append("<p>Of each class the most certain first, with their probability.</p>")
    for label, found in places.items():
        name = predictions.class_names[label]
        contents.append(pages.Heading(f"class-{label}", f"{name} ({len(found):,})"))
        parts.append(f'<h2 id="class-{label}">{pages.name(name)}: {len(found):,}</h2>')
        if len(found) > room:
            parts.append(f"<p>The {room:,} most certain of them:</p>")
        items = (
            _item(predictions.paths[place], float(sure[place]), photographs.get(place, ""))
            for place in shown[label].tolist()
        )
        parts.append(f'<ul class="photos">\n{"".join(items)}</ul>')
    if predictions.unreadable:
        contents.append(pages.Heading("unreadable", "Not read"))
        parts.append('<h2 id="unreadable">Not read</h2>\n<ul>')
        parts += [
            f"<li>{pages.name(file)}: {pages.text(reason)}</li>"
            for file, reason in predictions.unreadable
        ]
        parts.append("</ul>")
    files.write_text(path, pages.document(title, contents, "\n".join(parts), STYLE))


def _room(counts: Sequence[int], most: int) -> int:
    """How many of each class are shown so that no more than `most` are, and one of each class."""
    left = most
    for done, count in enumerate(sorted(counts)):
        room = left // (len(counts) - done)
        if count > room:
            return max(1, room)
        left -= count
    return max(counts)


def _photographs(paths: Sequence[Path], places: np.ndarray) -> dict[int, str]:
    """By place, each photograph as an address; those that have gone meanwhile are not there."""
    there = [int(place) for place in places if paths[place].is_file()]
    chosen = [str(paths[place]) for place in there]
    return {
        there[index]: pages.address(_jpeg(image), "image/jpeg")
        for batch in decode.batches(chosen, SIDE, "pad")
        for index, image in zip(batch.indices, batch.images, strict=True)
    }


def _item(path: Path, share: float, address: str) -> str:
    picture = (
        f'<img src="{address}" alt="" width="{SIDE}" height="{SIDE}" loading="lazy">'
        if address
        else ""
    )
    return f'<li>{picture}{share:.1%} <span class="file">{pages.name(path)}</span></li>\n'


def _jpeg(image: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()
