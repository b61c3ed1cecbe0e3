"""Jobs on other machines that share a disk with this one.

What goes there and comes back are files, in a folder for each job beside the results:

    OUT/<recipe>/.jobs/<run>/
        task.json       what to do (`Job.task`)
        ticket.json     which cluster took it, and under what name
        reports.jsonl   what the run reported so far, a line each
        log             what it wrote to standard error, where it failed
        end.json        how it ended: one of `jobs.ENDS`, and an error

`remote.main` does the task on the other machine. A cluster, Slurm for one, is asked for three
things alone: to send folders, to say which of them will not end any more by themselves, and to
cancel. The result itself is a run folder, as of any run, and the only truth: a command that comes
back finds what is finished, and what is still under way.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from keras_cnn import files
from keras_cnn.runs.jobs import REPORTS, Event, Job

FOLDER = ".jobs"
SECONDS_BETWEEN_LOOKS = 0.5  # at the job folders
SECONDS_BETWEEN_QUESTIONS = 5.0  # to the cluster
SECONDS_TO_APPEAR = 10.0  # for what a machine that has ended wrote last


@dataclass(frozen=True)
class Gone:
    """Why a job that the cluster took will not end by itself.

    Attributes:
        why: A few words.
        again: Whether it is worth another try; not if its user cancelled it.
    """

    why: str
    again: bool = True


class Cluster(Protocol):
    """What runs job folders: `python -m keras_cnn.runs.remote FOLDER`, on some machine.

    Attributes:
        name: As after `--on=`.
    """

    name: str

    def open(self) -> None:
        """Connects.

        Raises:
            UserError: It is not here.
        """

    def send(self, folders: Sequence[Path]) -> list[str]:
        """Takes job folders; gives the name of each that the cluster knows it by."""

    def gone(self, tickets: Collection[str]) -> dict[str, Gone]:
        """Those of some jobs that have ended, for whatever reason, or are not known."""

    def cancel(self, tickets: Collection[str]) -> None:
        """Ends jobs, whether they wait or run."""

    def close(self) -> None:
        """Disconnects; what is under way may go on."""


@dataclass
class _Sent:
    """A job that the cluster has, and how much of its folder was read."""

    job: Job
    folder: Path
    ticket: str = ""
    position: int = 0
    has_started: bool = False
    gone: Gone | None = None
    gone_since: float = 0.0


class Remote:
    """An `engine.Executor` of a cluster.

    Where it is left by an interrupt from the keyboard, the jobs are cancelled. However else this
    process ends, those under way go on where the cluster lets them, and the next command that asks
    for them follows them instead of sending them again.

    Args:
        cluster: What runs job folders.
        slots: Jobs it is given at a time.
    """

    def __init__(self, cluster: Cluster, slots: int) -> None:
        self.slots = slots
        self._cluster = cluster
        self._to_send: list[_Sent] = []
        self._sent: dict[Path, _Sent] = {}
        self._events: deque[Event] = deque()
        self._asked = 0.0
        self._folders: set[Path] = set()

    def __enter__(self) -> Remote:
        self._cluster.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is KeyboardInterrupt:  # itself: what derives from it came from no keyboard
                self._cluster.cancel([sent.ticket for sent in self._sent.values()])
                for sent in self._sent.values():
                    shutil.rmtree(sent.folder, ignore_errors=True)
        finally:
            self._cluster.close()
        if not kind or kind is KeyboardInterrupt:
            _tidy(self._folders)

    def submit(self, job: Job) -> None:
        """Takes a job; it is sent with all others, when an event is asked for."""
        sent = _Sent(job, folder_of(job))
        self._folders.add(sent.folder.parent)
        self._to_send.append(sent)

    def next_event(self) -> Event:
        """Waits for it, looking at the job folders."""
        self._send()
        while not self._events:
            for sent in [*self._sent.values()]:
                self._look_at(sent)
            if self._events:
                break
            if time.monotonic() - self._asked > SECONDS_BETWEEN_QUESTIONS:
                self._ask()
            else:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        return self._events.popleft()

    def _send(self) -> None:
        """Sends what the cluster does not have already, from an earlier command."""
        if not self._to_send:
            return
        for sent in self._to_send:
            ticket = _ticket(sent.folder)
            if ticket and ticket["on"] == self._cluster.name:
                sent.ticket = ticket["name"]
        gone = self._cluster.gone([sent.ticket for sent in self._to_send if sent.ticket])
        new = [sent for sent in self._to_send if not sent.ticket or sent.ticket in gone]
        for sent in new:
            _write_task(sent)
        tickets = self._cluster.send([sent.folder for sent in new]) if new else []
        for sent, ticket in zip(new, tickets, strict=True):
            sent.ticket = ticket
        self._sent |= {sent.job.folder: sent for sent in self._to_send}  # known to a cancel at once
        self._to_send.clear()
        for sent in new:
            content = json.dumps({"on": self._cluster.name, "name": sent.ticket})
            files.write_text(sent.folder / "ticket.json", content)

    def _look_at(self, sent: _Sent) -> None:
        """Turns what is new in a job's folder into events."""
        end = read_end(sent.folder)  # before the reports: none comes after it
        for record in _new_reports(sent):
            if not sent.has_started:
                sent.has_started = True
                self._events.append(Event(sent.job, "started"))
            if kind := next((kind for kind in REPORTS if kind in record), None):
                self._events.append(Event(sent.job, kind, record))
        if end == ("done", "") and not files.is_there(sent.job.folder):
            self._is_gone(sent, Gone("its result did not appear"))
        elif end:
            kind, error = end
            log = _text(sent.folder / "log") if kind == "failed" else ""
            self._end(sent, Event(sent.job, kind, error=error, log=log))
        if sent.gone and time.monotonic() - sent.gone_since > SECONDS_TO_APPEAR:
            if files.is_there(sent.job.folder) and not sent.job.fresh:
                self._end(sent, Event(sent.job, "done"))
            else:
                kind = "lost" if sent.gone.again else "failed"
                self._end(sent, Event(sent.job, kind, error=sent.gone.why))

    def _is_gone(self, sent: _Sent, gone: Gone) -> None:
        if not sent.gone:
            sent.gone, sent.gone_since = gone, time.monotonic()

    def _end(self, sent: _Sent, event: Event) -> None:
        self._events.append(event)
        del self._sent[sent.job.folder]
        sent.gone = None
        shutil.rmtree(sent.folder, ignore_errors=True)

    def _ask(self) -> None:
        """Asks the cluster which jobs are gone."""
        by_ticket = {sent.ticket: sent for sent in self._sent.values() if not sent.gone}
        for ticket, gone in self._cluster.gone(by_ticket.keys()).items():
            self._is_gone(by_ticket[ticket], gone)
        self._asked = time.monotonic()


def _write_task(sent: _Sent) -> None:
    """Makes a job's folder anew."""
    shutil.rmtree(sent.folder, ignore_errors=True)
    sent.folder.mkdir(parents=True)
    task = sent.job.task() | {"variables": own_variables()}
    files.write_text(sent.folder / "task.json", json.dumps(task))


def folder_of(job: Job) -> Path:
    """The folder of a job's files."""
    return job.folder.absolute().parent / FOLDER / job.folder.name


def ticket_of(job: Job) -> dict[str, str] | None:
    """Which cluster took a job that has not ended, `on`, and its `name` there; None: none did."""
    return _ticket(folder_of(job))


def _ticket(folder: Path) -> dict[str, str] | None:
    try:
        ticket = files.read_json(folder / "ticket.json")
        found = {"on": str(ticket["on"]), "name": str(ticket["name"])}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return None if files.is_there(folder / "end.json") else found


def report(folder: Path, record: dict) -> None:
    """Appends a line to a job's reports, whole."""
    with (folder / "reports.jsonl").open("a", encoding="utf-8") as file:
        file.write(files.json_text(record, indent=None) + "\n")


def tell_end(folder: Path, kind: str, error: str = "", log: str = "") -> None:
    """Says in a job's folder how it ended."""
    if log:
        files.write_text(folder / "log", log)
    files.write_text(folder / "end.json", json.dumps({"kind": kind, "error": error}))


def _new_reports(sent: _Sent) -> Iterator[dict]:
    with contextlib.suppress(FileNotFoundError), (sent.folder / "reports.jsonl").open("rb") as file:
        file.seek(sent.position)
        for line in file:
            if not line.endswith(b"\n"):
                return  # half written
            sent.position += len(line)
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def own_variables() -> dict[str, str]:
    """Environment variables of ours, which hold on the other machine, too."""
    return {name: value for name, value in os.environ.items() if name.startswith("KERAS_CNN_")}


def read_end(folder: Path) -> tuple[str, str] | None:
    """How a job ended, one of `jobs.ENDS`, and its error; None while it has not."""
    if not files.is_there(folder / "end.json"):
        return None
    try:
        end = files.read_json(folder / "end.json")
        return end["kind"], end["error"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _text(path: Path) -> str:
    try:
        return files.content(path).decode(errors="replace")
    except OSError:
        return ""


def _tidy(folders: Collection[Path]) -> None:
    """Removes what is left of jobs that have ended, of earlier commands too.

    What a cluster keeps beside the jobs' folders goes with the last of these.
    """
    for folder in folders:
        for end in folder.glob("*/end.json"):
            shutil.rmtree(end.parent, ignore_errors=True)
        if not next(folder.glob("*/task.json"), None):  # none is under way
            shutil.rmtree(folder, ignore_errors=True)
