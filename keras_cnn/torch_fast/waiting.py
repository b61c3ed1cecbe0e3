"""Threads that wait without spinning while other processes want the cores.

libgomp's threads spin between two parallel pieces of work, some 10 ms, before they sleep. Where the
cores are free that is right: to wake one costs more. Where they are shared, a thread that spins
takes the time of the one that it waits for, and a step takes ten times as long. No count of spins
is right for both, but libgomp looks at each wait whether it has more threads than there are cores,
and then hardly spins (GOMP_SPINCOUNT in its manual). So while cores are wanted by others, some
threads are added that do nothing. Those that compute stay as many, and give the same bits.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from keras_cnn import environment

SECONDS = 0.5  # between two looks at what else is running: 50 of the kernel's ticks
SPARE = 0.3  # cores that others may use unnoticed: services, the look itself
ELEMENTS_A_THREAD = 1 << 15  # torch's threads get no less of a sum
STATISTICS = Path("/proc/stat")


def sleep_beside_others() -> None:
    """Has torch's threads wait asleep, from now on, whenever others want their cores.

    On Linux, for a process that computes with several threads; else it does nothing.
    """
    import torch

    threads = torch.get_num_threads()
    if sys.platform == "linux" and threads > 1 and STATISTICS.is_file():
        watch = threading.Thread(target=_watch, args=(threads,), daemon=True)
        watch.start()


def _watch(threads: int) -> None:
    idle = _IdleThreads(threads, environment.cores())
    busy = busy_others()
    while True:
        time.sleep(SECONDS)
        idle.keep(are_cores_short(threads, environment.cores(), busy()))


def are_cores_short(threads: int, cores: int, others: float) -> bool:
    """Whether threads that compute, and others, want more cores than there are.

    Args:
        threads: Those of this process.
        cores: Those it may use.
        others: How many of them other processes keep busy.
    """
    return threads + others > cores + SPARE


def busy_others() -> Callable[[], float]:
    """A function: how many of this process's cores others kept busy since it was called last."""
    seen = STATISTICS.read_text(), time.perf_counter(), time.process_time()

    def since() -> float:
        nonlocal seen
        before, began, spent = seen
        seen = now, clock, processor = (
            STATISTICS.read_text(),
            time.perf_counter(),
            time.process_time(),
        )
        busy = environment.busy_cores(before, now, environment.allowed_cores())
        return busy - (processor - spent) / (clock - began)

    return since


class _IdleThreads:
    """Threads of libgomp that make it count more of them than there are cores.

    Args:
        threads: Those that compute, at least 2.
        cores: Those this process may use.
    """

    def __init__(self, threads: int, cores: int) -> None:
        self._threads = threads
        # Each thread that sums something brings `threads` - 1 of libgomp's to help it.
        self._teams = max(1, -(-(cores - threads + 1) // (threads - 1)))
        self._end: threading.Event | None = None

    def keep(self, wanted: bool) -> None:
        """Starts them where they are wanted and not there, and ends them where they are not."""
        if wanted and self._end is None:
            self._end = threading.Event()
            for _ in range(self._teams):
                threading.Thread(target=self._idle, args=(self._end,), daemon=True).start()
        elif not wanted and self._end is not None:
            self._end.set()
            self._end = None

    def _idle(self, end: threading.Event) -> None:
        import torch

        torch.zeros(self._threads * ELEMENTS_A_THREAD, device="cpu").add_(1)
        end.wait()
