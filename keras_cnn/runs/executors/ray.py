"""Runs as tasks of a Ray cluster (https://docs.ray.io), of which this machine is a node.

A task takes a worker of a node, a processor core for each of its threads, and the disk that all
nodes share. It starts a process and waits for it: a run does not differ from one made elsewhere.
Ray ends all tasks of a command that ends, however it ends: the next command finds what
is finished, and sends the rest again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from keras_cnn import environment, files
from keras_cnn.errors import UserError
from keras_cnn.recipe.resources import Ray
from keras_cnn.recipe.spec import Spec
from keras_cnn.runs.executors.cluster import Gone

COMMAND = (*environment.PYTHON, "-m", "keras_cnn.runs.executors.ray_driver")
SECONDS_TO_ANSWER = 90.0  # Ray itself gives a cluster up after 60
SECONDS_TO_CLOSE = 10.0
SECONDS_TO_RECONNECT = 300.0  # to a head that is started again
SECONDS_BETWEEN_TRIES = 5.0


class RayCluster:
    """A `cluster.Cluster` of Ray.

    Where the head goes, or this machine's part of the cluster, another connection is tried for
    some minutes; what was under way is then lost and sent again.

    Args:
        resources: The cluster, and what each run is given of it.
    """

    name = "ray"

    def __init__(self, resources: Ray) -> None:
        self._resources = resources
        self._address = resources.address
        self._driver: _Driver | None = None
        self._away_since: float | None = None

    def open(self) -> None:
        """Connects.

        Raises:
            UserError: Ray is not installed, or no cluster answers.
        """
        if self._address != "auto":
            _check_answers(self._address)
        self._driver = _Driver()
        try:
            self._address = str(self._driver.ask(connect=self._address)["address"])
        except ConnectionError as error:
            self.close()
            where = "on this machine" if self._address == "auto" else f"at {self._address}"
            raise UserError(f"--on=ray: no connection to a Ray cluster {where}: {error}") from None

    def send(self, folders: Sequence[Path]) -> list[str]:
        """Takes job folders, a task each; waits for a cluster that is away for a while.

        Raises:
            UserError: It stays away.
        """
        tasks = [_task(folder, self._resources) for folder in folders]
        while True:
            try:
                answer = self._ask(send=tasks)
            except ConnectionError:
                self._reconnect()
                if self._away_since is not None:
                    time.sleep(SECONDS_BETWEEN_TRIES)
                continue
            if nowhere := answer["nowhere"]:
                logging.getLogger("keras_cnn").warning(
                    "no node of the Ray cluster has %s: runs wait for one", ", ".join(nowhere)
                )
            return [str(ticket) for ticket in answer["tickets"]]

    def gone(self, tickets: Collection[str]) -> dict[str, Gone]:
        """Those that have ended; none while the cluster is away, all where it is another one then.

        Raises:
            UserError: It stays away.
        """
        try:
            found = self._ask(gone=[*tickets])["gone"]
        except ConnectionError:
            self._reconnect()
            return {}
        return {ticket: Gone(*why_and_again) for ticket, why_and_again in found.items()}

    def cancel(self, tickets: Collection[str]) -> None:
        """Ends tasks, whether they wait or run."""
        with contextlib.suppress(ConnectionError):  # without one, they end anyway
            self._ask(cancel=[*tickets])

    def close(self) -> None:
        """Disconnects, by which Ray ends what is under way."""
        if self._driver:
            self._driver.close()
            self._driver = None

    def _ask(self, **question: object) -> Mapping:
        if not self._driver:
            raise ConnectionError
        return self._driver.ask(**question)

    def _reconnect(self) -> None:
        """Tries once.

        Raises:
            UserError: That has been tried for long enough.
        """
        self.close()
        now = time.monotonic()
        self._away_since = self._away_since or now
        try:
            self.open()
            self._away_since = None
        except UserError as error:
            if now - self._away_since > SECONDS_TO_RECONNECT:
                minutes = round(SECONDS_TO_RECONNECT / 60)
                raise UserError(
                    f"{error} (for {minutes} minutes); finished runs are kept, the same command "
                    "goes on with the rest"
                ) from None


def submission(resources: Ray, specs: Sequence[Spec], parallel: int) -> str:
    """What would be submitted, in lines.

    Args:
        resources: The cluster, and what each run is given of it.
        specs: Of the runs.
        parallel: How many run at a time, at most.
    """
    where = "of this machine" if resources.address == "auto" else f"at {resources.address}"
    counts = Counter(
        ", ".join(f"{name}={amount:g}" for name, amount in _wants(spec.threads, resources).items())
        for spec in specs
    )
    lines = [f"  {count:,} with {wants}" for wants, count in counts.items()]
    title = f"Tasks of the Ray cluster {where}, at most {parallel:,} at a time:"
    return "\n".join([title, *lines, "  python -m keras_cnn.runs.remote FOLDER"])


class _Driver:
    """The process that is connected to the cluster, and the words with it."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | environment.import_path(),
            start_new_session=True,  # an interrupt from the keyboard is ours to deal with
        )
        self._number = 0
        self._answers: queue.Queue[dict | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, **question: object) -> dict:
        """Asks, and waits for the answer.

        Raises:
            ConnectionError: There is none, or it is an error.
        """
        self._number += 1
        line = json.dumps(question | {"number": self._number}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            while answer := self._answers.get(timeout=SECONDS_TO_ANSWER):
                if answer["number"] == self._number:  # not of a question that was interrupted
                    break
        except (OSError, queue.Empty):
            answer = None
        if not answer:
            raise ConnectionError("it does not answer")
        if "error" in answer:
            raise ConnectionError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends it, and with it all tasks."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _read(self) -> None:
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(json.loads(line))
        self._answers.put(None)


def _check_answers(address: str) -> None:
    """Refuses an address at which nothing listens: Ray would try for a minute, and say little."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16) or "/" in host:
        raise UserError(f"--on=ray:{address}: an address is HOST:PORT, as `ray start` says it")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"--on=ray: no Ray cluster answers at {address} ({why.lower()})") from None


def _task(folder: Path, resources: Ray) -> dict[str, object]:
    task = files.read_json(folder / "task.json")
    is_command = "command" in task
    cores = resources.cores if is_command else task["run"]["spec"]["threads"]
    return {"folder": str(folder), **_wants(cores, resources)}


def _wants(cores: int, resources: Ray) -> dict[str, float]:
    """What a run is given, as Ray calls it."""
    wants = {"num_cpus": cores, "num_gpus": resources.gpus}
    if resources.gigabytes is not None:
        wants["memory"] = round(resources.gigabytes * 1e9)
    return wants
