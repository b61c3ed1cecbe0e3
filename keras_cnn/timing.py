"""Where the time goes: parts of the work are timed, and whoever wants to know adds them up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple


class Seconds(NamedTuple):
    """Time by the clock, and of the processor in all threads of this process."""

    clock: float = 0.0
    processor: float = 0.0

    @classmethod
    def now(cls) -> Seconds:
        """Since some moment; the processor's since this process began."""
        return cls(time.perf_counter(), time.process_time())

    def plus(self, other: Seconds) -> Seconds:
        """The sum with another."""
        return Seconds(self.clock + other.clock, self.processor + other.processor)

    def minus(self, other: Seconds) -> Seconds:
        """What is left without another."""
        return Seconds(self.clock - other.clock, self.processor - other.processor)


@dataclass
class _Sums:
    by_part: dict[str, Seconds] = field(default_factory=dict)
    # What blocks inside the innermost one have taken so far.
    inside: Seconds = field(default_factory=Seconds)


_adding: ContextVar[_Sums | None] = ContextVar("_adding", default=None)


@contextmanager
def adding_up() -> Iterator[dict[str, Seconds]]:
    """Seconds by part of the work, of the `timed` blocks that end while this one lasts."""
    sums = _Sums()
    token = _adding.set(sums)
    try:
        yield sums.by_part
    finally:
        _adding.reset(token)


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Adds a block's seconds to a part's, less those of `timed` blocks inside, where one adds up.

    Args:
        part: What is done: data, network, features, training, evaluation, saving.
    """
    sums = _adding.get()
    if sums is None:
        yield
        return
    began, around = Seconds.now(), sums.inside
    sums.inside = Seconds()
    try:
        yield
    finally:
        whole = Seconds.now().minus(began)
        before = sums.by_part.get(part, Seconds())
        sums.by_part[part] = before.plus(whole).minus(sums.inside)
        sums.inside = around.plus(whole)
