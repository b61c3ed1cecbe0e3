"""How runs end on a real Slurm, scene by scene: what is done, what a user would expect of it."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cluster_proof as proof
from slurm_site import PROCESSORS, Site, wait_until

MOST_IN_AN_ARRAY = 5
A_WHILE = 20  # epochs, of half a second
FOR_EVER = 100_000
WORKER = "keras_cnn.runs.worker"


@dataclass
class Said:
    """What came of a scene, in a line, and what ought not to be."""

    came: str = ""
    faults: list[str] = field(default_factory=list)

    def check(self, is_so: object, fault: str) -> None:
        """Notes a fault where something is not so."""
        if not is_so:
            self.faults.append(fault)


def recipe(
    out: Path, jobs: int = 4, runs: int = 4, epochs: int = A_WHILE, on: str = "minutes=10"
) -> list[str]:
    """The command of runs that last for a while, on Slurm."""
    words = [*proof.recipe(out, f"slurm:{on}", jobs, runs), "--method=slow_method.train"]
    return [re.sub(r"epochs=\d+", f"epochs={epochs}", word) for word in words]


def numbers(here: Site) -> set[str]:
    """The numbers of all arrays that Slurm knows."""
    return {*here.ask("squeue", "--states=all", "--noheader", "--format=%F").split()}


def active(here: Site) -> list[str]:
    """Tasks that wait, run or end just now."""
    return here.ask("squeue", "--array", "--noheader", "--format=%i").split()


def tickets(out: Path) -> dict[str, str]:
    """By run, the name of its job."""
    found = out.glob("*/.jobs/*/ticket.json")
    return {path.parent.name: json.loads(path.read_text())["name"] for path in found}


def cancelled(text: str) -> int:
    """How many runs a command says were cancelled, at its end."""
    return len(re.findall(r"^  .+: cancelled$", text, re.MULTILINE))


def one_cancelled(here: Site, folder: Path, begin: Callable) -> Said:
    """Its run has failed, the others go on; the same command makes it."""
    said, out = Said(), folder / "out"
    command = begin(recipe(out), folder, here)
    command.wait_for(WORKER, 2)
    run, ticket = sorted(tickets(out).items())[1]
    here.ask("scancel", ticket)
    code, text = command.ended()
    said.check(code == 1, f"exit code {code}")
    said.check(cancelled(text) == 1, f"not told: {text[-300:]}")
    names = {path.name for path in proof.results(out)}
    said.check(len(names) == 3 and run not in names, f"{len(names)} results")
    again, text = begin(recipe(out), folder, here).ended()
    said.check(again == 0 and len(proof.results(out)) == 4, f"again: exit code {again}")
    said.check(not proof.leftovers(out), "files are left")
    said.came = "its run failed, `cancelled`; the other 3 were made; the same command made it"
    return said


def all_cancelled(here: Site, folder: Path, begin: Callable) -> Said:
    """Those that wait and those that run."""
    said, out = Said(), folder / "out"
    command = begin(recipe(out, jobs=2, epochs=FOR_EVER), folder, here)
    command.wait_for(WORKER, 2)
    here.ask("scancel", "--user=" + here.ask("id", "-un").strip())
    code, text = command.ended()
    said.check(code == 1, f"exit code {code}")
    said.check(cancelled(text) == 4, f"not told: {text[-500:]}")
    said.check(command.leaves_none(), "processes are left")
    said.check(not proof.leftovers(out), "files are left")
    said.came = "all 4 failed, `cancelled`, 2 of which had not begun; exit code 1"
    return said


def interrupted(here: Site, folder: Path, begin: Callable) -> Said:
    """Ctrl-C: nothing goes on."""
    said, out = Said(), folder / "out"
    command = begin(recipe(out, jobs=2, epochs=FOR_EVER), folder, here)
    command.wait_for(WORKER, 2)
    began = time.monotonic()
    command.process.send_signal(signal.SIGINT)
    code, text = command.ended()
    seconds = time.monotonic() - began
    said.check(code == 130 and "interrupted" in text, f"exit code {code}: {text[-300:]}")
    said.check(command.leaves_none(), "processes are left")
    said.check(wait_until(lambda: not active(here), 30), f"jobs are left: {active(here)}")
    said.check(not proof.leftovers(out), "files are left")
    said.came = f"exit code 130 after {seconds:.1f} s; no job, process or file was left"
    return said


def left_alone(number: signal.Signals, code: int) -> Callable:
    """The command ends; the same one follows its jobs, without sending any again."""

    def scene(here: Site, folder: Path, begin: Callable) -> Said:
        said, out, words = Said(), folder / "out", recipe(folder / "out", jobs=2)
        command = begin(words, folder, here)
        command.wait_for(WORKER, 2)
        command.process.send_signal(number)
        ended, _ = command.ended()
        said.check(ended == code, f"exit code {ended}")
        said.check(len(active(here)) >= 3, f"jobs did not go on: {active(here)}")
        before = numbers(here)
        ended, text = begin(words, folder, here).ended()
        said.check(ended == 0, f"again: exit code {ended}: {text[-300:]}")
        said.check(numbers(here) == before, "jobs were sent again")
        said.check(not proof.leftovers(out), "files are left")
        said.came = "its jobs went on; the same command followed them, and sent none"
        return said

    return scene


def over_time(here: Site, folder: Path, begin: Callable) -> Said:
    """Three times, then a line."""
    said, out = Said(), folder / "out"
    words = recipe(out, 1, 1, FOR_EVER, "minutes=1")
    code, text = begin(words, folder, here).ended()
    line = "it hit its time limit of 1 minute (--on=slurm:minutes=…), 3 times"
    said.check(code == 1 and text.count(line) >= 1, f"exit code {code}: {text[-300:]}")
    said.came = f"failed after three: `{line}`"
    return said


def over_time_with_checkpoint(here: Site, folder: Path, begin: Callable) -> Said:
    """It goes on, to the same bits as in one go."""
    said, out = Said(), folder / "out"
    given = {"data": "synthetic:60", "image_size": 16, "crop_from": 24, "batch_size": 10}
    given |= {"model": "enhanced", "hidden_units": 4, "stochastic_depth": 0.0}
    words = [*proof.recipe(out)[:3], "recipe", "pretrain", "--profile=mini", "--rows=resnet18"]
    words += [f"--set={name}={value}" for name, value in given.items()]

    def at(place: Path, epochs: int, on: str) -> list[str]:
        return [*words, f"--set=epochs={epochs}", f"--out={place}", f"--on={on}", "--threads=1"]

    seconds = [begin(at(folder / f"{n}", n, "local"), folder, here).timed() for n in (20, 220)]
    epochs = round(100 / max(0.01, (seconds[1] - seconds[0]) / 200))  # of about 100 s
    before = numbers(here)
    code, text = begin(at(out, epochs, "slurm:minutes=1"), folder, here).ended()
    sent = len(numbers(here) - before)
    said.check(code == 0, f"exit code {code}: {text[-300:]}")
    said.check(sent > 1, "it did not hit its limit")
    begin(at(folder / "in-one-go", epochs, "local"), folder, here).timed()
    is_same = code == 0 and proof.content(out) == proof.content(folder / "in-one-go")
    said.check(is_same, "other bits than in one go")
    said.came = f"`pretrain` of {epochs} epochs went on from its checkpoint: sent {sent} times, "
    said.came += "the bits of a run in one go"
    return said


def preempted(here: Site, folder: Path, begin: Callable) -> Said:
    """Slurm puts the runs back into the queue."""
    said, out = Said(), folder / "out"
    command = begin(recipe(out), folder, here)
    command.wait_for(WORKER, 2)
    before = numbers(here)
    wanted = ["--partition=high", f"--cpus-per-task={PROCESSORS}", "--output=/dev/null"]
    here.ask("sbatch", *wanted, "--wrap=sleep 3")
    said.check(wait_until(lambda: not command.found(WORKER), 60), "runs were not preempted")
    code, text = command.ended()
    shown = here.ask("scontrol", "show", "jobs")
    restarts = sum(map(int, re.findall(r"Restarts=(\d+)", shown)))
    said.check(code == 0, f"exit code {code}: {text[-300:]}")
    said.check(restarts > 0, "none was put back")
    said.check(len(numbers(here) - before) == 1, "jobs were sent again")
    said.came = f"{restarts} tasks were put back by Slurm under their names, and made later"
    return said


def node_lost(here: Site, folder: Path, begin: Callable) -> Said:
    """slurmd is away for longer than Slurm waits for it."""
    said, out = Said(), folder / "out"
    command = begin(recipe(out, jobs=2, epochs=100), folder, here)
    command.wait_for(WORKER, 2)
    here.kill("slurmd")
    is_down = wait_until(lambda: "down" in here.ask("sinfo", "--noheader", "--format=%T"), 120)
    said.check(is_down, "Slurm did not take the node for lost")
    here.start("slurmd")
    code, text = command.ended()
    said.check(code == 0 and len(proof.results(out)) == 4, f"exit code {code}: {text[-500:]}")
    said.check(command.leaves_none(), "processes are left")
    said.check(not proof.leftovers(out), "files are left")
    said.came = "the node was taken for lost, and its runs were made when it was back"
    return said


def arrays_cut(here: Site, folder: Path, begin: Callable) -> Said:
    """12 runs, at most 3 at once."""
    said, out, most = Said(), folder / "out", 0
    before, seen = numbers(here), set()
    command = begin(recipe(out, jobs=3, runs=12, epochs=2), folder, here)
    while command.process.poll() is None:
        running = here.ask("squeue", "--states=running", "--array", "--noheader", "--format=%i")
        most = max(most, len(running.split()))
        seen |= numbers(here) - before
        time.sleep(0.5)
    code, text = command.ended()
    said.check(code == 0 and len(proof.results(out)) == 12, f"exit code {code}: {text[-300:]}")
    said.check(len(seen) == 3, f"{len(seen)} arrays")
    said.check(most == 3, f"{most} at once")
    said.came = f"12 runs in {len(seen)} arrays, at most {most} at once"
    return said


def refused(here: Site, folder: Path, begin: Callable) -> Said:
    """A partition that is not there."""
    said, words = Said(), recipe(folder / "out", on="partition=lnog")
    code, text = begin(words, folder, here).ended()
    last = text.strip().splitlines()[-1]
    said.check(code == 2 and last.startswith("keras_cnn: Slurm refused the jobs: "), text[-300:])
    said.check("Traceback" not in text, text[-300:])
    said.came = f"exit code 2: `{last}`"
    return said


def too_long(here: Site, folder: Path, begin: Callable) -> Said:
    """More minutes than the partition gives."""
    said, words = Said(), recipe(folder / "out", on="minutes=120")
    command = begin(words, folder, here)
    wait_until(lambda: command.process.poll() is not None, 15)
    if command.process.poll() is None:
        command.process.send_signal(signal.SIGINT)
    code, text = command.ended()
    lines = [line for line in text.splitlines() if "Slurm" in line]
    said.check(len(lines) == 1, f"exit code {code}: {text[-300:]}")
    said.came = f"told in a line: `{lines[-1] if lines else ''}`"
    return said


def controller_away(here: Site, folder: Path, begin: Callable) -> Said:
    """slurmctld is down when the command begins, and for a minute under another one."""
    said, out = Said(), folder / "out"
    here.kill("slurmctld")
    code, text = begin(recipe(out), folder, here).ended()
    last = text.strip().splitlines()[-1]
    said.check(code == 2 and "Slurm does not answer" in last, f"exit code {code}: {text[-300:]}")
    here.start("slurmctld")
    here.wait_until_up()
    command = begin(recipe(out, epochs=140), folder, here)
    command.wait_for(WORKER, 2)
    here.kill("slurmctld")
    time.sleep(60)
    here.start("slurmctld")
    code, text = command.ended()
    said.check(code == 0 and len(proof.results(out)) == 4, f"exit code {code}: {text[-300:]}")
    told = [line for line in text.splitlines() if "does not answer" in line]
    said.check(len(told) == 1, f"told {len(told)} times: {text[-500:]}")
    said.came = f"at first exit code 2: `{last}`; away for a minute under a command: "
    said.came += "a line says so, and all runs were made"
    return said


# By name: what is done, and the scene.
SCENES: dict[str, tuple[str, Callable]] = {
    "scancel": ("`scancel` of one job", one_cancelled),
    "scancel-all": ("`scancel` of all", all_cancelled),
    "interrupt": ("Ctrl-C", interrupted),
    "terminate": ("SIGTERM to the command", left_alone(signal.SIGTERM, 143)),
    "kill": ("SIGKILL of the command", left_alone(signal.SIGKILL, -signal.SIGKILL)),
    "arrays": ("12 runs where an array holds 5, `--jobs=3`", arrays_cut),
    "preempt": ("a job of a higher partition that needs the node", preempted),
    "node": ("slurmd away until Slurm takes its node for lost", node_lost),
    "controller": ("slurmctld away", controller_away),
    "partition": ("an unknown partition", refused),
    "minutes": ("more minutes than the partition gives", too_long),
    "limit": ("a time limit", over_time),
    "checkpoint": ("a time limit, with a checkpoint", over_time_with_checkpoint),
}
