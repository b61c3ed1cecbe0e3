"""Jobs to an executor, a bounded number at a time, until all have ended."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from keras_cnn.runs.jobs import ENDS, Event, Job

TRIES = 3  # of a job whose machine or time ends


class Executor(AbstractContextManager, Protocol):
    """Where jobs are run. Leaving it ends what is under way.

    Attributes:
        slots: How many jobs it takes at a time.
    """

    slots: int

    def submit(self, job: Job) -> None:
        """Takes a job; what happens to it comes by `next_event`."""

    def next_event(self) -> Event:
        """Waits for the next event of any job; the last one of each is one of `jobs.ENDS`."""


def execute(
    jobs: Sequence[Job], executor: Executor, notify: Callable[[Event], None]
) -> list[Event]:
    """Runs all jobs, and goes on when one fails.

    A job that another process holds is put at the end of the line; the second time it waits. One
    that is lost, with its machine for one, is put there too, and fails when it is lost for the
    third time.

    Args:
        jobs: What to run, in this order.
        executor: Where.
        notify: Called with every event.

    Returns:
        The `failed` events.
    """
    running = 0
    waiting = deque(jobs)
    lost: Counter[Path] = Counter()
    failed: list[Event] = []
    with executor:
        while waiting or running:
            while waiting and running < executor.slots:
                executor.submit(waiting.popleft())
                running += 1
            event = executor.next_event()
            running -= event.kind in ENDS
            if event.kind == "lost":
                lost[event.job.folder] += 1
                if lost[event.job.folder] == TRIES:
                    event = replace(event, kind="failed", error=f"{event.error}, {TRIES} times")
            notify(event)
            if event.kind == "busy":
                waiting.append(replace(event.job, wait=True))
            elif event.kind == "lost":
                waiting.append(event.job)
            elif event.kind == "failed":
                failed.append(event)
    return failed
