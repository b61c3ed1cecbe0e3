"""What more images would bring: the learning curve, drawn in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from keras_cnn.teach.page.wording import Section, paragraph, percent, small_print
from keras_cnn.teach.taught import Point, Taught

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 16, 56  # margins
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)  # between lines of the accuracy
MOST_LINES = 6


def section(taught: Taught) -> Section:
    """The accuracy of the folds against training images a class."""
    points = sorted(taught.curve, key=lambda point: point.images_a_class)
    if len(points) > 1:
        parts = [_svg(points), *_words(points, taught.gain, taught.chosen.method)]
    else:
        parts = [_why_none(points)]
    return Section("more", "What more images would bring", "more images", "\n".join(parts))


def _why_none(points: list[Point]) -> str:
    known = ""
    if points:
        (point,) = points
        mean = percent(float(np.mean(point.accuracies)))
        known = f" With {point.images_a_class:,} a class the folds have {mean}."
    return paragraph(f"There are too few images to leave some out and see what that costs.{known}")


def _words(points: list[Point], gain: float | None, method: str) -> list[str]:
    brought = ""
    if gain is not None:
        brought = (
            f"On the folds twice as many images of each class brought {100 * gain:+.1f} points of "
            "accuracy, and another doubling rarely brings more. "
        )
    of_what = ""
    if method == "fine_tuning":
        of_what = (
            " They are of the linear probe that fine-tuning begins with: to fine-tune for each "
            "point would take too long."
        )
    draws = sorted({len(point.accuracies) for point in points})
    counted = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    return [
        paragraph(
            f"{brought}Where the curve still climbs, more images are worth more than other "
            "settings."
        ),
        small_print(
            f"Held-out training images, n = {counted} draw{'s' if draws[-1] > 1 else ''} of images "
            "for each point; the line is the mean, the band goes from the lowest to the highest. "
            f"A class with fewer images than said has all it has.{of_what}"
        ),
    ]


def _svg(points: list[Point]) -> str:
    images = [point.images_a_class for point in points]
    lows, means, highs = (
        [float(function(point.accuracies)) for point in points] for function in (min, np.mean, max)
    )
    bottom, top, step = _scale(min(lows), max(highs))
    left_log, right_log = math.log(images[0]), math.log(images[-1])

    def x(count: int) -> float:
        share = (math.log(count) - left_log) / (right_log - left_log)
        return LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 12)

    def y(accuracy: float) -> float:
        return TOP + (top - accuracy) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    def path(values: list[float]) -> list[str]:
        return [f"{x(n):.1f},{y(v):.1f}" for n, v in zip(images, values, strict=True)]

    lines = []
    for number in range(round((top - bottom) / step) + 1):
        value = bottom + number * step
        lines.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text class="left" x="{LEFT - 8}" y="{y(value) + 5:.1f}">'
            f"{100 * value:.0f}%</text>"
        )
    for count, mean, accuracies in zip(images, means, points, strict=True):
        lines.append(
            f'<circle cx="{x(count):.1f}" cy="{y(mean):.1f}" r="4"><title>{count:,} images a '
            f"class: {percent(mean)}, n = {len(accuracies.accuracies)}</title></circle>"
        )
    lines += [
        f'<text class="below" x="{x(count):.1f}" y="{HEIGHT - BOTTOM + 22}">{count:,}</text>'
        for count in _spread(images, x)
    ]
    band = " ".join([*path(lows), *reversed(path(highs))])
    told = ", ".join(f"{n:,}: {percent(m)}" for n, m in zip(images, means, strict=True))
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<div class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy '
        f'by training images a class: {told}"><polygon class="band" points="{band}"/>'
        f"{''.join(lines)}"
        f'<polyline points="{" ".join(path(means))}"/>'
        f'<text class="below" x="{middle}" y="{HEIGHT - 8}">training images of each class '
        "(logarithmic)</text></svg></div>"
    )


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """From where to where the accuracy's axis goes, and the step between its lines."""
    step = next((one for one in STEPS if (high - low) / one < MOST_LINES - 1), STEPS[-1])
    bottom = max(0.0, math.floor(low / step) * step)
    top = min(1.0, math.ceil(high / step) * step)
    if top <= bottom:
        bottom, top = max(0.0, bottom - step), min(1.0, top + step)
    return bottom, top, step


def _spread(images: list[int], x: Callable[[int], float]) -> list[int]:
    """The counts that can stand below the axis without touching one another; the last does."""
    kept = [images[-1]]
    for count in reversed(images[:-1]):
        if x(kept[-1]) - x(count) > 12 * max(len(f"{count:,}"), 3):
            kept.append(count)
    return kept
