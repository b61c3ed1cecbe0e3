"""The page as one HTML file that needs no other: style and pictures are inside."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from keras_cnn.report.tree import (
    Block,
    Code,
    Column,
    Heading,
    Link,
    Paragraph,
    Picture,
    Span,
    Table,
)

STYLE = Path(__file__).with_name("style.css")


def render(blocks: Sequence[Block]) -> str:
    """The blocks as an HTML page; its first heading is the title."""
    headings = [block for block in blocks if isinstance(block, Heading)]
    style = STYLE.read_text(encoding="utf-8")
    body = "\n".join(_block(block) for block in blocks)
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(headings[0].text)}</title>
<style>
{style}</style>
</head>
<body>
<nav aria-label="Contents">
{_contents(headings[1:])}
</nav>
<main>
{body}
</main>
</body>
</html>
"""


def _contents(headings: Sequence[Heading]) -> str:
    """Links to all headings: in full beside the page, their short forms above it."""
    items = [
        f'<li class="level-{heading.level}"><a href="#{heading.anchor}">'
        f'<span class="short">{escape(heading.short or heading.text)}</span>'
        f'<span class="long">{escape(heading.text)}</span></a></li>'
        for heading in headings
    ]
    return "\n".join(["<ul>", *items, "</ul>"])


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f'<h{block.level} id="{block.anchor}">{escape(block.text)}</h{block.level}>'
    if isinstance(block, Paragraph):
        text = "".join(_span(span) for span in block.spans)
        return f"<p>{text}</p>" if block.kind == "text" else f'<p class="{block.kind}">{text}</p>'
    return _picture(block) if isinstance(block, Picture) else _table(block)


def _span(span: Span) -> str:
    if isinstance(span, Code):
        # Lines break between words alone: not within a flag, of which it would make two.
        words = (f"<span>{escape(word)}</span>" for word in span.text.split(" "))
        return f"<code>{' '.join(words)}</code>"
    if isinstance(span, Link):
        return f'<a href="#{span.anchor}">{escape(span.text)}</a>'
    return escape(span)


def _picture(picture: Picture) -> str:
    with Image.open(picture.path) as image:
        width, height = image.size
    content = base64.b64encode(picture.path.read_bytes()).decode()
    text = escape(picture.text)
    return (
        f'<figure>{_box(text)}<img src="data:image/png;base64,{content}" alt="{text}"'
        f' width="{width}" height="{height}"></div><figcaption>{text}</figcaption></figure>'
    )


def _table(table: Table) -> str:
    rows = [
        f"<tr>{''.join(map(_cell, table.columns, cells, itertools.count()))}</tr>"
        for cells in zip(*(column.cells for column in table.columns), strict=True)
    ]
    caption = escape(table.caption)
    return "\n".join(
        [
            f"{_box(caption)}<table>",
            f"<caption><span>{caption}</span></caption>",
            f"<thead>\n{_head(table.columns)}\n</thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table></div>",
        ]
    )


def _box(label: str) -> str:
    """Opens a box that scrolls by itself where the page is narrow; the keyboard reaches it."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'


def _head(columns: Sequence[Column]) -> str:
    """One line of headings, or two where columns stand in groups."""
    if not any(column.group for column in columns):
        return f"<tr>{''.join(_heading(column) for column in columns)}</tr>"
    above, below = [], []
    for group, members in itertools.groupby(columns, lambda column: column.group):
        together = list(members)
        if group:
            above.append(f'<th scope="colgroup" colspan="{len(together)}">{escape(group)}</th>')
            below += [_heading(column) for column in together]
        else:
            above += [_heading(column, ' rowspan="2"') for column in together]
    return f"<tr>{''.join(above)}</tr>\n<tr>{''.join(below)}</tr>"


def _heading(column: Column, span: str = "") -> str:
    return f'<th scope="col"{span}{_kind(column)}>{escape(column.heading)}</th>'


def _cell(column: Column, cell: str, index: int) -> str:
    if index == 0:
        return f'<th scope="row">{escape(cell)}</th>'
    return f"<td{_kind(column)}>{escape(cell)}</td>"


def _kind(column: Column) -> str:
    return ' class="number"' if column.is_number else ""
