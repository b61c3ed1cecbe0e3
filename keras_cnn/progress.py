"""Progress of a recipe: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from keras_cnn.runs.engine import Event, Job

PLAIN_PAUSE_SECONDS = 10.0


@dataclass
class Clock:
    """Time left, from the epochs done so far.

    Attributes:
        epochs_left: Epochs still to train, by run folder.
        epochs_done: Since the command began.
        began: When it began.
    """

    epochs_left: dict
    epochs_done: int = 0
    began: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float | None:
        """For all jobs together; None while nothing has been measured."""
        if not self.epochs_done:
            return None
        rate = (time.monotonic() - self.began) / self.epochs_done
        return rate * sum(self.epochs_left.values())


@contextmanager
def shown(jobs: list[Job]) -> Iterator[object]:
    """A function that shows the engine's events, on standard error.

    Args:
        jobs: All jobs of the command.

    Yields:
        What `engine.execute` calls with each event.
    """
    clock = Clock({job.folder: job.run.spec.training.epochs for job in jobs})
    if sys.stderr.isatty():
        with _Live(clock, len(jobs)) as live:
            yield live.show
    else:
        yield _Plain(clock, len(jobs)).show


def duration(seconds: float | None) -> str:
    """`"1 h 02 min"`, `"3 min 20 s"` or `"7 s"`."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def runs(count: int) -> str:
    """`"1 run"` or `"12 runs"`."""
    return "1 run" if count == 1 else f"{count} runs"


def title(job: Job) -> str:
    """What a person calls a run."""
    return f"row {job.run.place.row} {job.run.place.variant} repeat {job.run.place.repeat + 1}"


def _count(clock: Clock, event: Event) -> None:
    if event.kind == "epoch":
        clock.epochs_done += 1
        left = _epochs(event.job, event.record) - event.record["epoch"]
        clock.epochs_left[event.job.folder] = left
    elif event.kind in ("done", "failed"):
        clock.epochs_left.pop(event.job.folder, None)
    elif event.kind == "busy":
        clock.epochs_left[event.job.folder] = event.job.run.spec.training.epochs


def _epochs(job: Job, record: dict) -> int:
    return record.get("epochs", job.run.spec.training.epochs)  # found out under way, or as planned


def _figures(record: dict) -> str:
    figures = f"train {record['train_accuracy']:.1%}, test {record['test_accuracy']:.1%}"
    if "images" in record:
        figures += f", {record['images'] / record['seconds']:,.0f} images/s"
    return figures


class _Plain:
    """One line a finished run, and one every few seconds between."""

    def __init__(self, clock: Clock, total: int) -> None:
        self._clock, self._total = clock, total
        self._finished = 0
        self._last_line = time.monotonic()
        self._records: dict = {}

    def show(self, event: Event) -> None:
        """Prints what is worth a line."""
        _count(self._clock, event)
        job, now = event.job, time.monotonic()
        if event.kind == "epoch":
            self._records[job.folder] = event.record
            if now - self._last_line < PLAIN_PAUSE_SECONDS:
                return
            done = f"{event.record['epoch']}/{_epochs(job, event.record)}"
            text = f"epoch {done}: {_figures(event.record)}"
        elif event.kind in ("done", "failed"):
            self._finished += 1
            record = self._records.get(job.folder)
            text = f"failed: {event.error}" if event.kind == "failed" else "done"
            text += f": {_figures(record)}" if event.kind == "done" and record else ""
        else:
            return
        self._last_line = now
        left = duration(self._clock.seconds_left())
        print(
            f"[{self._finished}/{self._total}] {title(job)} {text} ({left} left)",
            file=sys.stderr,
            flush=True,
        )


class _Live:
    """A bar for the recipe and one for each run under way."""

    def __init__(self, clock: Clock, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._clock = clock
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._whole = self._progress.add_task("runs", total=total, note="")
        self._tasks: dict = {}
        self._began: dict = {}

    def __enter__(self) -> _Live:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Moves the bars."""
        _count(self._clock, event)
        folder, run = event.job.folder, event.job.run
        if event.kind == "started":
            self._began[folder] = time.monotonic()
            self._tasks[folder] = self._progress.add_task(
                title(event.job), total=run.spec.training.epochs, note="starting"
            )
        elif event.kind == "epoch":
            epoch = event.record["epoch"]
            epochs = _epochs(event.job, event.record)
            left = duration((time.monotonic() - self._began[folder]) / epoch * (epochs - epoch))
            note = f"{_figures(event.record)}, {left} left"
            task = self._tasks[folder]
            self._progress.update(task, completed=epoch, total=epochs, note=note)
        else:
            self._progress.remove_task(self._tasks.pop(folder))
            if event.kind != "busy":
                self._progress.advance(self._whole)
            if event.kind == "failed":
                text = f"{title(event.job)} failed: {event.error}"
                self._progress.console.print(text, markup=False)
        left = duration(self._clock.seconds_left())
        self._progress.update(self._whole, note=f"{left} left")
