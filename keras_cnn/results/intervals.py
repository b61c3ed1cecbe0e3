"""Intervals of accuracies on new images and of their differences, by NumPy and SciPy alone.

A row's accuracy is the mean over R repeats and N test images of 1 (right) or 0 (wrong), and varies
for two reasons: another repeat would draw other shots and seeds, and another test set would hold
other images (Bouthillier et al. 2021, arXiv:2103.03098; Jordan 2023, arXiv:2304.01910; Agarwal et
al. 2021, arXiv:2108.13264). With the accuracies a_r of the repeats and their variance s^2, and the
covariance c that two repeats have because they are tested on the same images,

    Var(mean) = s^2 / R + c

which is the two-way analysis of variance (repeats by images) where all repeats have the same test
images, and the plain variance of a mean where no two share one. The first term has R - 1 degrees of
freedom, the second as many as there are images, so a normal distribution serves.

How wide an interval is when one of two variances is known badly is the Behrens-Fisher problem.
Fisher's own solution never covers less than it says, and too much where R is 2 or 3; Welch and
Satterthwaite's covers too little where the repeats differ much. Accuracies take what lies between
(`critical_value`), differences the safe one (`p_value`). `bench intervals` simulates both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from typing import NamedTuple

import numpy as np

from keras_cnn.statistics import CONFIDENCE

NODES = 64  # of the integral over the unknown variance of the repeats
ALPHA = 1 - CONFIDENCE


class Hits(NamedTuple):
    """Which test images one run classified right.

    Attributes:
        images: Of the test set, integers (n,), each once.
        right: bool (n,).
    """

    images: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean over repeats and test images, and its variance by source.

    Attributes:
        value: An accuracy in [0, 1], or a difference of two in [-1, 1].
        by_repeats: Variance of the mean that other repeats would bring; 0 for a single one.
        by_images: Variance of the mean that other test images would bring.
        repeats: How many.
        images: Test images of a repeat, on average.
    """

    value: float
    by_repeats: float
    by_images: float
    repeats: int
    images: float

    @property
    def variance(self) -> float:
        """Of the mean, from both sources."""
        return self.by_repeats + self.by_images


def accuracy(runs: Sequence[Hits]) -> Estimate:
    """The accuracy of a row: the mean over its repeats, at least one."""
    means = np.array([run.right.mean() for run in runs])
    return _estimate(means, _deviations(runs), _images(runs))


def difference(
    runs: Mapping[int, Hits],
    others: Mapping[int, Hits],
    drawn_once: tuple[bool, bool] = (False, False),
) -> Estimate | None:
    """How much more accurate one row is than another, paired by repeat and by test image.

    Args:
        runs: By repeat.
        others: By repeat; those that both have are compared.
        drawn_once: Of each row, whether all its repeats are trained on one draw of images. Where
            that is so of one alone, how much another draw would change it is taken from the other.

    Returns:
        None where no repeat is in both.
    """
    shared = sorted(runs.keys() & others.keys())
    if not shared:
        return None
    both = [side[repeat] for side in (runs, others) for repeat in shared]
    means = np.reshape([run.right.mean() for run in both], (2, len(shared)))
    deviations = np.subtract(*np.split(_deviations(both), 2))
    estimate = _estimate(means[0] - means[1], deviations, _images(both))
    if drawn_once[0] == drawn_once[1] or len(shared) == 1:
        return estimate
    spread = means.var(axis=1, ddof=1) / np.where(drawn_once, len(shared), 1)
    return replace(estimate, by_repeats=max(estimate.by_repeats, float(spread.sum())))


def _images(runs: Sequence[Hits]) -> float:
    return float(np.mean([len(run.images) for run in runs]))


def _deviations(runs: Sequence[Hits]) -> np.ndarray:
    """What each image adds to a run's accuracy beyond the mean image, (runs, all runs' images)."""
    count, places = _places(runs)
    deviations = np.zeros((len(runs), count))
    for row, place, run in zip(deviations, places, runs, strict=True):
        row[place] = (run.right - run.right.mean()) / len(run.right)
    return deviations


def _places(runs: Sequence[Hits]) -> tuple[int, Sequence[np.ndarray | slice]]:
    """How many images all runs have, and the places of each run's among them."""
    first = runs[0].images
    if all(run.images is first or np.array_equal(run.images, first) for run in runs):
        return len(first), [slice(None)] * len(runs)
    images, places = np.unique(np.concatenate([run.images for run in runs]), return_inverse=True)
    ends = np.cumsum([len(run.images) for run in runs])[:-1]
    return len(images), np.split(places, ends)


def _estimate(means: np.ndarray, deviations: np.ndarray, images: float) -> Estimate:
    """The mean of repeats (R,), with variances from the deviations (R, images)."""
    repeats, unbiased = len(means), images / max(images - 1, 1)
    squares = float((deviations**2).sum()) * unbiased
    if repeats == 1:
        return Estimate(float(means[0]), 0.0, squares, 1, images)
    by_repeats = float(means.var(ddof=1)) / repeats
    of_sums = float((deviations.sum(axis=0) ** 2).sum()) * unbiased
    covariance = (of_sums - squares) / (repeats * (repeats - 1))
    # Not less than if all answers were independent of each other, which they never are.
    by_images = max(covariance, squares / repeats**2 - by_repeats, 0.0)
    return Estimate(float(means.mean()), by_repeats, by_images, repeats, images)


def accuracy_interval(estimate: Estimate) -> tuple[float, float]:
    """The 95 percent interval of an accuracy on new images, as shares.

    Wilson's interval of the number of images that would give the estimate's variance. Of a single
    repeat it is about this very model: it knows nothing of other repeats.
    """
    share = estimate.value
    if estimate.variance <= 0 or share in (0, 1) or estimate.repeats == 1:
        return wilson(share, estimate.images, _normal_quantile())
    return wilson(share, share * (1 - share) / estimate.variance, critical_value(estimate))


def wilson(share: float, images: float, critical: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of so many images."""
    ratio = critical**2 / images
    centre = (share + ratio / 2) / (1 + ratio)
    reach = critical / (1 + ratio) * sqrt(share * (1 - share) / images + ratio / (4 * images))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def critical_value(estimate: Estimate) -> float:
    """How many standard errors the 95 percent interval of an accuracy reaches.

    Between Satterthwaite's and Fisher's, on a logarithmic scale: the more of the variance comes
    from the repeats, the nearer to Fisher's. Of two repeats or more.
    """
    from scipy.special import stdtrit

    of_repeats = estimate.by_repeats / estimate.variance
    freedom = (estimate.repeats - 1) / max(of_repeats, 1e-6) ** 2
    satterthwaite = float(stdtrit(freedom, 1 - ALPHA / 2))
    fisher = difference_reach(estimate) / sqrt(estimate.variance)
    weight = sqrt(of_repeats)
    return satterthwaite ** (1 - weight) * fisher**weight


def difference_interval(estimate: Estimate) -> tuple[float, float]:
    """The 95 percent interval of a difference of two accuracies, of two repeats or more."""
    reach = difference_reach(estimate)
    return max(-1.0, estimate.value - reach), min(1.0, estimate.value + reach)


def difference_reach(estimate: Estimate) -> float:
    """How far the interval by Fisher's solution reaches on each side."""
    if estimate.variance <= 0:
        return 0.0
    return _where_falls_to(ALPHA, lambda reach: _beyond(reach, estimate), sqrt(estimate.variance))


def p_value(estimate: Estimate) -> float:
    """How probable a difference at least as large is where there is none; 1 of a single repeat.

    One run of each row tells two models apart, not two ways to train.
    """
    if estimate.repeats == 1 or estimate.variance <= 0:
        return 1.0
    return _beyond(abs(estimate.value), estimate)


def _beyond(reach: float, estimate: Estimate) -> float:
    """P(|Z| sqrt(V) > reach), where V has the variance of the repeats as the data leave it.

    That is its estimate times R - 1 over a chi-squared number of R - 1 degrees of freedom.
    """
    from scipy.special import erfc

    factors, weights = _unknown_variance(estimate.repeats - 1)
    variances = estimate.by_repeats * factors + estimate.by_images
    return float(weights @ erfc(reach / np.sqrt(2 * variances)))


@cache
def _unknown_variance(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a mean over freedom / chi-squared.

    Gauss and Legendre's, in the fourth root of the probability: the small chi-squared numbers, of
    which the tail is made, are met more often.
    """
    from scipy.special import chdtri

    roots, weights = np.polynomial.legendre.leggauss(NODES)
    root = (roots + 1) / 2
    return freedom / chdtri(freedom, 1 - root**4), weights / 2 * 4 * root**3


def _where_falls_to(level: float, falling: Callable[[float], float], step: float) -> float:
    """The place from 0 on at which a falling function has come down to a level."""
    from scipy.optimize import brentq

    high = step
    while falling(high) > level:
        high *= 2
    return float(brentq(lambda at: falling(at) - level, 0, high, xtol=1e-9))


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri(1 - ALPHA / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: below 0.05 of none, in 95 percent of tables without any.

    Args:
        p_values: Of all comparisons of a table.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    rising = np.maximum.accumulate(np.minimum(np.asarray(p_values)[order] * factors, 1.0))
    adjusted = np.empty(len(p_values))
    adjusted[order] = rising
    return adjusted.tolist()
