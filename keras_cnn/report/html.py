"""The page's Markdown as one HTML file that needs no other: style and pictures are inside."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from urllib.parse import unquote_to_bytes

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from PIL import Image

from keras_cnn import pages

ANCHOR = re.compile(r'<a id="([^"]*)"(?: title="([^"]*)")?>')


def render(markdown: str, folder: Path) -> str:
    """The page as HTML.

    Args:
        markdown: Made of what `report.markdown` gives; its first heading is the title.
        folder: Where it goes: pictures are named as seen from there.
    """
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.add_render_rule("code_inline", _code)
    blocks = SyntaxTreeNode(parser.parse(markdown)).children
    title, *headings = (block for block in blocks if block.type == "heading")
    body = []
    for block, following in itertools.zip_longest(blocks, blocks[1:]):
        inline = block.children[0] if block.type == "paragraph" else block
        if following is not None and following.type == "table":
            body.append(_table(_text(block), following))
        elif inline.children and inline.children[0].type == "image":
            body.append(_picture(inline.children[0], folder))
        elif block.type != "table":
            body.append(parser.renderer.render(block.to_tokens(), parser.options, {}))
    return pages.document(_text(title), [*map(_heading, headings)], "\n".join(body))


def _text(node: SyntaxTreeNode) -> str:
    """What a reader sees of a heading, a caption or a cell."""
    return "".join(part.content for part in node.walk() if part.type == "text")


def _heading(block: SyntaxTreeNode) -> pages.Heading:
    anchor, short = ANCHOR.match(block.children[0].content).groups()
    return pages.Heading(anchor, _text(block), unescape(short or ""), int(block.tag[1]))


def _code(renderer: object, tokens: Sequence, index: int, options: object, env: object) -> str:
    return pages.code(tokens[index].content)


def _picture(image: SyntaxTreeNode, folder: Path) -> str:
    path = folder / os.fsdecode(unquote_to_bytes(image.attrs["src"]))
    with Image.open(path) as opened:
        width, height = opened.size
    address = pages.address(path.read_bytes(), "image/png")
    text = escape(_text(image))
    return (
        f'<figure>{pages.box(text)}<img src="{address}" alt="{text}"'
        f' width="{width}" height="{height}"></div><figcaption>{text}'
        '<label class="zoom"><input type="checkbox"> full size</label></figcaption></figure>'
    )


def _table(caption: str, table: SyntaxTreeNode) -> str:
    """A table of Markdown, where numbers are what is aligned to the right."""
    headings, *rows = (row.children for row in table.walk() if row.type == "tr")
    return pages.table(
        escape(caption),
        [escape(_text(heading)) for heading in headings],
        [bool(heading.attrs) for heading in headings],
        [[escape(_text(cell)) for cell in row] for row in rows],
    )
