"""Photographs that are there twice, and what is wrong with the folder."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

from keras_cnn import pages
from keras_cnn.teach.page.album import Album
from keras_cnn.teach.page.wording import Section, file_name, paragraph
from keras_cnn.teach.taught import Taught

SHOWN = 20  # pairs of a kind
FAULTS = 100  # lines


class _Place(NamedTuple):
    """Where a file belongs.

    Attributes:
        label: Its class's name.
        part: `training`, `set aside`, or nothing for a file that is in neither.
    """

    label: str
    part: str


def section(taught: Taught, album: Album) -> Section:
    """Equal pairs, near pairs, faults."""
    places = {
        file: _Place(taught.class_names[label], part)
        for part, told in (("training", taught.train), ("set aside", taught.test))
        for file, label in zip(told.files, told.labels.tolist(), strict=True)
    }
    parts = [
        *_pairs("Exact copies", "have the same pixels", taught.equal, places, album),
        *_pairs("Near copies", "look nearly the same", taught.near, places, album),
    ]
    if taught.faults:
        lines = "".join(f"<li>{pages.text(fault)}</li>" for fault in taught.faults[:FAULTS])
        more = len(taught.faults) - FAULTS
        rest = paragraph(f"And {more:,} more.") if more > 0 else ""
        parts.append(f'<h3>Faults</h3>\n<ul class="faults">{lines}</ul>{rest}')
    if not parts:
        parts = [paragraph("No photograph is there twice, and all files could be read.")]
    return Section("copies", "Copies and faults", "copies", "\n".join(parts))


def _pairs(
    heading: str,
    what: str,
    pairs: tuple[tuple[str, str], ...],
    places: dict[str, _Place],
    album: Album,
) -> list[str]:
    if not pairs:
        return []

    def place(file: str) -> _Place:
        return places.get(file) or _Place(PurePath(file).parent.name, "")

    # What does harm comes first.
    def harm(pair: tuple[str, str]) -> tuple[bool, bool]:
        one, other = map(place, pair)
        return one.label == other.label, one.part == other.part

    differing = sum(not harm(pair)[0] for pair in pairs)
    items = []
    for pair in sorted(pairs, key=harm)[:SHOWN]:
        one, other = map(place, pair)
        marks = [
            *(["labels differ"] if one.label != other.label else []),
            *(
                ["one trains, one tests"]
                if {one.part, other.part} == {"training", "set aside"}
                else []
            ),
        ]
        for file in pair:
            album.add(file)
        names = "".join(_name(file, where) for file, where in zip(pair, (one, other), strict=True))
        shown = "".join(map(album.photograph, pair))
        marked = f'<strong class="mark">{"; ".join(marks)}</strong>' if marks else ""
        items.append(f'<li><span class="two">{shown}</span>{names}<span>{marked}</span></li>')
    count = f"{len(pairs):,} pair{'s' if len(pairs) > 1 else ''}"
    verb = what if len(pairs) > 1 else what.replace("have", "has").replace("look", "looks")
    first = (
        f" The first {SHOWN} are here, those that do harm before others."
        if len(pairs) > SHOWN
        else ""
    )
    labels = f"In {differing:,} of them the labels differ." if differing else "No labels differ."
    return [
        f"<h3>{heading}</h3>",
        paragraph(f"{count} of files {verb}. {labels}{first}"),
        f'<ul class="photos pairs">{"".join(items)}</ul>',
    ]


def _name(file: str, place: _Place) -> str:
    about = ", ".join(filter(None, (pages.name(place.label), place.part)))
    return f"{file_name(file)}<span>{about}</span>"
