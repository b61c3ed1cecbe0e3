"""One HTML file about a model taught from a folder of photographs: how good, where not, and why."""

from __future__ import annotations

from pathlib import Path

from keras_cnn import files, pages
from keras_cnn.teach.page import (
    confusions,
    copies,
    curve,
    doubted,
    headline,
    measured,
    mistakes,
    usage,
)
from keras_cnn.teach.page.album import Album
from keras_cnn.teach.page.wording import Section
from keras_cnn.teach.taught import Taught

STYLE = Path(__file__).with_name("taught.css")


def write(taught: Taught, path: Path) -> None:
    """Writes the page, which needs no other file and no network.

    Args:
        taught: What it tells. The photographs and the saved model are read once more.
        path: The page's file, `index.html` say.

    Raises:
        UserError: The saved model cannot be read.
    """
    files.write_text(path, page(taught))


def page(taught: Taught) -> str:
    """The page as HTML."""
    album = Album(taught.folder, taught.chosen.image_size, taught.chosen.fit)
    # There is room for so many pictures: what asks first is sure to have them.
    seen = mistakes.section(taught, album)
    doubts = doubted.section(taught, album)
    twice = copies.section(taught, album)
    confused = confusions.section(taught, album)
    sections = [
        *(confused, seen, doubts, twice, curve.section(taught)),
        *(measured.probabilities(taught), measured.classes(taught), measured.candidates(taught)),
        *(usage.section(taught), measured.made(taught)),
    ]
    return pages.document(
        headline.title(taught),
        [pages.Heading(one.anchor, one.heading, one.short) for one in sections],
        "\n".join([headline.top(taught), *map(_html, sections)]),
        STYLE.read_text(encoding="utf-8") + album.style(),
    )


def _html(section: Section) -> str:
    heading = f'<h2 id="{section.anchor}">{pages.text(section.heading)}</h2>'
    return f"<section>\n{heading}\n{section.body}\n</section>"
