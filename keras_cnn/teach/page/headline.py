"""The top of the page: what the model is, and how good."""

from __future__ import annotations

from keras_cnn import pages
from keras_cnn.teach.page.wording import interval, of_images, paragraph, percent, with_interval
from keras_cnn.teach.taught import Taught

NAMED = 12  # classes


def title(taught: Taught) -> str:
    """Of the page: the folder's name, or the classes where it has none."""
    folder = taught.folder.resolve() if taught.folder.is_dir() else taught.folder
    return f"{folder.name or folder}: {len(taught.class_names):,} classes"


def top(taught: Taught) -> str:
    """The title, what the model is, and the accuracy beside what it is to be measured by."""
    chosen = taught.chosen
    named = ", ".join(map(pages.name, taught.class_names[:NAMED]))
    more = len(taught.class_names) - NAMED
    return "\n".join(
        [
            f"<h1>{pages.text(title(taught))}</h1>",
            paragraph(
                f"This model tells which of {len(taught.class_names):,} classes a photograph is "
                f"of: {named}{f' and {more:,} more' if more > 0 else ''}. It was taught from "
                f"{of_images(len(taught.train.files))}, and tested once on "
                f"{of_images(len(taught.test.files))} that were set aside before."
            ),
            paragraph(
                f"The method is {pages.code(chosen.method)} on the backbone "
                f"{pages.code(chosen.backbone)} ({pages.code(chosen.weights)} weights), on "
                f"photographs brought to {chosen.image_size} x {chosen.image_size} pixels by "
                f"{pages.code(chosen.fit)}. Why this backbone: "
                f"{pages.text(taught.why_backbone.removesuffix('.'))}."
            ),
            _figures(taught),
        ]
    )


def _figures(taught: Taught) -> str:
    tested, foretold, runner_up = taught.tested, taught.foretold, taught.runner_up
    cards = [
        _card(
            "accuracy",
            percent(tested.value),
            f"95 percent interval {interval(tested.low, tested.high)}, n = {tested.images:,}",
            "The share of the images set aside that it classifies right. The interval is where "
            "its accuracy on other such images is to be expected.",
        ),
        _card(
            "foretold",
            with_interval(foretold),
            f"from {of_images(foretold.images, 'training image')}",
            "What was expected before the test: each training image was classified by a model "
            "that had not seen it. " + _kept(taught),
        ),
        _card(
            "always the same answer",
            percent(taught.majority),
            f"n = {tested.images:,}",
            "What answering with the largest class alone would get right: the least that a model "
            "must beat.",
        ),
    ]
    if runner_up is not None:
        cards.append(
            _card(
                "runner-up",
                with_interval(runner_up),
                f"n = {runner_up.images:,}",
                "The best candidate of another method, on the same images. The choice was made "
                "before this was measured, on training images alone; where both are close, which "
                "of them is ahead here is chance.",
            )
        )
    return f'<dl class="cards">\n{"".join(cards)}</dl>'


def _kept(taught: Taught) -> str:
    """Whether the test bore out what the folds foretold."""
    if taught.foretold.low <= taught.tested.value <= taught.foretold.high:
        return "The test came out within this range."
    side = "above" if taught.tested.value > taught.foretold.high else "below"
    return (
        f"The test came out {side} this range: the images set aside may differ from the training "
        "images, or it is chance, which 5 of 100 tests are."
    )


def _card(name: str, value: str, about: str, meaning: str) -> str:
    return (
        f'<div class="card {name.split()[0]}"><dt>{name}</dt><dd class="value">{value}</dd>'
        f'<dd class="about">{about}</dd><dd>{meaning}</dd></div>\n'
    )
