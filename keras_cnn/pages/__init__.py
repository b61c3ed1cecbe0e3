"""HTML pages that are one file and need no other: frame, style, tables, text that stays text."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_cnn.errors import printable

HERE = Path(__file__).parent
PHOTOGRAPH, QUALITY = 128, 70  # pixels of a small photograph's longer side, and of its JPEG


class Heading(NamedTuple):
    """A line of a page's contents.

    Attributes:
        anchor: The id of what it leads to.
        text: Any text, shown beside the page.
        short: Any text, shown above the page where that is narrow.
        level: 2 or 3, as of a heading.
    """

    anchor: str
    text: str
    short: str = ""
    level: int = 2


def document(title: str, contents: Sequence[Heading], body: str, style: str = "") -> str:
    """A whole page.

    Args:
        title: Any text.
        contents: What the page leads to.
        body: HTML.
        style: CSS, beside that of all pages.
    """
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=text(title),
        style=(HERE / "style.css").read_text(encoding="utf-8") + style,
        contents="\n".join(map(_line_of_contents, contents)),
        body=body,
    )


def text(words: object) -> str:
    r"""Any text as HTML that shows it as it is, on one line; `\n` for a line's end inside it."""
    return escape(printable(str(words)))


def name(words: object) -> str:
    """Text of a user, such as a file's name, that may run right to left among ours."""
    return f"<bdi>{text(words)}</bdi>"


def code(words: str) -> str:
    """A line of code; on a page it breaks between words alone, not within a flag."""
    return f"<code>{' '.join(f'<span>{text(word)}</span>' for word in words.split(' '))}</code>"


def box(label: str) -> str:
    """Opens a box that scrolls by itself where the page is narrow; the keyboard reaches it.

    Args:
        label: HTML of what is in it, without tags.
    """
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'


def table(
    caption: str, headings: Sequence[str], numbers: Sequence[bool], rows: Sequence[Sequence[str]]
) -> str:
    """A table whose first column names the rows, in a box.

    Args:
        caption: HTML without tags.
        headings: HTML, of each column; those that begin with the same `group: ` share it.
        numbers: Of each column, whether it is aligned to the right.
        rows: HTML of each cell.
    """
    kinds = [' class="number"' if is_number else "" for is_number in numbers]
    lines = []
    for first, *cells in rows:
        texts = (f"<td{kind}>{cell}</td>" for cell, kind in zip(cells, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{"".join(texts)}</tr>')
    return "\n".join(
        [
            f"{box(caption)}<table>",
            f"<caption><span>{caption}</span></caption>",
            f"<thead>\n{_head(headings, kinds)}\n</thead>",
            "<tbody>",
            *lines,
            "</tbody>",
            "</table></div>",
        ]
    )


def address(content: bytes, kind: str) -> str:
    """A file's content as an address that needs no file.

    Args:
        content: Its bytes.
        kind: `image/png`, say.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def photograph(image: np.ndarray) -> str:
    """A small photograph, uint8 (h, w, 3), as an address of about 4 KB that needs no file."""
    written = io.BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=QUALITY)
    return address(written.getvalue(), "image/jpeg")


def _line_of_contents(heading: Heading) -> str:
    """A link to a heading: in full beside the page, its short form above it."""
    full = text(heading.text)
    short = text(heading.short) if heading.short else full
    return (
        f'<li class="level-{heading.level}"><a href="#{heading.anchor}">'
        f'<span class="short">{short}</span><span class="long">{full}</span></a></li>'
    )


def _head(headings: Sequence[str], kinds: Sequence[str]) -> str:
    """One line of headings, or two where some are `group: heading`."""
    columns = [
        (*heading.rpartition(": ")[::2], kind)
        for heading, kind in zip(headings, kinds, strict=True)
    ]
    grouped = any(group for group, *_ in columns)
    above, below = [], []
    for group, members in itertools.groupby(columns, lambda column: column[0]):
        span = "" if group or not grouped else ' rowspan="2"'
        cells = [f'<th scope="col"{span}{kind}>{heading}</th>' for _, heading, kind in members]
        if group:
            above.append(f'<th scope="colgroup" colspan="{len(cells)}">{group}</th>')
        (below if group else above).extend(cells)
    return "\n".join(f"<tr>{''.join(line)}</tr>" for line in (above, below) if line)
