"""What a run loses to other processes that keep every core busy, and what that costs alone."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence

import numpy as np

from keras_cnn import environment
from keras_cnn.bench import interleave
from keras_cnn.results import grid
from keras_cnn.results.grid import Column

SLEEPS, SPINS, ALONE = "tuning, sleeps beside others", "tuning, as it comes", "tuning"
SECONDS_TO_SETTLE = 1.5  # before each turn: a run looks around every half second
MOST_TIMES, LEAST_IDLE = 2.2, 0.97
HOW = (
    "Fine-tuning ConvNeXt-Atto (320 images, an epoch) on idle cores, and beside as many busy loops "
    "as there are cores, which come when it has started; turns one after the other. The first is "
    "what runs do, the second leaves torch's threads as they are, the third has one thread. With "
    "an even share of the cores a run would take twice as long."
)
Seconds = dict[str, dict[str, list[float]]]  # by contender, `idle` and `beside`, of each round


def measured(rounds: int) -> Seconds:
    """Seconds of each turn.

    Args:
        rounds: Rounds that count; one more comes first.
    """
    cores = environment.cores()
    found: Seconds = {name: {"idle": [], "beside": []} for name in (SLEEPS, SPINS, ALONE)}
    with (
        interleave.started((SLEEPS, SPINS), cores) as several,
        interleave.started((ALONE,), 1) as one,
    ):
        for number in range(rounds + 1):
            for load, busy in (("idle", 0), ("beside", cores)):
                with _busy(busy):
                    for name, seconds in found.items():
                        time.sleep(SECONDS_TO_SETTLE)
                        turn = (one if name == ALONE else several)(name)
                        if number:
                            seconds[load].append(turn["seconds"])
    return found


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keeps so many cores busy while it lasts."""
    command = [*environment.PYTHON, "-c", "while True: pass"]
    loops = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def verdicts(found: Seconds) -> dict[str, tuple[float, float, float]]:
    """Medians and quartiles, of pairs by round.

    Returns:
        `beside`, how many times as long a run takes beside others as on idle cores; `idle`, how
        many times as fast as threads that are left as they come it is on idle cores.
    """
    ours, plain = found[SLEEPS], found[SPINS]
    pairs = {"beside": (ours["beside"], ours["idle"]), "idle": (plain["idle"], ours["idle"])}
    return {what: _quartiles(np.divide(*pair)) for what, pair in pairs.items()}


def markdown(found: Seconds) -> str:
    """Seconds of each contender, and whether the goals are met."""
    rows = []
    for name, seconds in found.items():
        times = _quartiles(np.divide(seconds["beside"], seconds["idle"]))
        rows.append((name, *(_told(_quartiles(seconds[load])) for load in seconds), _told(times)))
    judged = verdicts(found)
    goals = [
        (
            "times as long beside others as idle",
            _told(judged["beside"]),
            f"at most {MOST_TIMES}",
            "yes" if judged["beside"][1] <= MOST_TIMES else "no",
        ),
        (
            "times as fast as threads that spin, idle",
            _told(judged["idle"]),
            f"at least {LEAST_IDLE}",
            "yes" if judged["idle"][1] >= LEAST_IDLE else "no",
        ),
    ]
    tables = (
        (("run", "idle, s", "beside, s", "times as long"), rows),
        (("what runs do", "median (quartiles)", "goal", "met"), goals),
    )
    return "\n\n".join(
        grid.markdown(list(map(Column, headings, zip(*lines, strict=True))))
        for headings, lines in tables
    )


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    return tuple(map(float, np.quantile(values, [0.25, 0.5, 0.75])))


def _told(quartiles: tuple[float, float, float]) -> str:
    low, median, high = quartiles
    return f"{median:.2f} ({low:.2f} to {high:.2f})"
