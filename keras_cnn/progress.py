"""Progress on standard error: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from keras_cnn.runs.jobs import Event, Job

SECONDS_BETWEEN_LINES = 5.0


class Display:
    """Bars that come and go on a terminal, lines elsewhere. A context manager.

    Args:
        at_once: The first `line` is printed without waiting.
    """

    def __init__(self, at_once: bool = False) -> None:
        self._bars = _rich_bars() if sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._line_due = time.monotonic() + (0 if at_once else SECONDS_BETWEEN_LINES)

    def __enter__(self) -> Display:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars:
            self._bars.stop()

    def bar(self, name: str, done: float, total: float, note: str) -> None:
        """Moves the bar of this name, which is made where there is none; only on a terminal."""
        if not self._bars:
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, note=note)
        self._bars.update(self._tasks[name], completed=done, total=total, note=note)

    def remove(self, name: str) -> None:
        """Takes a bar away."""
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))

    def line(self, text: str) -> None:
        """Prints a line unless the last one is recent; not on a terminal, which has the bars."""
        if not self._bars and time.monotonic() >= self._line_due:
            self.say(text)

    def say(self, text: str) -> None:
        """Prints a line, above the bars."""
        self._line_due = time.monotonic() + SECONDS_BETWEEN_LINES
        if self._bars:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _rich_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )


@contextmanager
def bar(
    what: str,
    total: int,
    done: int = 0,
    amount: Callable[[int, int], str] = "{:,} of {:,}".format,
    at_once: bool = False,
) -> Iterator[Callable[[int], None]]:
    """Shows how far a loop is while the block runs.

    Args:
        what: What goes on, such as `decoding cinic10-train`.
        total: How many things there are.
        done: How many of them were done before.
        amount: Words for the number done and the total.
        at_once: Where lines are printed, print the first without waiting.

    Yields:
        A function to call with the number done so far.

    Example:
        with progress.bar("decoding", len(paths)) as advance:
            for done, path in enumerate(paths, start=1):
                decode(path)
                advance(done)
    """
    began = time.monotonic()
    with Display(at_once) as display:

        def advance(now_done: int) -> None:
            each = (time.monotonic() - began) / max(1, now_done - done)
            note = f"{amount(now_done, total)}, {duration(each * (total - now_done))} left"
            display.bar(what, now_done, total, note)
            display.line(f"{what}: {note}")

        yield advance


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """Shows work of several steps while the block runs, and how long each will take yet.

    Yields:
        A function to call with what is done, how much of it so far, and of how much.
    """
    began: dict[str, float] = {}
    with Display() as display:

        def advance(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            so_far = now - began.setdefault(what, now)
            note = f"{done:,} of {total:,}"
            if so_far and done < total:
                note += f", {duration(so_far / done * (total - done))} left"
            display.bar(what, done, total, note)
            display.line(f"{what}: {note}")

        yield advance


@contextmanager
def shown(jobs: list[Job]) -> Iterator[Callable[[Event], None]]:
    """Shows the engine's events while the block runs: a bar for all runs, one for each under way.

    Args:
        jobs: All jobs of the command.

    Yields:
        What `engine.execute` calls with each event.
    """
    with Display() as display:
        yield _Runs(display, jobs).show


class _Runs:
    """What a display says of runs.

    The time left is that of the epochs left, at the pace of all epochs since the command began.
    """

    def __init__(self, display: Display, jobs: list[Job]) -> None:
        self._display, self._total = display, len(jobs)
        self._epochs_left = {job.folder: _epochs(job) for job in jobs}
        self._epochs_done = self._finished = 0
        self._began = time.monotonic()
        self._began_run: dict = {}  # by run folder, as all of these
        self._figures: dict = {}  # of the last epoch
        self._diverged: dict = {}  # from which epoch on
        self._notes: set[str] = set()  # said so far
        self._show_all()

    def show(self, event: Event) -> None:
        """Moves the bars, or prints what is worth a line."""
        job, name = event.job, title(event.job)
        if event.kind == "started":
            self._began_run[job.folder] = time.monotonic()
            self._display.bar(name, 0, _epochs(job), "starting")
        elif event.kind == "epoch":
            self._show_epoch(job, event.record)
        elif event.kind == "note":
            if (note := event.record["note"]) not in self._notes:  # runs may have the same to say
                self._display.say(note)
            self._notes.add(note)
        elif event.kind == "spent":
            return  # `bench sweep` tells it
        elif event.kind == "busy":  # comes again, from its first epoch
            self._epochs_left[job.folder] = _epochs(job)
            self._display.remove(name)
        else:
            self._finished += 1
            del self._epochs_left[job.folder]
            self._display.remove(name)
            more = event.error if event.kind == "failed" else self._figures.get(job.folder)
            self._display.say(self._line(f"{name} {event.kind}{f': {more}' if more else ''}"))
        self._show_all()

    def _show_all(self) -> None:
        note = f"{self._finished}/{self._total}, {self._left()} left"
        self._display.bar("runs", self._finished, self._total, note)

    def _show_epoch(self, job: Job, record: dict) -> None:
        epoch = record["epoch"]
        epochs = record.get("epochs", _epochs(job))  # found out under way, or as planned
        self._epochs_done += 1
        self._epochs_left[job.folder] = epochs - epoch
        if any(record.get(name, 0) is None for name in ("train_loss", "test_loss")):  # not finite
            self._diverged.setdefault(job.folder, epoch)
        figures = f"train {record['train_accuracy']:.1%}, test {record['test_accuracy']:.1%}"
        if job.folder in self._diverged:
            figures = f"diverged at epoch {self._diverged[job.folder]}"
        if "images" in record:
            figures += f", {record['images'] / record['seconds']:,.0f} images/s"
        self._figures[job.folder] = figures
        name, so_far = title(job), time.monotonic() - self._began_run[job.folder]
        note = f"{figures}, {duration(so_far / epoch * (epochs - epoch))} left"
        self._display.bar(name, epoch, epochs, f"{epoch}/{epochs} {note}")
        self._display.line(self._line(f"{name} epoch {epoch}/{epochs}: {figures}"))

    def _line(self, text: str) -> str:
        return f"[{self._finished}/{self._total}] {text} ({self._left()} left)"

    def _left(self) -> str:
        """The time that all runs together need yet; `?` while nothing has been measured."""
        if not self._epochs_done:
            return "?"
        each = (time.monotonic() - self._began) / self._epochs_done
        return duration(each * sum(self._epochs_left.values()))


def duration(seconds: float) -> str:
    """`"1 h 02 min"`, `"3 min 20 s"` or `"7 s"`."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def runs(count: int) -> str:
    """`"1 run"` or `"12 runs"`."""
    return "1 run" if count == 1 else f"{count} runs"


def _epochs(job: Job) -> int:
    return getattr(job.run.spec.training, "epochs", 1)  # a method of one's own may have none


def title(job: Job) -> str:
    """What a person calls a run."""
    place = job.run.place
    return f"row {place.row} {place.variant} repeat {place.repeat + 1}"
