"""The driver of a Ray cluster's tasks: `python -m keras_cnn.runs.executors.ray_driver`.

It is a process of its own, for Ray prints, takes signals over, and ends whatever process is
connected when its cluster goes. `executors.ray` asks it by lines of JSON on standard input, and
reads an answer to each from standard output:

    {"connect": ADDRESS}                        {"address": "HOST:PORT"}
    {"send": [{"folder": …, "num_cpus": …}]}    {"tickets": […], "nowhere": ["num_cpus=4"]}
    {"gone": TICKETS}                           {"gone": {TICKET: [WHY, AGAIN]}}
    {"cancel": TICKETS}                         {}

or `{"error": LINE}`, each with the number of its question. Where the input ends it ends, and Ray
ends all its tasks, as it does however a driver ends.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

RETRIES = 2  # of a task whose worker or node dies, by Ray itself
SECONDS_TO_SHUT_DOWN = 5.0


def make(folder: str, working_folder: str, package_path: str, has_gpu: bool) -> None:
    """The task: has a process do a job folder, that ends when this worker does.

    Ray takes this function along as it is: nodes need not find the package to read it, and it uses
    the standard library alone.

    Args:
        folder: As `cluster` writes it.
        working_folder: Where the command was given, for paths and modules of the user's own.
        package_path: Where the package lies, on a node that has it not installed.
        has_gpu: Whether a GPU was asked for; without one, none is seen.

    Raises:
        RuntimeError: The process ended in an error, so that the folder may not tell how.
    """
    if os.path.exists(os.path.join(folder, "end.json")):  # an earlier try came as far as that
        return
    path = os.pathsep.join(filter(None, [package_path, os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": path} | (
        {} if has_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    )
    command = [sys.executable, "-P", "-m", "keras_cnn.runs.remote", folder, "--with-parent"]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end tells the process that we are gone
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=variables,
            cwd=working_folder,
        ) as process:
            code = process.wait()
        log.seek(0)
        last = log.read().decode(errors="replace").strip().splitlines()[-1:]
    if code < 0:
        raise RuntimeError(f"its process was killed by signal {-code}")
    if code:
        raise RuntimeError(": ".join([f"its process ended with exit code {code}", *last]))


class Driver:
    """Answers questions by way of Ray.

    Args:
        ray: The module.
    """

    def __init__(self, ray) -> None:
        self._ray = ray
        self._working_folder = os.getcwd()
        self._node = ""
        self._tasks: dict[str, object] = {}  # what Ray promises, by ticket
        self._cancelled: set[str] = set()

    def answer(self, question: Mapping) -> dict[str, object]:
        """Does what is asked for."""
        (name,) = question.keys() & {"connect", "send", "gone", "cancel"}
        return getattr(self, f"_{name}")(question[name])

    def _connect(self, address: str) -> dict[str, object]:
        os.chdir("/")  # workers import from where their driver is
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        context = self._ray.init(address, **quiet)
        self._node = self._ray.get_runtime_context().get_node_id()
        return {"address": context.address_info["gcs_address"]}

    def _send(self, tasks: Sequence[Mapping]) -> dict[str, object]:
        function = self._ray.remote(make)
        places = self._working_folder, str(Path(__file__).parents[3])
        tickets = []
        for task in tasks:
            wants = {name: amount for name, amount in task.items() if name != "folder"}
            options = function.options(
                name=f"keras_cnn {Path(task['folder']).name}",
                max_retries=RETRIES,
                retry_exceptions=False,
                **wants,
            )
            tickets.append(uuid.uuid4().hex)
            self._tasks[tickets[-1]] = options.remote(
                task["folder"], *places, wants["num_gpus"] > 0
            )
        return {"tickets": tickets, "nowhere": self._nowhere(tasks)}

    def _nodes(self) -> list[Mapping]:
        """The cluster's.

        A head that is started again knows nothing of its predecessor's nodes, drivers and tasks,
        which Ray does not tell: it asks it over and over, for ever.

        Raises:
            ConnectionError: The one that this process is connected to is not among them.
        """
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        if self._node not in [node["NodeID"] for node in nodes]:
            raise ConnectionError("this machine is no node of it any more")
        return nodes

    def _nowhere(self, tasks: Sequence[Mapping]) -> list[str]:
        """What is wanted of which no node has as much, each once."""
        nodes = [node["Resources"] for node in self._nodes()]
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        wanted = {(name, task[name]) for task in tasks for name in names.keys() & task.keys()}
        return [
            f"{name}={amount:g}"
            for name, amount in sorted(wanted)
            if all(node.get(names[name], 0) < amount for node in nodes)
        ]

    def _gone(self, tickets: Sequence[str]) -> dict[str, object]:
        self._nodes()
        known = {self._tasks[ticket]: ticket for ticket in tickets if ticket in self._tasks}
        gone = {
            ticket: ("its command, or the connection to its cluster, ended", True)
            for ticket in tickets
            if ticket not in self._tasks
        }
        ended = []
        if known:
            ended, _ = self._ray.wait([*known], num_returns=len(known), timeout=0)
        return {"gone": gone | {known[task]: self._why(task, known[task]) for task in ended}}

    def _why(self, task: object, ticket: str) -> tuple[str, bool]:
        """Why a task that ended did so, and whether it is worth another try."""
        if ticket in self._cancelled:
            return "cancelled", False
        errors = self._ray.exceptions
        try:
            self._ray.get(task)
        except errors.TaskCancelledError:
            return "cancelled", False
        except errors.OutOfMemoryError:
            return (
                "out of memory on its node, also alone: --on=ray:gigabytes=… sets some aside",
                False,
            )
        except errors.RayTaskError as error:
            return str(error.cause), True
        except errors.NodeDiedError:
            return "its node died", True
        except errors.WorkerCrashedError:
            return "its worker died", True
        except errors.RayError as error:
            first, *_ = str(error).strip().splitlines() or [""]
            return f"{type(error).__name__}: {first}", True
        return "its task ended", True

    def _cancel(self, tickets: Sequence[str]) -> dict[str, object]:
        self._cancelled.update(tickets)
        for ticket in tickets:
            if task := self._tasks.get(ticket):
                self._ray.cancel(task, force=True)
        return {}


def _read_into(questions: queue.Queue) -> None:
    for line in sys.stdin:
        questions.put(line)
    questions.put(None)
    threading.Event().wait(SECONDS_TO_SHUT_DOWN)
    os._exit(1)  # it may be waiting for a cluster that is gone


def main() -> int:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what Ray prints
    questions: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_into, args=(questions,), daemon=True).start()
    ray = driver = None
    while line := questions.get():
        question = json.loads(line)
        try:
            if not driver:
                import ray

                driver = Driver(ray)
            answer = driver.answer(question)
        except ImportError as error:
            answer = {"error": f"{error}: pip install -e '.[ray]'"}
        except Exception as error:  # Ray's are of many kinds, some of Python's own
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            answer = {"error": first}
        print(json.dumps(answer | {"number": question["number"]}), file=answers)
    if ray:
        ray.shutdown()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Ray's threads are not waited for
