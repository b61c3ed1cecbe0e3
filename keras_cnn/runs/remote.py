"""A job of a cluster, on the machine it was sent to: `python -m keras_cnn.runs.remote FOLDER`.

`executors.cluster` says what the folder holds. The run itself is a process of its own, as on one
machine, so that its death is told here; an end of this process is an end of the run.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from keras_cnn import environment, files
from keras_cnn.recipe.spec import Run
from keras_cnn.runs.child import Child, watch
from keras_cnn.runs.executors import cluster
from keras_cnn.runs.jobs import ENDS, Event, Job

# Whoever kills a run with all else of its job kills this process next: that is no failure of it.
SECONDS_TO_BE_ENDED = 1.0


def main(folder: Path) -> int:
    """Does the job of a folder, reports to it, and says there how it ended.

    Returns:
        The exit code: 0 also for a run that failed, which is told in the folder.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # a scheduler's warnings, to all of its job
        signal.signal(number, signal.SIG_IGN)
    task = files.read_json(folder / "task.json")
    os.environ.update(task.get("variables", {}))
    if "command" in task:
        return _command(folder, task)
    job = Job(Run.model_validate(task["run"]), Path(task["folder"]), task["fresh"], task["wait"])
    cluster.report(folder, {"began": platform.node()})

    def end(*_: object) -> None:  # its time is over, or the machine is wanted: it goes on elsewhere
        sys.exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)

    def tell(event: Event) -> None:
        if event.kind == "failed":
            time.sleep(SECONDS_TO_BE_ENDED)
        if event.kind in ENDS:
            cluster.tell_end(folder, event.kind, event.error, event.log)
        else:
            cluster.report(folder, event.record)

    child = Child(job.task(), job.run.spec)
    try:
        watch(job, child, tell)
    except SystemExit:
        child.kill()
        raise
    return 0


def _command(folder: Path, task: dict) -> int:
    """Runs a command of ours; what it prints goes to the job's `output`, its exit code to the end.

    The command ends with this process.
    """
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            [*environment.PYTHON, "-m", "keras_cnn", *task["command"]],
            cwd=task["folder"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment.import_path(),
        )

    def end(*_: object) -> None:
        process.kill()
        sys.exit(1)

    signal.signal(signal.SIGTERM, end)
    cluster.tell_end(folder, "done", str(process.wait()))
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not by `sys.stdin`, which the end of the interpreter would wait for
        pass
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)


if __name__ == "__main__":
    if "--with-parent" in sys.argv[2:]:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main(Path(sys.argv[1])))
