"""Results that a checkout of the package has of a recipe, for where this machine has none."""

from __future__ import annotations

from pathlib import Path

from keras_cnn.recipe.schema import Recipe
from keras_cnn.report.markdown import escape, missing, picture

DECK = "The deck's own figures"
FOLDER = Path(__file__).parents[2] / "artifacts" / "published"


def published(recipe: Recipe, folder: Path) -> list[str]:
    """The paragraphs of a recipe's published tables, and its pictures; none where it has none.

    Args:
        recipe: The recipe.
        folder: Of the page.
    """
    parts = []
    for path in sorted(FOLDER.glob(f"{recipe.name}_*/table.md")):
        data = path.parent.name.removeprefix(f"{recipe.name}_")
        parts.append(missing("Published with the package, not made here:"))
        parts += _paragraphs(path.read_text(encoding="utf-8"), f"{recipe.title} ({data})")
        parts += [
            picture(one, f"{one.stem} ({recipe.name}, {data})", folder)
            for one in sorted(path.parent.glob("*.png"))
        ]
    return parts


def _paragraphs(text: str, title: str) -> list[str]:
    """A table.md without its heading, and with a caption above each table."""
    parts, caption = [], title
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("## "):
            caption = f"{title}: {paragraph[3:].lower()}"
        elif paragraph.startswith("|"):
            parts += [f"**{escape(caption)}**", paragraph]
        elif not paragraph.startswith("# "):
            parts.append(paragraph)
            if paragraph.startswith(DECK):  # below it is their table, without a heading of its own
                caption = f"{title}: the deck's own figures"
    return parts
