"""Runs on this machine, each in a process of its own."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import environment
from keras_cnn.runs.child import Child, watch
from keras_cnn.runs.fork_server import ForkServer, can_fork
from keras_cnn.runs.jobs import ENDS, Event, Job


class Local:
    """An `engine.Executor` of processes.

    Args:
        jobs: All that will be submitted.
        slots: Processes at a time.
        devices: GPUs to share them out to, as `environment.gpus` names them; with none or one, or
            on the processor, each process sees what this one sees.
    """

    def __init__(self, jobs: Sequence[Job], slots: int, devices: Sequence[str] = ()) -> None:
        self.slots = slots
        self._devices = devices if len(devices) > 1 else ()
        self._forkable = [job.run.spec for job in jobs if can_fork(job.run.spec)]
        self._server: ForkServer | None = None
        self._events: queue.Queue[Event] = queue.Queue()
        self._running: dict[Path, tuple[Child, str | None]] = {}

    def __enter__(self) -> Local:
        if len(self._forkable) > 1:
            self._start_server()
        return self

    def _start_server(self) -> None:
        spec = self._forkable[0]
        self._server = ForkServer(environment.of_child(spec.backend, spec.threads))

    def __exit__(self, *_: object) -> None:
        for child, _ in self._running.values():
            child.kill()
        if self._server:
            self._server.close()

    def submit(self, job: Job) -> None:
        """Starts a process."""
        self._events.put(Event(job, "started"))
        if self._server and self._server.was_killed:  # for want of memory, for one
            self._server.close()
            self._start_server()
        server = self._server if can_fork(job.run.spec) else None
        device = self._device()
        child = Child(job.task(), job.run.spec, server, device)
        self._running[job.folder] = child, device
        threading.Thread(target=watch, args=(job, child, self._events.put), daemon=True).start()

    def next_event(self) -> Event:
        """Waits for it."""
        event = self._events.get()
        if event.kind in ENDS:
            del self._running[event.job.folder]
        return event

    def _device(self) -> str | None:
        """The GPU with the fewest runs on it; None where there is nothing to choose."""
        if not self._devices:
            return None
        taken = Counter(device for _, device in self._running.values())
        return min(self._devices, key=lambda device: taken[device])
