"""Runs, each in a process of its own, a bounded number at a time."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keras_cnn import environment, files
from keras_cnn.errors import UserError, printable
from keras_cnn.recipe.spec import Run, Spec
from keras_cnn.runs.fork_server import ForkServer, can_fork
from keras_cnn.runs.worker import EXIT_BUSY

REPORTS = ("epoch", "note", "spent")  # of a run under way, each a record with its name in it
CHILD = (*environment.PYTHON, "-m", "keras_cnn.runs.worker")


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
        kind: `started`, `epoch`, `note` (a line worth telling), `spent` (seconds by part of the
            work, by the clock and of the processor), `done`, `busy` (another process holds it) or
            `failed`.
        record: The epoch's record, or `note`, or `spent`.
        error: One line that says why it failed.
        log: What the process wrote to standard error, where it failed.
    """

    job: Job
    kind: str
    record: dict | None = None
    error: str = ""
    log: str = field(default="", repr=False)


class Child:
    """A process with a framework of its own, that ends when this one does.

    Args:
        task: What it is to do, as `worker.main` reads it.
        spec: Whose backend and threads it starts with.
        server: Forks it; where there is none, or no more, it is a fresh process.
    """

    def __init__(
        self, task: Mapping[str, object], spec: Spec, server: ForkServer | None = None
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (not a pipe: nobody has to read it)
        self._scratch = files.temporary_folder()  # ours: it goes however the process ends
        self._process = None
        if server:
            with contextlib.suppress(ChildProcessError):
                self._process = server.start(self._log)
        if not self._process:
            self._process = subprocess.Popen(
                CHILD,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment.of_child(spec.backend, spec.threads),
            )
        task = {**task, "scratch": self._scratch.name}
        with contextlib.suppress(BrokenPipeError):  # it died at once, which its end tells
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()  # and left open: its end tells the process that we are gone

    def records(self) -> Iterator[dict]:
        """What it reports, until it ends. Other lines are a library's greeting."""
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and record.keys() & {*REPORTS, "error"}:
                    yield record

    def end(self) -> tuple[int, str, str]:
        """Waits for its end: exit code, what it died of if it told nothing, standard error."""
        code = self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # it may never have read its task
            self._process.stdin.close()
        self._process.stdout.close()
        self._scratch.cleanup()
        with self._log:
            self._log.seek(0)
            log = self._log.read().decode(errors="replace")
        if code < 0:
            return code, f"killed by signal {-code}{' (out of memory?)' if code == -9 else ''}", log
        last = log.strip().splitlines()[-1:] or ["no message"]
        return code, f"exit code {code}: {last[0]}", log

    def kill(self) -> None:
        """Ends it at once; what it had not finished is as if never begun."""
        self._process.kill()
        self._process.wait()
        self._scratch.cleanup()


def execute(jobs: Sequence[Job], parallel: int, notify: Callable[[Event], None]) -> list[Event]:
    """Runs all jobs, a number at a time, and goes on when one fails.

    A job that another process holds is put at the end of the line; the second time it waits.

    Args:
        jobs: What to run, in this order.
        parallel: How many at a time.
        notify: Called with every event.

    Returns:
        The `failed` events.
    """
    events: queue.Queue[Event] = queue.Queue()
    running: dict[Path, Child] = {}
    waiting = deque(jobs)
    failed: list[Event] = []
    with _server(jobs) as server, _killed_at_the_end(running):
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.popleft()
                notify(Event(job, "started"))
                running[job.folder] = child = _start(job, server)
                threading.Thread(target=_watch, args=(job, child, events), daemon=True).start()
            event = events.get()
            if event.kind not in REPORTS:
                del running[event.job.folder]
            notify(event)
            if event.kind == "busy":
                waiting.append(replace(event.job, wait=True))
            elif event.kind == "failed":
                failed.append(event)
    return failed


@contextlib.contextmanager
def _server(jobs: Sequence[Job]) -> Iterator[ForkServer | None]:
    """What forks those jobs that can be forked; None where it would fork less than two."""
    specs = [job.run.spec for job in jobs if can_fork(job.run.spec)]
    if len(specs) < 2:
        yield None
        return
    with ForkServer(environment.of_child(specs[0].backend, specs[0].threads)) as server:
        yield server


@contextlib.contextmanager
def _killed_at_the_end(running: Mapping[Path, Child]) -> Iterator[None]:
    try:
        yield
    finally:
        for child in running.values():
            child.kill()


def _start(job: Job, server: ForkServer | None) -> Child:
    task = {"folder": str(job.folder), "fresh": job.fresh, "wait": job.wait}
    spec = job.run.spec
    return Child({"run": job.run.model_dump(), **task}, spec, server if can_fork(spec) else None)


def _watch(job: Job, child: Child, events: queue.Queue[Event]) -> None:
    """Turns what a process reports into events, until it ends."""
    error = ""
    for record in child.records():
        if "error" in record:
            error = record["error"]
        else:
            events.put(Event(job, next(kind for kind in REPORTS if kind in record), record))
    code, death, log = child.end()
    if code in (0, EXIT_BUSY):
        events.put(Event(job, "done" if code == 0 else "busy"))
    else:
        events.put(Event(job, "failed", error=printable(error or death), log=log))


def check_weights(spec: Spec) -> None:
    """Fits the weights a run starts from to its network, in a process of its own.

    Raises:
        UserError: They cannot be used.
    """
    child = Child({"weights_of": spec.model_dump()}, spec)
    try:
        errors = [record["error"] for record in child.records() if "error" in record]
        code, death, _ = child.end()
    except BaseException:  # an interrupt, too, leaves no process
        child.kill()
        raise
    if code:
        raise UserError(errors[0] if errors else f"{spec.network.weights}: {death}")
