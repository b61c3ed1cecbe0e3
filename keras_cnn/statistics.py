"""Intervals of means, and where runs diverge. Imports nothing heavy early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

CONFIDENCE = 0.95
# Of a network that knows nothing of a million classes the cross-entropy is 14, and weights as they
# are drawn add hundreds by the strongest penalty of a recipe.
LARGEST_LOSS = 1e6


def half_width(sd: float, n: int) -> float:
    """How far the 95 percent confidence interval of a mean reaches on each side.

    Args:
        sd: Sample standard deviation of the runs.
        n: How many runs, at least 2.
    """
    from scipy.special import stdtrit  # the quantile of Student's t

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * sd / sqrt(n))


def diverged_at(history: Sequence[Mapping[str, float]]) -> int | None:
    """The first epoch of which a loss is not finite, or beyond all sense; None where none is.

    Args:
        history: Records with `epoch`, `train_loss` and `test_loss`.
    """
    for record in history:
        losses = record["train_loss"], record["test_loss"]
        if not all(isfinite(loss) and loss < LARGEST_LOSS for loss in losses):
            return int(record["epoch"])
    return None
