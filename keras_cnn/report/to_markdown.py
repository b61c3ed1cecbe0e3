"""The page as Markdown; pictures stay files beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from keras_cnn.report.tree import Block, Code, Column, Heading, Link, Paragraph, Picture, Span

# What Markdown would read as markup; an underscore inside a word is none.
SPECIAL = re.compile(r"[\\`*\[\]<>|~]|(?<!\w)_|_(?!\w)")


def render(blocks: Sequence[Block], folder: Path) -> str:
    """The blocks as Markdown.

    Args:
        blocks: The page's blocks.
        folder: Where the text will lie: pictures are named as seen from there.
    """
    return "\n\n".join(_block(block, folder) for block in blocks) + "\n"


def _block(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        anchor = f'<a id="{block.anchor}"></a>' if block.level > 1 else ""
        return f"{'#' * block.level} {anchor}{_plain(block.text)}"
    if isinstance(block, Paragraph):
        text = "".join(_span(span) for span in block.spans)
        return f"> {text}" if block.kind in ("missing", "problem") else text
    if isinstance(block, Picture):
        path = quote(Path(os.path.relpath(block.path, folder)).as_posix())
        return f"![{_plain(block.text)}]({path})"
    return f"**{_plain(block.caption)}**\n\n{_table(block.columns)}"


def _span(span: Span) -> str:
    if isinstance(span, Code):
        # A fence one longer than the longest run of backticks inside.
        fence = "`" * (1 + max(map(len, re.findall("`+", span.text)), default=0))
        space = " " if "`" in span.text else ""
        return f"{fence}{space}{span.text}{space}{fence}"
    if isinstance(span, Link):
        return f"[{_plain(span.text)}](#{span.anchor})"
    return _plain(span)


def _plain(text: str) -> str:
    return SPECIAL.sub(lambda found: f"\\{found[0]}", text)


def _table(columns: Sequence[Column]) -> str:
    lines = [
        [": ".join(filter(None, (column.group, column.heading))) for column in columns],
        ["---:" if column.is_number else "---" for column in columns],
        *zip(*(column.cells for column in columns), strict=True),
    ]
    return "\n".join(
        f"| {' | '.join(cell if index == 1 else _plain(cell) for cell in line)} |"
        for index, line in enumerate(lines)
    )
