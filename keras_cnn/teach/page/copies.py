"""Photographs that are there twice, and what is wrong with the folder."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

from keras_cnn import pages
from keras_cnn.teach.page.album import Album
from keras_cnn.teach.page.wording import Section, file_name, paragraph
from keras_cnn.teach.taught import Taught

SHOWN = 20  # pairs of a kind
LINES = 100  # of a list
LABELS, SIDES = "labels differ", "one trains, one tests"  # what does harm, the worse first


class _Place(NamedTuple):
    """Where a file belongs.

    Attributes:
        label: Its class's name.
        part: `training`, `set aside`, or nothing for a file that is in neither.
    """

    label: str
    part: str


def section(taught: Taught, album: Album) -> Section:
    """Equal pairs, near pairs, how the folder was read, faults."""
    places = {
        file: _Place(taught.class_names[label], part)
        for part, told in (("training", taught.train), ("set aside", taught.test))
        for file, label in zip(told.files, told.labels.tolist(), strict=True)
    }
    parts = [
        *_pairs("Exact copies", "have the same pixels", taught.equal, places, album),
        *_pairs("Near copies", "look nearly the same", taught.near, places, album),
    ]
    if not parts and not taught.faults:
        parts = [paragraph("No photograph is there twice, and all files could be read.")]
    parts += [*_lines("Faults", taught.faults), *_lines("How it was read", taught.notes)]
    return Section("copies", "Copies and faults", "copies", "\n".join(parts))


def _lines(heading: str, lines: tuple[str, ...]) -> list[str]:
    """A list, cases indented below what they are cases of."""
    if not lines:
        return []
    items = "".join(
        f"<li{' class=case' * line.startswith(' ')}>{pages.text(line.strip())}</li>"
        for line in lines[:LINES]
    )
    more = len(lines) - LINES
    rest = paragraph(f"And {more:,} more lines.") if more > 0 else ""
    return [f'<h3>{heading}</h3>\n<ul class="faults">{items}</ul>{rest}']


def _pairs(
    heading: str,
    what: str,
    pairs: tuple[tuple[str, str], ...],
    places: dict[str, _Place],
    album: Album,
) -> list[str]:
    if not pairs:
        return []

    def marks(pair: tuple[str, str]) -> list[str]:
        one, other = (_place(file, places) for file in pair)
        differ = [LABELS] if one.label != other.label else []
        return differ + ([SIDES] if {one.part, other.part} == {"training", "set aside"} else [])

    items = []
    ordered = sorted(pairs, key=lambda pair: [mark not in marks(pair) for mark in (LABELS, SIDES)])
    for pair in ordered[:SHOWN]:
        for file in pair:
            album.add(file)
        shown = "".join(map(album.photograph, pair))
        names = "".join(_name(file, _place(file, places)) for file in pair)
        marked = f'<strong class="mark">{"; ".join(marks(pair))}</strong>' if marks(pair) else ""
        items.append(f'<li><span class="two">{shown}</span>{names}<span>{marked}</span></li>')
    found = [mark for pair in pairs for mark in marks(pair)]
    count = f"{len(pairs):,} pair{'s' if len(pairs) > 1 else ''}"
    verb = what if len(pairs) > 1 else what.replace("have", "has").replace("look", "looks")
    words = [
        f"{count} of files {verb}.",
        f"In {found.count(LABELS):,} the labels differ."
        if LABELS in found
        else "No labels differ.",
    ]
    if SIDES in found:
        words.append(
            f"In {found.count(SIDES):,} one trains and one tests: the accuracy above may be the "
            "better for it."
        )
    if len(pairs) > SHOWN:
        words.append(f"The first {SHOWN} are here, those that do harm before others.")
    return [
        f"<h3>{heading}</h3>",
        paragraph(" ".join(words)),
        f'<ul class="photos pairs">{"".join(items)}</ul>',
    ]


def _place(file: str, places: dict[str, _Place]) -> _Place:
    return places.get(file) or _Place(PurePath(file).parent.name, "")


def _name(file: str, place: _Place) -> str:
    about = ", ".join(filter(None, (pages.name(place.label), place.part)))
    return f"{file_name(file)}<span>{about}</span>"
