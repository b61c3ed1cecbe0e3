"""What is measured against what, what is aimed at, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_cnn.results import grid
from keras_cnn.results.grid import Column


@dataclass(frozen=True)
class Goal:
    """One contender against others.

    Attributes:
        ours: A contender.
        peers: The others; in each round the fastest of them counts.
        at_least: How many times the peer's rate ours should be.
    """

    ours: str
    peers: tuple[str, ...]
    at_least: float


def _of_training(network: str) -> list[Goal]:
    ours = f"{network} ours"
    plain = (f"{network} torch", f"{network} torch channels-last")
    return [Goal(ours, plain, 1.0), Goal(ours, (f"{network} keras fit",), 1.6)]


BENCHES: dict[str, list[Goal]] = {
    "training": [*_of_training("baseline"), *_of_training("enhanced")],
    "loader": [
        Goal("feed", ("png loader",), 10.0),
        Goal("feed", ("sliced tensor",), 1.0),
        Goal("feed as floats", ("sliced tensor",), 1.0),
    ],
    "fewshot": [
        Goal("kept training", ("whole training",), 1.15),
        Goal("kept training", ("few-shot keras fit",), 1.6),
        Goal("kept evaluation", ("whole evaluation",), 1.5),
    ],
    "repeats": [Goal("repeats together", ("repeats in sequence",), 1.6)],
}


HOW = {
    "training": "Batch 64, Adam, 32x32 images in memory; whole training steps.",
    "loader": "Batches of 64, no training; the feed's are uint8, the sliced tensor is float32.",
    "fewshot": "ConvNeXt-Atto, last two stages train, batch 16, 1,000 images; evaluation by 256.",
    "repeats": "Five runs of 3 epochs with their processes' start: 2 at a time with 1 thread each, "
    "against one after the other with 2 threads.",
}


def contenders(bench: str) -> list[str]:
    """Who takes part in a bench, each once."""
    named = [name for goal in BENCHES[bench] for name in (goal.ours, *goal.peers)]
    return list(dict.fromkeys(named))


def ratio(ours: Sequence[float], peers: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """How many times the fastest peer's rate ours is, round by round.

    Args:
        ours: A rate for each round.
        peers: The same of each peer.

    Returns:
        Median and the quartiles below and above it.
    """
    ratios = np.asarray(ours) / np.max(peers, axis=0)
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(median), float(low), float(high)


def verdicts(bench: str, rates: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """Each goal of a bench with what was found.

    Args:
        bench: One of `BENCHES`.
        rates: By contender, images a second in each round.

    Returns:
        Dicts of `ours`, `peers`, `times` (median), `quartiles`, `goal` and `met`.
    """
    found = []
    for goal in BENCHES[bench]:
        median, low, high = ratio(rates[goal.ours], [rates[peer] for peer in goal.peers])
        found.append(
            {
                "ours": goal.ours,
                "peers": list(goal.peers),
                "times": median,
                "quartiles": [low, high],
                "goal": goal.at_least,
                "met": median >= goal.at_least,
            }
        )
    return found


def markdown(bench: str, rates: Mapping[str, Sequence[float]]) -> str:
    """Rates, ratios and whether the goals are met, as two tables.

    Args:
        bench: One of `BENCHES`.
        rates: By contender, images a second in each round.
    """
    speeds = []
    for name, values in rates.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        speeds.append((name, f"{median:,.0f}", f"{low:,.0f} to {high:,.0f}"))
    times = []
    for found in verdicts(bench, rates):
        low, high = found["quartiles"]
        words = (found["ours"], " or ".join(found["peers"]), f"{found['times']:.2f}")
        met = "yes" if found["met"] else "no"
        times.append((*words, f"{low:.2f} to {high:.2f}", f"{found['goal']:g}", met))
    return "\n\n".join(
        grid.markdown(list(map(Column, headings, zip(*rows, strict=True))))
        for headings, rows in (
            (("contender", "images/s, median", "quartiles"), speeds),
            (("ours", "against", "times", "quartiles", "goal", "met"), times),
        )
    )
