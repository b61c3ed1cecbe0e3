"""Threads that do not spin beside other processes; how fast that is, no test says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_cnn import environment
from keras_cnn.torch_fast import waiting

STAT = "cpu  0 0 0 0 0 0 0 0\ncpu0 {0} 0 0 {1} 0 0 0 0\ncpu1 {2} 0 0 {3} 0 0 0 0\n"

# Two threads compute before, while and after idle ones are there; threads of the process each time.
SCRIPT = """
import os, time
import torch
from keras_cnn.torch_fast import waiting

torch.set_num_threads(2)
images, kernel = torch.rand(8, 3, 32, 32), torch.rand(16, 3, 3, 3)

def computed():
    return torch.nn.functional.conv2d(images, kernel).sum(0)

def settled(fewest, most):
    for _ in range(400):
        count = len(os.listdir("/proc/self/task"))
        if fewest <= count <= most:
            break
        time.sleep(0.05)
    return count

first = computed()
before = settled(2, 99)
idle = waiting._IdleThreads(2, cores=4)  # 3 teams: 3 threads of ours, and one of libgomp for each
idle.keep(True)
idle.keep(True)
during = settled(before + 6, 99)
same = bool((computed() == first).all())
idle.keep(False)
after = settled(1, before)
print(before, during - before, after - before, same and bool((computed() == first).all()))
"""


@pytest.mark.parametrize(
    ("threads", "cores", "others", "short"),
    [(2, 2, 0.1, False), (2, 2, 0.5, True), (2, 8, 6.0, False), (2, 8, 6.5, True)],
)
def test_cores_are_short_where_others_leave_fewer_than_threads(threads, cores, others, short):
    assert waiting.are_cores_short(threads, cores, others) is short


def test_what_this_process_computes_is_not_taken_for_others(tmp_path, monkeypatch):
    times = iter([(10.0, 3.0), (12.0, 5.0), (13.0, 6.0)])
    clock = {}

    def tick():
        clock["now"], clock["spent"] = next(times)

    monkeypatch.setattr(waiting, "STATISTICS", tmp_path / "stat")
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(waiting.time, "process_time", lambda: clock["spent"])
    monkeypatch.setattr(environment, "allowed_cores", lambda: {0, 1})
    tick()
    (tmp_path / "stat").write_text(STAT.format(0, 0, 0, 0))
    others = waiting.busy_others()
    tick()  # both cores were busy for 2 s, one of them with this process
    (tmp_path / "stat").write_text(STAT.format(200, 0, 200, 0))
    assert others() == pytest.approx(1.0)
    tick()  # one core was busy for 1 s, with this process
    (tmp_path / "stat").write_text(STAT.format(300, 0, 200, 100))
    assert others() == pytest.approx(0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's threads are counted in /proc")
def test_idle_threads_come_once_and_go_and_change_no_bit():
    done = subprocess.run(
        [*environment.PYTHON, "-c", SCRIPT],
        env=environment.of_child("torch", 2),
        capture_output=True,
        text=True,
        check=True,
    )
    _, more, left, same = done.stdout.split()
    assert (int(more), int(left), same) == (6, 0, "True"), done.stdout


def test_one_thread_waits_for_nobody(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(waiting.threading, "Thread", lambda **_: pytest.fail("no thread is needed"))
    waiting.sleep_beside_others()
