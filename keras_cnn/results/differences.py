"""Which rows of a table differ in the accuracy of their saved models, and which are not seen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keras_cnn.results import intervals
from keras_cnn.results.intervals import Hits
from keras_cnn.results.store import Result

Name = tuple[str, str]  # a row's and a variant's


@dataclass(frozen=True)
class Difference:
    """One row and variant against another, paired by repeat and by test image.

    Attributes:
        row: The row's name.
        variant: The variant's name.
        than_row: What it is compared with.
        than_variant: Likewise.
        n: Repeats that both have.
        images: Test images of a repeat.
        points: How much more accurate the saved models are, in percentage points.
        low: Where the 95 percent interval begins; None of one repeat, which tells of two models.
        high: Where it ends.
        p: Probability of so large a difference where there is none, by Holm's correction for all
            comparisons of the table.
    """

    row: str
    variant: str
    than_row: str
    than_variant: str
    n: int
    images: int
    points: float
    low: float | None
    high: float | None
    p: float

    @property
    def is_seen(self) -> bool:
        """Whether the table claims it."""
        return self.p < intervals.ALPHA


@dataclass(frozen=True)
class Answers:
    """What a row's runs in one variant answered.

    Attributes:
        by_repeat: Those of each repeat.
        data: The source of the test images.
        drawn_once: Whether all repeats are trained on one draw of images.
    """

    by_repeat: Mapping[int, Hits]
    data: str
    drawn_once: bool


def answers(results: Sequence[Result]) -> Answers | None:
    """What the finished runs of a row and variant answered.

    Returns:
        None where there is no run, or one without predictions, as an older version made.
    """
    by_repeat = {result.place.repeat: result.hits for result in results}
    if not by_repeat or any(hits is None for hits in by_repeat.values()):
        return None
    return Answers(by_repeat, results[0].settings["data"], drawn_once(results))


def drawn_once(results: Sequence[Result]) -> bool:
    """Whether several runs share one draw of few images, so that no other draw is among them."""
    settings = [result.settings for result in results]
    few = any(one["shots"] is not None or one["test_shots"] is not None for one in settings)
    return len(settings) > 1 and few and len({one["shots_seed"] for one in settings}) == 1


def differences(
    by_name: Mapping[Name, Answers], variants: Sequence[str], reference: str
) -> list[Difference]:
    """Each row against the reference, in each variant, then each row's variants with the first.

    Args:
        by_name: What each row and variant answered, in the table's order.
        variants: The recipe's, in its order.
        reference: A row's name; rows are not compared in a variant in which it was not run.
    """
    rows = list(dict.fromkeys(row for row, _ in by_name))
    pairs = [
        ((row, variant), (reference, variant))
        for variant in variants
        for row in rows
        if row != reference
    ]
    pairs += [((row, other), (row, variants[0])) for row in rows for other in variants[1:]]
    found = [
        one
        for name, than in pairs
        if name in by_name and than in by_name
        if (one := _difference(name, than, by_name[name], by_name[than]))
    ]
    corrected = intervals.holm([one.p for one in found])
    return [replace(one, p=p) for one, p in zip(found, corrected, strict=True)]


def _difference(name: Name, than: Name, one: Answers, other: Answers) -> Difference | None:
    if one.data != other.data:
        return None
    once = one.drawn_once, other.drawn_once
    estimate = intervals.difference(one.by_repeat, other.by_repeat, once)
    if estimate is None:
        return None
    ends = intervals.difference_interval(estimate) if estimate.repeats > 1 else None
    low, high = (100 * end for end in ends) if ends else (None, None)
    return Difference(
        *(*name, *than),
        n=estimate.repeats,
        images=round(estimate.images),
        points=100 * estimate.value,
        low=low,
        high=high,
        p=intervals.p_value(estimate),
    )
