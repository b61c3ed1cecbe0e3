"""Intervals of means, and where losses stop to be numbers. Imports nothing heavy early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

CONFIDENCE = 0.95


def half_width(sd: float, n: int) -> float:
    """How far the 95 percent confidence interval of a mean reaches on each side.

    Args:
        sd: Sample standard deviation of the runs.
        n: How many runs, at least 2.
    """
    from scipy.special import stdtrit  # the quantile of Student's t

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * sd / sqrt(n))


def diverged_at(history: Sequence[Mapping[str, float]]) -> int | None:
    """The first epoch of which a loss is not finite; None where all are.

    Args:
        history: Records with `epoch`, `train_loss` and `test_loss`.
    """
    for record in history:
        if not (isfinite(record["train_loss"]) and isfinite(record["test_loss"])):
            return int(record["epoch"])
    return None
