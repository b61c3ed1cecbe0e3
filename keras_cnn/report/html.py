"""The page's Markdown as one HTML file that needs no other: style and pictures are inside."""

from __future__ import annotations

import base64
import itertools
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import unquote_to_bytes

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from PIL import Image

HERE = Path(__file__).parent
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
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(_text(title)),
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        contents="\n".join(map(_contents, headings)),
        body="\n".join(body),
    )


def _text(node: SyntaxTreeNode) -> str:
    """What a reader sees of a heading, a caption or a cell."""
    return "".join(part.content for part in node.walk() if part.type == "text")


def _contents(heading: SyntaxTreeNode) -> str:
    """A link to a heading: in full beside the page, its short form above it."""
    anchor, short = ANCHOR.match(heading.children[0].content).groups()
    text = escape(_text(heading))
    return (
        f'<li class="level-{heading.tag[1]}"><a href="#{anchor}">'
        f'<span class="short">{short or text}</span><span class="long">{text}</span></a></li>'
    )


def _code(renderer: object, tokens: Sequence, index: int, options: object, env: object) -> str:
    """Lines break between words alone: not within a flag, of which it would make two."""
    words = (f"<span>{escape(word)}</span>" for word in tokens[index].content.split(" "))
    return f"<code>{' '.join(words)}</code>"


def _picture(image: SyntaxTreeNode, folder: Path) -> str:
    path = folder / os.fsdecode(unquote_to_bytes(image.attrs["src"]))
    with Image.open(path) as opened:
        width, height = opened.size
    content = base64.b64encode(path.read_bytes()).decode()
    text = escape(_text(image))
    return (
        f'<figure>{_box(text)}<img src="data:image/png;base64,{content}" alt="{text}"'
        f' width="{width}" height="{height}"></div><figcaption>{text}</figcaption></figure>'
    )


def _table(caption: str, table: SyntaxTreeNode) -> str:
    """A table whose first column names the rows; numbers are what Markdown aligns to the right."""
    headings, *rows = (row.children for row in table.walk() if row.type == "tr")
    kinds = [' class="number"' if heading.attrs else "" for heading in headings]
    lines = []
    for name, *cells in rows:
        texts = (f"<td{k}>{escape(_text(c))}</td>" for c, k in zip(cells, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row">{escape(_text(name))}</th>{"".join(texts)}</tr>')
    return "\n".join(
        [
            f"{_box(escape(caption))}<table>",
            f"<caption><span>{escape(caption)}</span></caption>",
            f"<thead>\n{_head([_text(heading) for heading in headings], kinds)}\n</thead>",
            "<tbody>",
            *lines,
            "</tbody>",
            "</table></div>",
        ]
    )


def _box(label: str) -> str:
    """Opens a box that scrolls by itself where the page is narrow; the keyboard reaches it."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'


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
        cells = [f'<th scope="col"{span}{kind}>{escape(text)}</th>' for _, text, kind in members]
        if group:
            above.append(f'<th scope="colgroup" colspan="{len(cells)}">{escape(group)}</th>')
        (below if group else above).extend(cells)
    return "\n".join(f"<tr>{''.join(line)}</tr>" for line in (above, below) if line)
