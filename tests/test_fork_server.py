"""Runs forked from a process that has imported the framework: each is its own all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_engine import is_alive, locally, wait_until

from keras_cnn import recipe
from keras_cnn.recipe import resolve
from keras_cnn.results import identity, store
from keras_cnn.runs import fork_server
from keras_cnn.runs.jobs import Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
SMALL = {"data": "synthetic:20", "model": "baseline", "hidden_units": 2, "batch_size": 16}


def jobs(out, count, epochs):
    settings = {**SMALL, "epochs": epochs}
    runs = resolve.runs(recipe.read("overfitting"), "mini", None, "corrected", count, settings)
    return [Job(run, identity.run_folder(run, out)) for run in runs]


def children(pid):
    """Processes that this one has started."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if parent_of(path) == pid]


def parent_of(process):
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def commands_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def server_of(pid):
    """The fork server among a process's children."""
    wait_until(
        lambda: [one for one in children(pid) if b"keras_cnn.runs.fork_server" in commands_of(one)]
    )
    return next(one for one in children(pid) if b"keras_cnn.runs.fork_server" in commands_of(one))


def test_a_killed_run_failed_and_a_killed_server_costs_none(tmp_path):
    runs, servers = [], set()

    def kill(event):
        """In its first epoch: of the first repeat the run, of the second the server."""
        repeat = event.job.run.place.repeat
        if event.kind != "epoch" or event.record["epoch"] != 1:
            return
        server = server_of(os.getpid())
        (run,) = children(server)
        servers.add(server)
        if repeat == 2:
            return
        runs.append(run)
        os.kill(run if repeat == 0 else server, signal.SIGKILL)

    out = tmp_path / "out"
    (failed,) = locally(jobs(out, 3, 50), 1, kill)
    assert failed.job.run.place.repeat == 0 and failed.error.startswith("killed by signal 9")
    assert len(runs) == 2 and not any(map(is_alive, runs))
    results = [store.read(path) for path in out.glob("*/[!.]*")]
    assert sorted(result.place.repeat for result in results) == [1, 2]
    assert len(servers) == 2  # the third run is forked by a new one
    assert all(len(result.history) == 50 for result in results)


@pytest.mark.parametrize("runs", [0, 2], ids=["importing", "running"])
def test_all_of_it_goes_when_the_command_is_killed(tmp_path, runs):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_fork_server import jobs, locally
        locally(jobs(Path({str(tmp_path)!r}), 2, 5000), 2, lambda event: None)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    server = server_of(process.pid)
    if not runs:
        wait_until(lambda: "libtorch" in Path(f"/proc/{server}/maps").read_text())
    wait_until(lambda: len(children(server)) == runs)
    all_of_it = [server, *children(server)]
    process.kill()
    process.wait()
    # One second: sooner than the import of Keras ends, after which it would go in any case.
    wait_until(lambda: not any(map(is_alive, all_of_it)), 60 if runs else 1)


def test_an_interrupt_waits_for_no_import(tmp_path):
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locally(jobs(tmp_path, 2, 1), 2, interrupt)
    assert not [
        one for one in children(os.getpid()) if b"keras_cnn.runs.fork_server" in commands_of(one)
    ]


def test_a_server_that_has_ended_says_so(tmp_path):
    with (tmp_path / "log").open("wb") as log, fork_server.ForkServer({**os.environ}) as server:
        os.kill(server_of(os.getpid()), signal.SIGKILL)
        with pytest.raises(ChildProcessError):
            server.start(log)
