"""Runs on a real Ray cluster of three nodes of this machine, which the test suite has none of.

    pip install -e '.[ray]'
    python tests/ray_cluster.py [--kinds=equal,beside,kills,interrupt] [--seed=0] [--out=FILE.md]

A head and two more nodes are started with `ray start`, of one processor core each. The section
`Ray` of FILE.md (artifacts/published/clusters.md) gets the figures, and each fault found by name;
the exit code is 1 where there is one. `--state=FILE.json` keeps those of earlier calls.

    equal      24 runs by processes of this machine and on Ray, one and two at a time
    beside     what a run takes beside itself, and 1,000 runs on 64 workers by that
    kills      20 kills of workers, runs' processes, nodes, drivers, commands and, once, the head
    interrupt  an interrupt from the keyboard, and the same command again
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cluster_proof as proof

from keras_cnn.recipe import resources
from keras_cnn.results import identity
from keras_cnn.runs import study
from keras_cnn.runs.executors import cluster, executor
from keras_cnn.runs.executors.local import Local
from keras_cnn.runs.executors.ray import RayCluster
from keras_cnn.runs.jobs import Job

# No word to its makers; and workers no nicer than other runs here: Ray makes them so by 15.
RAY_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
KILLS = {"worker": 5, "process": 4, "node": 4, "driver": 2, "command": 4, "head": 1}
REPEATS = 6  # half the runs of a sweep with kills
PATIENCE = 60.0  # seconds until what was killed has taken along all that hangs on it
MOST_SECONDS = 1800.0  # of a command
HEAD, *OTHERS = NODES = ("head", "second", "third")


@dataclass
class Cluster:
    """Ray's processes.

    Attributes:
        folder: Its files, and the mark by which all it has started is known.
        port: The head's.
    """

    folder: Path
    port: int
    nodes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def on(self) -> str:
        """As after `--on=`."""
        return f"ray:127.0.0.1:{self.port}"

    def start(self, name: str) -> None:
        """Starts a node, and waits until the cluster has it."""
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        words += ["--object-store-memory=80000000"]
        if name == HEAD:
            words += [
                "--head",
                "--include-dashboard=false",
                f"--port={self.port}",
                f"--temp-dir={self.folder}",
            ]
            words += [f"--ray-client-server-port={free_port()}", f"--dashboard-port={free_port()}"]
        else:
            words += [f"--address=127.0.0.1:{self.port}"]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.nodes[name] = subprocess.Popen(
                words,
                env=os.environ | RAY_SETTINGS | {"PROOF": f"{self.folder}/{name}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        log = self.folder / f"{name}.log"
        if not wait_until(lambda: b"Ray runtime started" in log.read_bytes()):
            raise RuntimeError(f"no node {name}: {log.read_text()[-2000:]}")

    def kill(self, name: str) -> None:
        """Kills all processes of a node at once, as if its machine had gone."""
        for number in self.processes(name):
            end(number)
        self.nodes.pop(name).wait()
        wait_until(lambda: not self.processes(name))

    def processes(self, name: str) -> list[int]:
        """All that a node has started, its workers and their runs too."""
        of_node = f"PROOF={self.folder}/{name}\0".encode()
        there = {number: (parent, of) for number, parent, _, of in processes()}
        return [
            number
            for number, (parent, of) in there.items()
            if of_node in of or of_node in there.get(parent, (0, b""))[1]  # Ray writes over its own
        ]

    def stop(self) -> None:
        """Kills all nodes, and commands that are left."""
        for name in [*self.nodes]:
            self.kill(name)
        for number in found(b"", self.folder.parent):
            end(number)


def processes() -> Iterator[tuple[int, int, bytes, bytes]]:
    """All of this machine: number, parent, command line, environment."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            line, variables = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
            yield int(path.name), parent, line, variables + b"\0"


def found(words: bytes, folder: Path) -> list[int]:
    """Processes below a folder's mark whose command line has some words."""
    begin = f"PROOF={folder}".encode()
    return [number for number, _, line, of in processes() if words in line and begin in of]


def end(number: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Sends a process a signal; it may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, how)


def wait_until(true: Callable[[], object], seconds: float = 120.0) -> bool:
    """Whether something has come true in time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def free_port() -> int:
    """One that nobody listens at just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def ray_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster of three nodes while the block runs."""
    folder.mkdir()
    here = Cluster(folder, free_port())
    try:
        for name in NODES:
            here.start(name)
        yield here
    finally:
        here.stop()
        wait_until(lambda: not any(b"ray::" in line for _, _, line, _ in processes()), PATIENCE)


def begun(words: list[str], folder: Path) -> subprocess.Popen:
    """Starts a command of the package, which the mark of a folder follows."""
    return subprocess.Popen(
        words,
        env=os.environ | {"KERAS_CNN_HOME": f"{folder}/home", "PROOF": f"{folder}/command"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def timed(words: list[str], folder: Path) -> float:
    """Seconds that a command takes, which has to end well."""
    began = time.monotonic()
    process = begun(words, folder)
    _, text = process.communicate(timeout=MOST_SECONDS)
    if process.returncode:
        raise RuntimeError(text)
    return time.monotonic() - began


# --- what is shown -----------------------------------------------------------------------------


def equal(here: Cluster, folder: Path, _: random.Random) -> dict[str, object]:
    """The same runs here and there."""
    return proof.equal(here.on, folder, lambda words: timed(words, folder))


def beside(here: Cluster, folder: Path, _: random.Random) -> dict[str, object]:
    """What a run takes beside itself, one at a time."""
    os.environ["KERAS_CNN_HOME"] = f"{folder}/home"
    plan = study.plan("overfitting", "mini", repeats=5, overrides=proof.SETTINGS, threads=1)

    def jobs(name: str) -> list[Job]:
        (folder / "runs" / name).mkdir(parents=True)
        return [Job(run, identity.run_folder(run, folder / "runs" / name)) for run in plan.runs]

    on_ray, forked = resources.read(here.on), jobs("forked")
    seconds = {"a fork here": proof.seconds_each(Local(forked, 1), forked)}
    seconds["a process here"] = proof.seconds_each(Local([], 1), jobs("process"))
    seconds["on Ray"] = proof.seconds_each(executor(on_ray, plan.runs, 1), jobs("ray"))
    return {"seconds": seconds, "to_send": seconds_to_send(on_ray, folder), "faults": []}


def seconds_to_send(on_ray: resources.Ray, folder: Path, tasks: int = 200) -> float:
    """To hand a task over, which ends at once: its folder says that it has been done."""
    folders = [folder / f"job{number}" for number in range(tasks)]
    for one in folders:
        one.mkdir()
        (one / "task.json").write_text('{"command": []}')
        cluster.tell_end(one, "done")
    connected = RayCluster(on_ray.model_copy(update={"cores": 1}))
    connected.open()
    try:
        began = time.monotonic()
        tickets = connected.send(folders)
        if not wait_until(lambda: len(connected.gone(tickets)) == tasks):
            raise RuntimeError("tasks have not ended")
        return (time.monotonic() - began) / tasks
    finally:
        connected.close()


def kills(here: Cluster, folder: Path, rng: random.Random) -> dict[str, object]:
    """Kills one thing after another under a recipe's command, until it has ended well; again."""
    expected = folder / "undisturbed"
    timed(proof.recipe(expected, repeats=REPEATS), folder)
    left = [what for what, count in KILLS.items() for _ in range(count)]
    rng.shuffle(left)
    tally: dict[str, object] = {"killed": [], "codes": [], "faults": [], "sweeps": 0}
    while left:
        out = folder / f"out{tally['sweeps']}"
        sweep(here, folder, out, rng, left, tally)
        tally["sweeps"] += 1
        if proof.content(out) != proof.content(expected):
            tally["faults"].append(f"other bits: sweep {tally['sweeps']}")
        tally["faults"] += [
            f"left {name}: sweep {tally['sweeps']}" for name in proof.leftovers(out)
        ]
    return tally


def sweep(
    here: Cluster, folder: Path, out: Path, rng: random.Random, left: list[str], tally: dict
) -> None:
    """A command's runs, a kill after each that finishes; given again until it has ended well."""
    words, finished = proof.recipe(out, here.on, repeats=REPEATS), set()
    process = begun(words, folder)

    def has_ended() -> bool:
        return process.poll() is not None

    while True:
        wait_until(lambda: has_ended() or (left and proof.results(out) != finished), MOST_SECONDS)
        time.sleep(rng.uniform(0, 5))
        wait_until(lambda: has_ended() or found(b"keras_cnn.runs.worker", folder), PATIENCE)
        if not finished <= (finished := proof.results(out)):
            tally["faults"].append(f"LOST a result: kill {len(tally['killed'])}")
        if has_ended():
            _, text = process.communicate()
            tally["codes"].append(process.returncode)
            print(f"kills: exit code {process.returncode}", flush=True)
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                tally["faults"].append(f"exit code {process.returncode}: {text.strip()[-200:]}")
            process = begun(words, folder)
        elif not left:
            tally["faults"].append(f"over {MOST_SECONDS:.0f} s")
            process.kill()
        elif kill(left[-1], here, folder, process, rng, tally):
            print(f"kills: {left[-1]}, {len(finished)} runs finished", flush=True)
            tally["killed"].append(left.pop())
    if not wait_until(lambda: not found(b"keras_cnn", folder), PATIENCE):
        tally["faults"].append(f"processes are there {PATIENCE:.0f} s later: {out.name}")


def kill(
    what: str,
    here: Cluster,
    folder: Path,
    process: subprocess.Popen,
    rng: random.Random,
    tally: dict,
) -> bool:
    """Kills something, if it is there, and starts nodes again; notes what outlives a command."""
    if process.poll() is not None:
        return False
    if what in ("node", "head"):
        name = HEAD if what == "head" else rng.choice(OTHERS)
        if what == "node" and rng.random() < 0.5:  # its raylet alone: the rest has to follow
            for number in found(b"raylet/raylet\0", folder / "ray" / name):
                end(number)
            if not wait_until(lambda: not here.processes(name), 2 * PATIENCE):
                tally["faults"].append(f"a node's processes outlive its raylet: {name}")
        lost = NODES if what == "head" else [name]  # another head does not know the others
        for node in lost:
            here.kill(node)
        for node in lost:
            here.start(node)
        return True
    if what == "command":
        process.kill()
        process.wait()
        if not wait_until(lambda: not found(b"keras_cnn", folder), PATIENCE):
            tally["faults"].append(f"a run outlives its command by {PATIENCE:.0f} s")
        return True
    words = {"worker": b"ray::keras_cnn", "process": b"keras_cnn.runs.remote"}
    there = found(words.get(what, b"keras_cnn.runs.executors.ray_driver"), folder)
    if there:
        end(rng.choice(there))
    return bool(there)


def interrupt(here: Cluster, folder: Path, rng: random.Random) -> dict[str, object]:
    """As from the keyboard, which sends it to the command; then a TERM; then all is made."""
    words, faults, seconds = proof.recipe(folder / "out", here.on, repeats=4), [], []
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = begun(words, folder)
        wait_until(lambda: found(b"keras_cnn.runs.worker", folder))
        time.sleep(rng.uniform(0, 5))
        process.send_signal(number)
        began = time.monotonic()
        _, text = process.communicate(timeout=MOST_SECONDS)
        wait_until(lambda: not found(b"keras_cnn", folder), PATIENCE)
        seconds.append(time.monotonic() - began)
        last = (text.strip().splitlines() or ["no word"])[-1]
        if process.returncode != code or "finished runs are kept" not in last:
            faults.append(f"{number.name}: exit code {process.returncode}: {last}")
        if found(b"keras_cnn", folder):
            faults.append(f"{number.name}: processes are there {PATIENCE:.0f} s later")
    timed(words, folder)
    timed(proof.recipe(folder / "expected", repeats=4), folder)
    if proof.content(folder / "out") != proof.content(folder / "expected"):
        faults.append("other bits after interrupts")
    faults += [f"left {name}" for name in proof.leftovers(folder / "out")]
    return {"seconds": seconds, "faults": faults}


# --- report ------------------------------------------------------------------------------------

SHOWN = {"equal": equal, "beside": beside, "kills": kills, "interrupt": interrupt}


def written(done: dict[str, dict], seed: int) -> list[str]:
    """The section."""
    lines = [
        f"`python tests/ray_cluster.py --seed={seed}`, {proof.machine('ray')}. A head and two more "
        "nodes on one machine, of one core each, which other work shared: seconds are of a busy "
        "machine. Runs: `overfitting` of 60 images of 16 pixels, 2 epochs, one thread.",
    ]
    if shown := done.get("equal"):
        lines += ["", f"### {shown['runs']} runs here and on Ray", ""]
        same = not any("other bits" in fault for fault in shown["faults"])
        words = "are equal to the last bit" if same else "DIFFER"
        lines += [f"Table, histories, figures, counts, predictions and weights {words}.", ""]
        lines += ["| where | seconds | a run |", "|---|---|---|"]
        lines += [
            f"| {name} | {seconds:.0f} | {seconds / shown['runs']:.2f} |"
            for name, seconds in shown["seconds"].items()
        ]
        one, two = (shown["seconds"][f"ray, {jobs} at a time"] for jobs in (1, 2))
        lines += ["", f"From one to two at a time on Ray: {one / two / 2:.2f} of twice the rate."]
    if shown := done.get("beside"):
        lines += ["", "### What a run takes beside itself", ""]
        lines += [
            "| a run, until its end is known | median, s | least | most |",
            "|---|---|---|---|",
        ]
        medians = {}
        for name, pairs in shown["seconds"].items():
            totals = [total for total, _ in pairs]
            medians[name] = statistics.median(totals)
            lines += [f"| {name} | {medians[name]:.2f} | {min(totals):.2f} | {max(totals):.2f} |"]
        own = statistics.median(own for _, own in shown["seconds"]["a fork here"])
        more, rays = medians["on Ray"] - own, medians["on Ray"] - medians["a process here"]
        lines += [
            "",
            f"The run itself is {own:.2f} s of that, in a fork, which has imported torch and Keras "
            f"already. On Ray {more:.2f} s are beside it, {rays:.2f} s of them Ray's and of the "
            "process that waits for the run. A task that has nothing to do takes "
            f"{shown['to_send'] * 1e3:.1f} ms.",
        ]
        lines += ["", f"1,000 runs on {proof.ON_WORKERS} workers, by these figures:", ""]
        lines += proof.foretold(shown["to_send"], more)
    if shown := done.get("kills"):
        lines += ["", f"### {len(shown['killed'])} kills", ""]
        counts = ", ".join(f"{what} {count}" for what, count in Counter(shown["killed"]).items())
        lines += [
            f"{counts}, in {shown['sweeps']} sweeps of {2 * REPEATS} runs, each after another "
            "run has finished. `worker`: Ray's, with a run under way; `process`: the one that "
            "waits for a run; `node`: its raylet alone or all its processes; `driver`: the process "
            "that is connected; `head`: all its processes, then all nodes started again. Held "
            "against an undisturbed table: nothing finished lost, the same bits, no process left, "
            "no file of a job left.",
        ]
    if shown := done.get("interrupt"):
        one, two = shown["seconds"]
        lines += ["", "### Interrupts", ""]
        lines += [f"All processes had ended {one:.1f} s after Ctrl-C, {two:.1f} s after a TERM."]
    faults = [f"{kind}: {fault}" for kind, shown in done.items() for fault in shown["faults"]]
    return [*lines, "", f"Faults: {len(faults)}.", "", *(f"- {fault}" for fault in faults)]


def main(arguments: argparse.Namespace) -> int:
    """Shows what is asked for, and writes the section after each."""
    state = arguments.state
    done = json.loads(state.read_text()) if state and state.exists() else {}
    kinds = arguments.kinds.split(",")
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="ray-") as name:
            folder = Path(name)
            with ray_cluster(folder / "ray") as here:
                done[kind] = SHOWN[kind](here, folder, random.Random(arguments.seed))
        print(f"{kind}: {done[kind]}", flush=True)
        if state:
            state.write_text(json.dumps(done))
        proof.write_section(arguments.out, "Ray", written(done, arguments.seed))
    return int(any(done[kind]["faults"] for kind in kinds))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with all that was started
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands heed it, as of a terminal
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(SHOWN))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, help="keeps the figures of earlier calls")
    parser.add_argument("--out", type=Path, default=Path("artifacts/published/clusters.md"))
    sys.exit(main(parser.parse_args()))
