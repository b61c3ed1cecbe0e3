"""Runs, each in a fresh process, a bounded number at a time."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from keras_cnn import environment
from keras_cnn.recipe.spec import Run
from keras_cnn.runs.worker import EXIT_BUSY

CHILD = (sys.executable, "-m", "keras_cnn.runs.worker")


@dataclass(frozen=True)
class Job:
    """A run and the folder its result goes to.

    Attributes:
        run: What to do.
        folder: Where the result goes.
        fresh: Make it anew where it is there.
        wait: Wait while another process holds the run.
    """

    run: Run
    folder: Path
    fresh: bool = False
    wait: bool = False

    def __repr__(self) -> str:
        return f"Job({self.folder.name})"


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Attributes:
        job: The job it happened to.
        kind: `started`, `epoch`, `done`, `busy` (another process holds it) or `failed`.
        record: The epoch's record.
        error: One line that says why it failed.
        log: What the process wrote to standard error, where it failed.
    """

    job: Job
    kind: str
    record: dict | None = None
    error: str = ""
    log: str = field(default="", repr=False)


class LocalProcesses:
    """Fresh processes of this machine: submit, next event, cancel.

    Args:
        threads: Threads each may use; None leaves the backend's default.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads
        self._events: queue.Queue[Event] = queue.Queue()
        self._running: dict[Path, subprocess.Popen] = {}

    def submit(self, job: Job) -> None:
        """Starts a job in a process of its own."""
        # A file, not a pipe: nobody has to read it while the process runs.
        log = tempfile.TemporaryFile()  # noqa: SIM115 (its watcher outlives this call)
        process = subprocess.Popen(
            CHILD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={
                **os.environ,
                **environment.child_variables(job.run.spec.backend, self._threads),
                "PYTHONPATH": _import_path(),
            },
        )
        self._running[job.folder] = process
        line = {
            "run": job.run.model_dump(),
            "folder": str(job.folder),
            "fresh": job.fresh,
            "wait": job.wait,
        }
        with contextlib.suppress(BrokenPipeError):  # it died at once; the watcher says so
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()  # and left open: its end tells the process that we are gone
        threading.Thread(target=self._watch, args=(job, process, log), daemon=True).start()

    def next_event(self) -> Event:
        """Waits for the next event of any job."""
        event = self._events.get()
        if event.kind in ("done", "busy", "failed"):
            with contextlib.suppress(BrokenPipeError):  # it may never have read its job
                self._running.pop(event.job.folder).stdin.close()
        return event

    def cancel(self) -> None:
        """Ends all processes; what they had not finished is as if never begun."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()

    def _watch(self, job: Job, process: subprocess.Popen, log: IO[bytes]) -> None:
        error = ""
        for line in process.stdout:
            record = _report(line)
            if record is None:
                continue
            if "error" in record:
                error = record["error"]
            else:
                self._events.put(Event(job, "epoch", record))
        code = process.wait()
        if code in (0, EXIT_BUSY):
            self._events.put(Event(job, "done" if code == 0 else "busy"))
            return
        log.seek(0)
        text = log.read().decode(errors="replace")
        self._events.put(Event(job, "failed", error=error or _death(code, text), log=text))


def execute(
    jobs: Sequence[Job], parallel: int, threads: int | None, notify: Callable[[Event], None]
) -> list[Event]:
    """Runs all jobs, a number at a time, and goes on when one fails.

    A job that another process holds is put at the end of the line; the second time it waits.

    Args:
        jobs: What to run, in this order.
        parallel: How many at a time.
        threads: Threads each may use; None leaves the backend's default.
        notify: Called with every event.

    Returns:
        The `failed` events.
    """
    processes = LocalProcesses(threads)
    waiting = deque(jobs)
    failed: list[Event] = []
    running = 0
    try:
        while waiting or running:
            while waiting and running < parallel:
                job = waiting.popleft()
                notify(Event(job, "started"))
                processes.submit(job)
                running += 1
            event = processes.next_event()
            notify(event)
            if event.kind == "epoch":
                continue
            running -= 1
            if event.kind == "busy":
                waiting.append(replace(event.job, wait=True))
            elif event.kind == "failed":
                failed.append(event)
    finally:
        processes.cancel()
    return failed


def _report(line: bytes) -> dict | None:
    """A line of standard output; None for one that is no report, such as a library's greeting."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.keys() & {"epoch", "error"} else None


def _death(code: int, log: str) -> str:
    """Why a process that reported no error ended."""
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    lines = log.strip().splitlines()
    return f"exit code {code}: {lines[-1] if lines else 'no message'}"


def _import_path() -> str:
    """Lets the child import this very package, also from a checkout that is not installed."""
    here = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([here, inherited] if inherited else [here])
