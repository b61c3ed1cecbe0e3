"""Claims on runs by processes of several machines; hosts' names and clocks are made up."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_cnn import files
from keras_cnn.results import claims, store

LEASE = 1.0
# A process of another machine: what tells machines apart is the host's name. Its clock is wrong.
OTHER = f"""
import pathlib, socket, sys, time
folder, host, offset = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
real = time.time
time.time = lambda: real() + offset
socket.gethostname = lambda: host
from keras_cnn.results import claims
claims.platform.node = socket.gethostname
claims.LEASE_SECONDS = {LEASE}
with claims.held(folder) as claim:
    claim.tell({{"epoch": 3}})
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def short_leases(monkeypatch):
    monkeypatch.setattr(claims, "LEASE_SECONDS", LEASE)


@pytest.fixture
def start():
    started = []

    def start(folder, host, offset=0.0):
        """A process that holds the folder's claim; ends when its standard input does."""
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(folder), host, str(offset)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("offset", [0.0, 7200.0, -7200.0], ids=["", "ahead", "behind"])
def test_a_machine_that_lives_keeps_its_claim_however_its_clock_goes(tmp_path, start, offset):
    other = start(tmp_path / "run", "node-7", offset)
    assert other.stdout.readline() == b"held\n"
    until = time.monotonic() + 3 * LEASE
    while time.monotonic() < until:
        with pytest.raises(store.Busy), store.held(tmp_path / "run"):
            pass
        time.sleep(0.1)
    told = claims.holder(tmp_path / "run")
    assert told == {"host": "node-7", "process": other.pid, "epoch": 3}
    other.communicate(b"\n")  # it ends well: nobody has to wait
    assert claims.holder(tmp_path / "run") is None
    with store.held(tmp_path / "run"):
        assert claims.holder(tmp_path / "run") == {}, "held, and nothing told"
    assert list((tmp_path / ".locks").iterdir()) == []


def test_a_machine_that_dies_loses_its_claim_when_it_has_not_changed_for_a_lease(tmp_path, start):
    other = start(tmp_path / "run", "node-7")
    assert other.stdout.readline() == b"held\n"
    other.kill()
    other.wait()
    with pytest.raises(store.Busy), store.held(tmp_path / "run"):
        pass  # it may only be cut off
    began = time.monotonic()
    with store.held(tmp_path / "run", wait=True):
        assert LEASE * 0.9 < time.monotonic() - began < 10 * LEASE
    os.utime(_dead_claim(tmp_path / "run", start), (0, 0))  # a day later
    assert claims.holder(tmp_path / "run") is None


def _dead_claim(folder, start):
    other = start(folder, "node-8")
    assert other.stdout.readline() == b"held\n"
    other.kill()
    other.wait()
    return folder.parent / ".locks" / f"{folder.name}.lease"


def test_a_dead_process_of_this_machine_loses_its_claim_at_once(tmp_path, start):
    other = start(tmp_path / "run", platform.node())
    assert other.stdout.readline() == b"held\n"
    assert claims.holder(tmp_path / "run")["epoch"] == 3
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert claims.holder(tmp_path / "run") is None
    with store.held(tmp_path / "run"):
        pass


def test_two_that_make_the_same_run_leave_one_whole_result(tmp_path):
    """One was cut off and lost its claim; the first to bring its result stays."""
    folder = tmp_path / "run"
    with store.new_folder(folder) as first:
        (first / "metrics.json").write_text("first")
        with store.new_folder(folder.with_name("other")) as another:
            (another / "metrics.json").write_text("of another run")
        second = subprocess.run(
            [
                sys.executable,
                "-c",
                "import pathlib, sys; from keras_cnn.results import store\n"
                "with store.new_folder(pathlib.Path(sys.argv[1])) as partial:\n"
                "    (partial / 'metrics.json').write_text('second')",
                str(folder),
            ]
        )
        assert second.returncode == 0 and (folder / "metrics.json").read_text() == "second"
    assert (folder / "metrics.json").read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run"]


def test_a_folder_is_listed_before_it_is_called_missing(tmp_path, monkeypatch):
    """A disk shared by network, that goes on to say what it said of a name, until it is listed."""
    (tmp_path / "run").mkdir()
    known, exists, listdir = set(), Path.exists, os.listdir

    def lagging(path, **how):
        return exists(path, **how) and str(path) in known

    def listed(path):
        names = listdir(path)
        known.update(str(Path(path) / name) for name in names)
        return names

    monkeypatch.setattr(Path, "exists", lagging)
    monkeypatch.setattr(os, "listdir", listed)
    assert not (tmp_path / "run").exists() and files.is_there(tmp_path / "run")
    assert not files.is_there(tmp_path / "none") and not files.is_there(tmp_path / "no" / "folder")
