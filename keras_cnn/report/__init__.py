"""One page that walks through the deck's slides: as presented, as run, corrected."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import files, recipe
from keras_cnn.deck import slides
from keras_cnn.errors import UserError, printable, shell_line
from keras_cnn.recipe.schema import Recipe
from keras_cnn.report import html, sections, summary
from keras_cnn.report.markdown import code, heading
from keras_cnn.results import table
from keras_cnn.results.collect import Collected, collect

TITLE = "The deck, as presented, as run, corrected"
INTRODUCTION = """\
Each experiment of a slide deck on CNNs for CINIC-10 stands here three ways. \
The deck: its own figure, as a slide prints it, as read off a slide's curves, or \
as its notebooks give it; beside each table stands which. As run: the same made \
again the way the deck's code did it, with its defects. Corrected: without them. \
Figures are means over n repeats ± their sample standard deviation, after the \
last epoch; 95 percent intervals are of the accuracy on new images.

Only results of the deck's own data, weights and settings stand beside its \
figures in one table; where others were used, the deck's figures have a table of \
their own and are not to be compared with ours. Of each recipe, the page takes \
the runs of the last command, which belong together."""


def report(out: Path, to: Path) -> None:
    """Writes `report.md` and `report.html` from the results on disk, and prints where.

    Pictures of a recipe whose runs have changed are drawn anew in its folder. Runs nothing.

    Args:
        out: The results are in `out/<recipe>/`.
        to: The folder of the page.

    Raises:
        UserError: There is no folder of results, or the page cannot be written there.
    """
    if not out.is_dir():
        raise UserError(f"{out}: no such folder: --out names the one that `recipe` writes to")
    files.check_writable(to)
    recipes = [collect(recipe.read(name), out) for name in recipe.names()]
    recipes += [collect(one, out) for one in _recipes_elsewhere(out)]
    text = page(recipes, out, to)
    texts = {"md": text, "html": html.render(text, to)}
    for ending, content in texts.items():
        files.write_text(to / f"report.{ending}", content)
    for collected in recipes:
        for problem in collected.problems:
            print(printable(f"left out: {problem}"), file=sys.stderr)
    present = sum(bool(collected.results) for collected in recipes)
    print(f"{present} of {len(recipes)} recipes have results in {out}.")
    print(*(to / f"report.{ending}" for ending in texts), sep="\n")


def _recipes_elsewhere(out: Path) -> list[Recipe]:
    """The recipes that are files of the user's and have results in a folder."""
    found = []
    for path in sorted(out.glob("*/table.json")):
        name = path.parent.name
        # Moved, or of another version.
        with contextlib.suppress(OSError, ValueError, IndexError, UserError):
            words = shlex.split(table.read(path).command)
            file = words[words.index("recipe") + 1]
            if name not in recipe.names() and Path(file).stem == name:
                found.append(recipe.read(file))
    return found


def page(recipes: Sequence[Collected], out: Path, to: Path) -> str:
    """The page as Markdown, of the results of every recipe in `out`, for the folder `to`."""
    deck = slides.read()
    on_slides = [
        (slide, [one for one in recipes if {*one.recipe.slides} & {*slide.slides}])
        for slide in deck.slides
    ]
    shown_somewhere = {one.recipe.name for _, shown in on_slides for one in shown}
    others = [one for one in recipes if one.recipe.name not in shown_somewhere]
    anchors = {one.recipe.name: f"recipe-{one.recipe.name}" for one in others}
    for slide, shown in on_slides:
        for one in shown if slide.table else ():
            anchors.setdefault(one.recipe.name, slide.anchor)
    parts = [f"# {TITLE}", INTRODUCTION, *summary.summary(recipes, deck.defects, anchors)]
    parts.append(heading(2, "The slides", "slides"))
    for slide, shown in on_slides:
        parts += sections.slide_section(slide, shown, anchors, to)
    parts.append(heading(2, "The defects", "defects"))
    by_name = {one.recipe.name: one for one in recipes}
    for defect in deck.defects:
        parts += sections.defect_section(defect, by_name, anchors)
    if others:
        parts.append(heading(2, "Beyond the slides", "beyond", "beyond"))
    for one in others:
        parts += sections.recipe_section(one, to)
    parts += [heading(2, "Results at hand", "results", "results"), sections.at_hand(recipes)]
    where = [f"--out={out}", *([f"--to={to}"] if to != out else [])]
    again = shell_line(["python", "-m", "keras_cnn", "report", *where])
    parts.append(f"This page again, with what is on disk then: {code(again)}")
    return "\n\n".join(parts) + "\n"
