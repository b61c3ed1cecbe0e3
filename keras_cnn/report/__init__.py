"""One page that walks through the deck's slides: as presented, as run, corrected."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import files, recipe
from keras_cnn.deck import slides
from keras_cnn.report import evidence, sections, to_html, to_markdown
from keras_cnn.report.evidence import Evidence
from keras_cnn.report.tree import Block, Code, Heading, Paragraph

TITLE = "The deck, as presented, as run, corrected"


def report(out: Path, to: Path) -> None:
    """Writes `report.md` and `report.html` from the results on disk, and prints where.

    Pictures of a recipe whose runs have changed are drawn anew in its folder. Runs nothing.

    Args:
        out: The results lie in `out/<recipe>/`.
        to: The folder of the page.

    Raises:
        UserError: The page cannot be written there.
    """
    files.check_writable(to)
    found = [evidence.gather(recipe.read(name), out) for name in recipe.names()]
    blocks = page(found, out, to)
    texts = {"md": to_markdown.render(blocks, to), "html": to_html.render(blocks)}
    for ending, text in texts.items():
        files.write_text(to / f"report.{ending}", text)
    for one in found:
        for problem in one.problems:
            print(f"left out: {problem}", file=sys.stderr)
    present = sum(bool(one.results) for one in found)
    print(f"{present} of {len(found)} recipes have results in {out}.")
    print(*(to / f"report.{ending}" for ending in texts), sep="\n")


def page(found: Sequence[Evidence], out: Path, to: Path) -> list[Block]:
    """The page's blocks.

    Args:
        found: What is at hand of every recipe.
        out: Where the results lie.
        to: Where the page goes.
    """
    words = slides.read()
    on_slide = [(slide, _of_slides(found, slide.slides)) for slide in words.slides]
    known = {number for slide in words.slides for number in slide.slides}
    others = [one for one in found if not known & set(one.plan.slides)]
    anchors = {one.plan.name: f"recipe-{one.plan.name}" for one in others}
    for slide, of_slide in on_slide:
        for one in of_slide if slide.table else ():
            anchors.setdefault(one.plan.name, slide.anchor)
    blocks = [Heading(1, TITLE, "top"), *_introduction(), Heading(2, "The slides", "slides")]
    for slide, of_slide in on_slide:
        blocks += sections.slide_section(slide, of_slide, anchors)
    blocks.append(Heading(2, "The defects", "defects"))
    by_name = {one.plan.name: one for one in found}
    for defect in words.defects:
        blocks += sections.defect_section(defect, by_name, anchors)
    if others:
        blocks.append(Heading(2, "Beyond the slides", "beyond", "beyond"))
    for one in others:
        blocks += sections.recipe_section(one, anchors)
    blocks += [Heading(2, "Results at hand", "results", "results"), sections.at_hand(found)]
    where = [f"--out={out}", *([f"--to={to}"] if to != out else [])]
    again = shlex.join(["python", "-m", "keras_cnn", "report", *where])
    return [*blocks, Paragraph(["This page again, with what is on disk then: ", Code(again)])]


def _of_slides(found: Sequence[Evidence], slides: Sequence[int]) -> list[Evidence]:
    return [one for one in found if set(one.plan.slides) & set(slides)]


def _introduction() -> list[Block]:
    return [
        Paragraph(
            [
                "Each experiment of a slide deck on CNNs for CINIC-10 stands here three ways. "
                "The deck: its own figure, as a slide prints it, as read off a slide's curves, or "
                "as its notebooks give it; beside each table stands which. As run: the same made "
                "again the way the deck's code did it, with its defects. Corrected: without them. "
                "Figures are means over n repeats ± their sample standard deviation, after the "
                "last epoch."
            ]
        ),
        Paragraph(
            [
                "Only results of the deck's own data, weights and settings stand beside its "
                "figures in one table; where others were used, the deck's figures have a table of "
                "their own and are not to be compared with ours. Of each recipe, the page takes "
                "the runs of the last command, which belong together."
            ]
        ),
    ]
