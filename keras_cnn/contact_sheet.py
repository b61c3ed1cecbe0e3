"""A page of small photographs by what a model says of them: one HTML file, on a phone too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_cnn import files, pages
from keras_cnn.data import decode
from keras_cnn.prediction import STRANGE, UNSURE, Predictions

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

    Those of which the model is unsure, and those that are nothing of the kind, stand apart.

    Args:
        predictions: Of at least one image; the files are read again.
        path: The HTML file, replaced as a whole.
        most: Photographs that are shown; of each group as many as of the others, or all it has.
    """
    groups = _groups(predictions)
    room = _room([len(group.places) for group in groups], most)
    shown = np.concatenate([group.places[:room] for group in groups])
    photographs = _photographs(predictions.paths, shown)
    count = len(predictions.paths)
    title = f"{count:,} image{'s' * (count > 1)} by class"
    contents, parts = [], [f"<h1>{title}</h1>"]
    parts.append("<p>Of each class the most certain first, with their probability.</p>")
    apart = [
        f'<a href="#{group.anchor}">{group.remark}</a>, {len(group.places):,} of {count:,}'
        for group in groups
        if group.remark
    ]
    if apart:
        parts.append(f"<p>Apart, at the end: {'; '.join(apart)}.</p>")
    for group in groups:
        counted = f"{len(group.places):,}"
        contents.append(pages.Heading(group.anchor, f"{group.name} ({counted})"))
        parts.append(f'<h2 id="{group.anchor}">{pages.name(group.name)}: {counted}</h2>')
        if group.meaning:
            parts.append(f"<p>{group.meaning}</p>")
        if len(group.places) > room:
            parts.append(f"<p>The {room:,} most certain of them:</p>")
        items = (
            _item(predictions, place, group.remark, photographs.get(place, ""))
            for place in group.places[:room].tolist()
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


class _Group(NamedTuple):
    """Photographs that stand together.

    Attributes:
        anchor: Its id.
        name: What it is called.
        places: Of the photographs, the most certain first.
        remark: What is to be said of each; empty of a class.
        meaning: HTML that says what the remark means.
    """

    anchor: str
    name: str
    places: np.ndarray
    remark: str = ""
    meaning: str = ""


def _groups(predictions: Predictions) -> list[_Group]:
    """The classes that are named, then the images whose answer is not to be relied on."""
    best = predictions.probabilities.argmax(axis=1)
    order = np.argsort(-predictions.probabilities.max(axis=1), kind="stable")
    remarks = np.array(predictions.remarks)[order]
    groups = [
        _Group(f"class-{label}", name, order[(best[order] == label) & (remarks == "")])
        for label, name in enumerate(predictions.class_names)
    ]
    share = f"{100 * predictions.trust.error_rate:g}" if predictions.trust else "so many"
    groups += [
        _Group(
            "unsure",
            "Unsure",
            order[remarks == UNSURE],
            UNSURE,
            f"Of the answers above these at most {share} percent should be wrong; of these more "
            "may be: look at them yourself.",
        ),
        _Group(
            "strange",
            "Nothing of the kind",
            order[remarks == STRANGE],
            STRANGE,
            "They look like none of the training images, whatever class is named.",
        ),
    ]
    return [group for group in groups if len(group.places)]


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
        there[index]: pages.photograph(image)
        for batch in decode.batches(chosen, pages.PHOTOGRAPH, "pad")
        for index, image in zip(batch.indices, batch.images, strict=True)
    }


def _item(predictions: Predictions, place: int, remark: str, address: str) -> str:
    shares = predictions.probabilities[place]
    said = f"{shares.max():.1%}"
    if remark:  # below no class's heading, so that the class is named, and the next one
        ranked = np.argsort(-shares, kind="stable")[:2]
        named = (f"{pages.name(predictions.class_names[k])} {shares[k]:.1%}" for k in ranked)
        said = f"<strong>{remark}</strong>: {', '.join(named)}"
    side = pages.PHOTOGRAPH
    picture = (
        f'<img src="{address}" alt="" width="{side}" height="{side}" loading="lazy">'
        if address
        else ""
    )
    file = pages.name(predictions.paths[place])
    return f'<li>{picture}{said} <span class="file">{file}</span></li>\n'
