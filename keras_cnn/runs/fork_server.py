"""A process that has imported torch and Keras once, and forks itself for each run.

Importing them costs 4 s of processor time, a fork milliseconds; and what is forked is a process
of its own: a crash, a leak or an end for want of memory is that run's alone. The server computes
nothing, so that no thread is lost in a fork. TensorFlow, JAX and CUDA do not outlive a fork: runs
on them start as fresh processes.

    parent ── socket: a message with 4 files a run ──▶ server ── fork ──▶ run
       ▲ ▲                                               │                 │
       │ └── status: its number, later its exit code ────┴─────────────────┤
       └──── standard output: its reports (worker.main) ───────────────────┘

The exit code is written by the run, or by the server for one that was killed: runs in flight end
well without a server, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import IO

from keras_cnn import environment
from keras_cnn.recipe.spec import Spec

FILES = 4  # of a run: its standard input, output and error, and its status
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
PACKAGES = tuple(  # imported as a whole
    f"keras_cnn.{name}"
    for name in ("deck", "methods", "models", "pretrained", "torch_fast", "training")
)


def can_fork(spec: Spec) -> bool:
    """Whether a run can be forked here; one on several threads may find some of them running."""
    on_processor = spec.backend == "torch" and spec.threads == 1 and not environment.has_gpu()
    return on_processor and sys.platform == "linux"


class ForkServer:
    """Starts runs as forks of one process; a context manager that ends it.

    Args:
        variables: All environment variables of the runs.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*environment.PYTHON, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=dict(variables),
            )

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; runs in flight go on."""
        self._socket.close()
        self._process.kill()  # it may be importing still
        self._process.wait()

    @property
    def was_killed(self) -> bool:
        """Whether something ended it; not whether it found that it cannot fork here."""
        return (self._process.poll() or 0) < 0

    def start(self, log: IO[bytes]) -> Fork:
        """Forks a process that runs `worker.main`.

        Args:
            log: Takes its standard error.

        Raises:
            ChildProcessError: The server has ended.
        """
        their_input, our_input = os.pipe()
        our_output, their_output = os.pipe()
        our_status, their_status = os.pipe()
        status = os.fdopen(our_status)
        theirs = (their_input, their_output, log.fileno(), their_status)
        with contextlib.suppress(OSError):  # it has ended, which the missing number tells
            socket.send_fds(self._socket, [b"fork"], theirs)
        for descriptor in (their_input, their_output, their_status):
            os.close(descriptor)
        stdin, stdout = os.fdopen(our_input, "wb"), os.fdopen(our_output, "rb")
        number = status.readline()
        if not number:
            for file in (stdin, stdout, status):
                file.close()
            raise ChildProcessError("the process that forks runs has ended")
        return Fork(int(number), stdin, stdout, status)


class Fork:
    """A forked process, with those attributes of `subprocess.Popen` that the engine uses.

    Args:
        number: The process's.
        stdin: Writes to its standard input.
        stdout: Reads its standard output.
        status: Reads its exit code.
    """

    def __init__(self, number: int, stdin: IO[bytes], stdout: IO[bytes], status: IO[str]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self._number, self._status = number, status
        self._code: int | None = None
        self._waiting = threading.Lock()  # one reads the status, whoever else waits

    def wait(self) -> int:
        """Waits for its end.

        Returns:
            Its exit code; -n where signal n ended it.
        """
        with self._waiting:
            if self._code is None:
                with self._status:
                    # Without a line it was killed, and before it the server, which would have told.
                    self._code = int(self._status.readline() or -signal.SIGKILL)
            return self._code

    def kill(self) -> None:
        """Ends it at once."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._number, signal.SIGKILL)


def serve(connection: socket.socket) -> None:
    """The server's side: forks for each message, and writes the exit codes of those that ended."""
    _import_all()
    if len(os.listdir("/proc/self/task")) > 1:
        return  # a library that starts threads at once: runs start as fresh processes
    gc.collect()
    gc.freeze()  # what is imported stays: a run's own collections pass over it
    waking, woken = socket.socketpair()
    for one in (waking, woken):
        one.setblocking(False)
    signal.set_wakeup_fd(waking.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)  # else no byte is written
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    statuses: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                woken.recv(4096)
            _tell_ends(statuses)
            if connection not in ready:
                continue
            asked, theirs, *_ = socket.recv_fds(connection, 16, FILES)
            if not asked:  # the parent has closed its side, or is gone
                return
            number = os.fork()
            if not number:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (connection, waking, woken, selector):
                    other.close()
                for status in statuses.values():
                    os.close(status)
                _become_worker(theirs)
            for descriptor in theirs[:-1]:
                os.close(descriptor)
            statuses[number] = theirs[-1]
            _write(theirs[-1], number)


def _tell_ends(statuses: dict[int, int]) -> None:
    for number in [*statuses]:
        ended, state = os.waitpid(number, os.WNOHANG)
        if ended:
            status = statuses.pop(number)
            _write(status, os.waitstatus_to_exitcode(state))
            os.close(status)


def _write(status: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent went on without it
        os.write(status, b"%d\n" % number)


def _become_worker(theirs: Sequence[int]) -> None:
    """In the forked process: does the task on its standard input, and ends."""
    from keras_cnn.runs import worker

    *standard, status = theirs
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.set_inheritable(status, False)
    code = worker.main()
    sys.stdout.flush()
    _write(status, code)
    os._exit(code)


def _import_all() -> None:
    """Imports what runs use: the framework, and our own that stand on it."""
    environment.spare_wrapped("torch")
    from keras_cnn.torch_fast import internals

    for package in PACKAGES:
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            import_module(module.name)
    internals.missing()  # looked up here for all runs


def _end_with_parent(parent: int) -> None:
    """Has Linux end this process with the thread that started it, amid an import, too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


if __name__ == "__main__":
    _end_with_parent(int(sys.argv[2]))
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)
