"""What the page begins with: whose order of rows holds here, and what each defect costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras_cnn.deck.slides import Defect
from keras_cnn.report import markdown
from keras_cnn.report.markdown import escape, heading, link, note
from keras_cnn.report.sentences import SENTENCES
from keras_cnn.results.collect import Collected
from keras_cnn.results.grid import Column
from keras_cnn.results.layout import variant_text
from keras_cnn.results.table import AS_RUN, Line

FEWEST_ROWS = 3  # that have an order
ORDERS = (
    "Rows by mean test accuracy, best first. The rank correlation (Spearman) is 1 where all rows "
    "stand in the deck's order, 0 where its order tells nothing; how far rows are apart, and which "
    "differences are seen, stands below each table."
)


def summary(
    recipes: Sequence[Collected], defects: Sequence[Defect], anchors: Mapping[str, str]
) -> list[str]:
    """The section's paragraphs; none where no result is at hand.

    Args:
        recipes: The results of every recipe.
        defects: The deck's.
        anchors: By recipe, the heading its table stands under.
    """
    orders = [(one, order) for one in recipes if (order := _order(one))]
    costs = [cost for defect in defects if (cost := _cost(defect, recipes, anchors))]
    if not orders and not costs:
        return []
    parts = [heading(2, "In short", "summary", "in short")]
    if orders:
        columns = [Column("recipe", [one.recipe.name for one, _ in orders])]
        columns += [
            Column(name, [order[name] for _, order in orders], is_number=name.startswith("rank"))
            for name in orders[0][1]
        ]
        parts += [markdown.table("Whether the deck's order holds here", columns), note(ORDERS)]
    if costs:
        parts += ["What each defect costs here:", "\n".join(costs)]
    return parts


def _order(collected: Collected) -> dict[str, str] | None:
    """The deck's best row and ours; None where the deck or we have fewer than three rows."""
    variants = [line.variant for line in collected.lines if line.variant != AS_RUN]
    variant = variants[0] if variants else AS_RUN
    decks = {str(row.row): row.deck.test_accuracy for row in collected.recipe.rows}
    means = {
        line.row: mean
        for line in collected.lines
        if line.variant == variant and (mean := _test_accuracy(line)) is not None
    }
    rows = [row for row in means if decks[row] is not None]
    if len(rows) < FEWEST_ROWS or len({decks[row] for row in rows}) == 1:
        return None
    from scipy.stats import spearmanr

    ranked = sorted(rows, key=means.__getitem__, reverse=True)
    best = max(rows, key=lambda row: decks[row])
    varies = len({means[row] for row in rows}) > 1
    correlation = spearmanr([decks[row] for row in rows], [means[row] for row in rows])[0]
    return {
        "made on": collected.source,
        "the deck's best": f"row {best} ({decks[best]:g})",
        "here": f"{_ordinal(ranked.index(best) + 1)} of {len(rows)} ({means[best]:.1f})",
        "best here": f"row {ranked[0]} ({means[ranked[0]]:.1f}, {variant_text(variant)})",
        "rank correlation": f"{correlation:.2f}" if varies else "-",
    }


def _test_accuracy(line: Line) -> float | None:
    return line.measures["test_accuracy"].mean


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    teens = 10 < number % 100 < 14
    return f"{number}{'th' if teens else endings.get(number % 10, 'th')}"


def _cost(defect: Defect, recipes: Sequence[Collected], anchors: Mapping[str, str]) -> str | None:
    """A line of a list: what the first recipe at hand measures of a defect."""
    by_name = {one.recipe.name: one for one in recipes}
    for name, sentence in defect.measured.items():
        if name in by_name and (text := SENTENCES[sentence](by_name[name])):
            there = link(f"{defect.number}. {defect.heading}", f"defect-{defect.number}")
            return f"- {there}, {link(name, anchors[name])}: {escape(text)}"
    return None
