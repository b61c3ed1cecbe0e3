"""A process with a framework of its own: it does one task of `worker.main`, and reports."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping

from keras_cnn import environment, files
from keras_cnn.errors import printable
from keras_cnn.recipe.spec import Spec
from keras_cnn.runs.fork_server import ForkServer
from keras_cnn.runs.jobs import REPORTS, Event, Job
from keras_cnn.runs.worker import EXIT_BUSY

COMMAND = (*environment.PYTHON, "-m", "keras_cnn.runs.worker")


class Child:
    """The process, that ends when this one does.

    Args:
        task: What it is to do, as `worker.main` reads it.
        spec: Whose backend and threads it starts with.
        server: Forks it; where there is none, or no more, it is a fresh process.
        device: The only GPU that it sees, by its number or name; None leaves all.
    """

    def __init__(
        self,
        task: Mapping[str, object],
        spec: Spec,
        server: ForkServer | None = None,
        device: str | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (not a pipe: nobody has to read it)
        self._scratch = files.temporary_folder()  # ours: it goes however the process ends
        self._process = None
        if server:
            with contextlib.suppress(ChildProcessError):
                self._process = server.start(self._log)
        if not self._process:
            only = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment.of_child(spec.backend, spec.threads) | only,
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


def watch(job: Job, child: Child, tell: Callable[[Event], None]) -> None:
    """Turns what a process reports of its job into events, until it ends.

    Args:
        job: What it does.
        child: The process.
        tell: Called with each event; the last is one of `jobs.ENDS`.
    """
    error = ""
    for record in child.records():
        if "error" in record:
            error = record["error"]
        else:
            tell(Event(job, next(kind for kind in REPORTS if kind in record), record))
    code, death, log = child.end()
    if code in (0, EXIT_BUSY):
        tell(Event(job, "done" if code == 0 else "busy"))
    else:
        tell(Event(job, "failed", error=printable(error or death), log=log))
