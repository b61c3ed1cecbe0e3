"""Intervals of means. Imports nothing heavy before it is asked."""

from __future__ import annotations

from math import sqrt

CONFIDENCE = 0.95


def half_width(sd: float, n: int) -> float:
    """How far the 95 percent confidence interval of a mean reaches on each side.

    Args:
        sd: Sample standard deviation of the runs.
        n: How many runs, at least 2.
    """
    from scipy.special import stdtrit  # the quantile of Student's t

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * sd / sqrt(n))
