"""Runs on a real Slurm of one node on this machine, which the test suite has none of.

    apt-get install slurm-wlm munge && pip install -e '.[slurm]'
    python tests/slurm_cluster.py [--kinds=equal,beside,many,kills,ends] [--seed=0] [--out=FILE.md]

`slurm_site` starts and stops it. The section `Slurm` of FILE.md (artifacts/published/clusters.md)
gets the figures, and each fault found by name; the exit code is 1 where there is one.
`--state=FILE.json` keeps those of earlier calls.

    equal    24 runs by processes of this machine and on Slurm, one and two at a time
    beside   what a run takes beside itself, and 1,000 runs on 64 workers by that
    many     1,000 jobs submitted, asked for and cancelled, which Slurm holds back
    kills    20 kills of runs, jobs, slurmd, slurmctld and commands
    ends     scancel, interrupts, time limits, preemption, a lost node, arrays over the limit;
             ends:SCENE is one of them, by its name in `slurm_ends`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cluster_proof as proof
import slurm_ends
from slurm_site import Site, missing, site, wait_until

from keras_cnn.recipe import resources
from keras_cnn.results import identity
from keras_cnn.runs import study
from keras_cnn.runs.executors import executor
from keras_cnn.runs.executors.local import Local
from keras_cnn.runs.executors.slurm import SlurmCluster
from keras_cnn.runs.jobs import Job

KILLS = {"run": 5, "job": 5, "slurmd": 4, "slurmctld": 3, "command": 3}
ON = "slurm:minutes=10"
MANY = 1000
TESTS = Path(__file__).resolve().parent
PATIENCE = 30.0  # seconds until what was killed has taken along all that hangs on it
MOST_SECONDS = 900.0  # of a command


def equal(here: Site, folder: Path, _: random.Random) -> dict[str, object]:
    """The same runs by processes of this machine and on Slurm."""
    return proof.equal(ON, folder, lambda words: Command(words, folder, here).timed())


def beside(here: Site, folder: Path, _: random.Random) -> dict[str, object]:
    """What a run takes beside itself, one at a time."""
    os.environ["KERAS_CNN_HOME"] = f"{folder}/home"
    plan = study.plan("overfitting", "mini", repeats=5, overrides=proof.SETTINGS, threads=1)

    def jobs(name: str) -> list[Job]:
        (folder / name).mkdir()
        return [Job(run, identity.run_folder(run, folder / name)) for run in plan.runs]

    forked, on_slurm = jobs("forked"), resources.read(ON)
    seconds = {"a fork here": proof.seconds_each(Local(forked, 1), forked)}
    seconds["a process here"] = proof.seconds_each(Local([], 1), jobs("process"))
    seconds["on Slurm"] = proof.seconds_each(executor(on_slurm, plan.runs, 1), jobs("slurm"))
    began, tasks = time.monotonic(), 40
    script = folder / "nothing.sh"
    script.write_text("#!/bin/bash\n")
    words = ["sbatch", "--wait", f"--array=0-{tasks - 1}%1", "--output=/dev/null", str(script)]
    subprocess.run(words, env=here.variables, capture_output=True, check=True)
    return {"seconds": seconds, "nothing": (time.monotonic() - began) / tasks, "faults": []}


def many(here: Site, folder: Path, _: random.Random) -> dict[str, object]:
    """Jobs that Slurm holds back: what the command alone does with so many."""
    here.ask("scontrol", "update", "PartitionName=low", "State=DOWN")
    folders = [folder / "out" / "mine" / ".jobs" / str(number) for number in range(MANY)]
    for one in folders:
        one.mkdir(parents=True)
        (one / "task.json").write_text('{"run": {"spec": {"threads": 1}}}')
    cluster = SlurmCluster(resources.read(ON), 64)
    cluster.open()
    seconds, clock = {}, time.monotonic()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = time.monotonic() - clock, time.monotonic()

    tickets = cluster.send(folders)
    lap("submitted")
    gone = cluster.gone(tickets)
    lap("asked for")
    cluster.cancel(tickets)
    lap("cancelled")
    faults = ["a job was gone before it was cancelled"] if gone else []
    after = cluster.gone(tickets)
    if {one.why for one in after.values()} != {"cancelled"} or len(after) != MANY:
        faults.append(f"not all are cancelled: {Counter(one.why for one in after.values())}")
    here.ask("scontrol", "update", "PartitionName=low", "State=UP")
    return {"seconds": seconds, "arrays": len({t.partition("_")[0] for t in tickets})} | {
        "faults": faults
    }


class Command:
    """A command of the package, begun; what it starts on Slurm is known by its folder.

    Args:
        words: The command.
        folder: Takes its home.
        here: The Slurm that it finds.
    """

    def __init__(self, words: list[str], folder: Path, here: Site) -> None:
        self._home = f"KERAS_CNN_HOME={folder}/home\0".encode()
        self.process = subprocess.Popen(
            words,
            cwd=TESTS,  # where `slow_method` is
            env=here.variables
            | {"KERAS_CNN_HOME": f"{folder}/home", "PYTHONPATH": str(TESTS.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def timed(self) -> float:
        """Seconds until it has ended, which it has to do well."""
        began = time.monotonic()
        code, text = self.ended()
        if code:
            raise RuntimeError(text)
        return time.monotonic() - began

    def ended(self) -> tuple[int, str]:
        """Waits for its end: exit code, standard error."""
        _, text = self.process.communicate(timeout=MOST_SECONDS)
        return self.process.returncode, text

    def found(self, words: str) -> list[int]:
        """Processes of jobs, its own or those of a command before, by their command line."""
        return [
            n for n, line, variables in _processes() if words in line and self._home in variables
        ]

    def wait_for(self, words: str, count: int = 1) -> bool:
        """Waits for so many of them."""
        return wait_until(lambda: len(self.found(words)) >= count, 120)

    def leaves_none(self) -> bool:
        """Whether no process of any job is there, after some time."""
        return wait_until(lambda: not self.found("keras_cnn"), PATIENCE)


def _processes() -> Iterator[tuple[int, str, bytes]]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (path / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            yield int(path.name), line, (path / "environ").read_bytes() + b"\0"


def kills(here: Site, folder: Path, rng: random.Random) -> dict[str, object]:
    """Kills one thing after another under a recipe's command, until it has ended well; again."""
    expected = folder / "undisturbed"
    Command(proof.recipe(expected), folder, here).timed()
    left = [what for what, count in KILLS.items() for _ in range(count)]
    rng.shuffle(left)
    tally: dict[str, object] = {"killed": [], "codes": [], "faults": [], "sweeps": 0}
    while left:
        out = folder / f"out{tally['sweeps']}"
        _sweep(here, folder, out, rng, left, tally)
        tally["sweeps"] += 1
        name = f"sweep {tally['sweeps']}"
        if proof.content(out) != proof.content(expected):
            tally["faults"].append(f"other bits: {name}")
        tally["faults"] += [f"left {left}: {name}" for left in proof.leftovers(out)]
    return tally


def _sweep(
    here: Site, folder: Path, out: Path, rng: random.Random, left: list[str], tally: dict
) -> None:
    """A command's runs, with kills until it has ended well, given again where it has not."""
    words, finished = proof.recipe(out, ON), set()
    command = Command(words, folder, here)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            timeout = rng.uniform(3, 12) if left else MOST_SECONDS
            _, text = command.process.communicate(timeout=timeout)
            code = command.process.returncode
            tally["codes"].append(code)
            print(f"kills: exit code {code}", flush=True)
            if code == 0:
                break
            if code != -signal.SIGKILL and "killed by signal 9" not in text:
                tally["faults"].append(f"exit code {code}: {text.strip()[-300:]}")
            command = Command(words, folder, here)
            continue
        if not finished <= (finished := proof.results(out)):
            tally["faults"].append(f"LOST a result: kill {len(tally['killed'])}")
        if left and _killed(left[-1], command, here, rng):
            tally["killed"].append(left.pop())
            print(f"kills: {tally['killed'][-1]}, {len(finished)} runs finished", flush=True)
        elif not left:
            tally["faults"].append(f"over {MOST_SECONDS:.0f} s")
            command.process.kill()
    if not command.leaves_none():
        tally["faults"].append(f"processes are there {PATIENCE:.0f} s later: {out.name}")
    here.wait_until_up()


def _killed(what: str, command: Command, here: Site, rng: random.Random) -> bool:
    """Kills something, if it is there; a daemon is started again after some seconds."""
    if what in ("slurmd", "slurmctld"):
        here.kill(what)
        time.sleep(rng.uniform(1, 8))
        here.start(what)
        return True
    if what == "command":
        command.process.kill()
        return True
    there = command.found(f"keras_cnn.runs.{'worker' if what == 'run' else 'remote'}")
    if there:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(there), signal.SIGKILL)
    return bool(there)


def ends(
    here: Site, folder: Path, _: random.Random, scenes: Sequence[str] = (*slurm_ends.SCENES,)
) -> dict[str, object]:
    """Scenes of `slurm_ends`, one after another."""
    rows, faults = [], []
    for name in scenes:
        (folder / name).mkdir()
        (title, scene), began = slurm_ends.SCENES[name], time.monotonic()
        said = scene(here, folder / name, Command)
        faults += [f"{name}: {fault}" for fault in said.faults]
        rows.append([title, said.came, len(said.faults), time.monotonic() - began])
        print(f"ends: {title}: {said.came} {said.faults or ''}", flush=True)
        here.wait_until_up()
    return {"rows": rows, "faults": faults}


# --- report ------------------------------------------------------------------------------------

KINDS = {"equal": equal, "beside": beside, "many": many, "kills": kills, "ends": ends}


def written(done: dict[str, dict], seed: int, version: str) -> list[str]:
    """The section."""
    lines = [
        f"`python tests/slurm_cluster.py --seed={seed}`, Slurm {version} of one node; "
        f"{proof.machine('submitit')}. Other work shared the machine: seconds are of a busy one. "
        "Runs: `overfitting` of 60 images of 16 pixels, 2 epochs, one thread."
    ]
    if shown := done.get("equal"):
        lines += ["", f"### {shown['runs']} runs here and on Slurm", ""]
        same = not any("other bits" in fault for fault in shown["faults"])
        words = "are equal to the last bit" if same else "DIFFER"
        lines += [f"Table, histories, figures, counts, predictions and weights {words}.", ""]
        lines += ["| where | seconds | a run |", "|---|---|---|"]
        lines += [
            f"| {name} | {seconds:.0f} | {seconds / shown['runs']:.2f} |"
            for name, seconds in shown["seconds"].items()
        ]
        one, two = (shown["seconds"][f"slurm, {jobs} at a time"] for jobs in (1, 2))
        lines += ["", f"From one to two at a time on Slurm: {one / two / 2:.2f} of twice the rate."]
    if shown := done.get("beside"):
        lines += _beside(shown)
    if shown := done.get("many"):
        seconds = ", ".join(f"{name} in {value:.2f} s" for name, value in shown["seconds"].items())
        arrays = f"{shown['arrays']} array{'s' if shown['arrays'] > 1 else ''}"
        lines += ["", f"### {MANY:,} jobs", "", f"As {arrays}: {seconds}."]
    if shown := done.get("kills"):
        counts = ", ".join(f"{what} {count}" for what, count in Counter(shown["killed"]).items())
        codes = ", ".join(f"{code} ({count})" for code, count in Counter(shown["codes"]).items())
        sweeps = f", {shown['sweeps']} times over" if shown["sweeps"] > 1 else ""
        lines += ["", f"### {len(shown['killed'])} kills", ""]
        lines += [
            f"{counts}, 3 to 12 s apart, under a recipe of 24 runs, which was given again until it "
            f"had ended well{sweeps}: {len(shown['faults'])} faults (a result lost, other bits, a "
            f"process or a file left). Exit codes of the commands: {codes}. `run` is its process, "
            "`job` the one that waits for it on the node; a daemon is started again 1 to 8 s later."
        ]
    scenes = [shown for name, shown in done.items() if name.startswith("ends")]
    if rows := [row for shown in scenes for row in shown["rows"]]:
        lines += ["", "### Other ends", ""]
        lines += ["| what was done | what came of it | faults | seconds |", "|---|---|---|---|"]
        for name, came, faults, seconds in rows:
            lines.append(f"| {name} | {came} | {faults} | {seconds:.0f} |")
    faults = [fault for shown in done.values() for fault in shown["faults"]]
    return [*lines, "", f"Faults: {len(faults)}.", "", *(f"- {fault}" for fault in faults)]


def _beside(shown: dict) -> list[str]:
    lines = ["", "### What a run takes beside itself", ""]
    lines += ["| a run, until its end is known | median, s | least | most |", "|---|---|---|---|"]
    medians = {}
    for name, pairs in shown["seconds"].items():
        totals = [total for total, _ in pairs]
        medians[name] = statistics.median(totals)
        lines += [f"| {name} | {medians[name]:.2f} | {min(totals):.2f} | {max(totals):.2f} |"]
    own = statistics.median(own for _, own in shown["seconds"]["a fork here"])
    more, of_slurm = medians["on Slurm"] - own, medians["on Slurm"] - medians["a process here"]
    lines += [
        "",
        f"The run itself is {own:.2f} s of that, in a fork, which has imported torch and Keras "
        f"already: on Slurm {more:.2f} s are beside it, {of_slurm:.2f} s of them Slurm's, "
        f"submitit's and of the process that waits. An array task that does nothing takes Slurm "
        f"{shown['nothing']:.2f} s, the next one beginning when it has ended.",
    ]
    lines += ["", f"1,000 runs on {proof.ON_WORKERS} workers, by these figures:", ""]
    return [*lines, *proof.foretold(0.0, more)]


def shown(arguments: argparse.Namespace) -> int:
    """Shows what was asked for, and writes the section."""
    if absent := missing():
        print(f"not here: {', '.join(absent)}: apt-get install slurm-wlm munge", file=sys.stderr)
        return 2
    done = json.loads(arguments.state.read_text()) if arguments.state.exists() else {}
    for name in arguments.kinds.split(","):
        kind, _, scene = name.partition(":")
        show = partial(ends, scenes=[scene]) if scene else KINDS[kind]
        # Below the root, where no other user may write: munged insists on it.
        with tempfile.TemporaryDirectory(prefix="slurm-") as place:
            folder = Path(place, "work")
            folder.mkdir()
            limit = slurm_ends.MOST_IN_AN_ARRAY if kind == "ends" else MANY + 1
            with site(Path(place, "site"), limit) as here:
                os.environ["SLURM_CONF"] = here.variables["SLURM_CONF"]
                version = re.search(r"[\d.]+\d", here.ask("squeue", "--version"))[0]
                done[name] = show(here, folder, random.Random(arguments.seed))
        arguments.state.write_text(json.dumps(done))
        section = written(done, arguments.seed, version)
        proof.write_section(arguments.out, "Slurm", section)
        print(f"{name}: {len(done[name]['faults'])} faults", *done[name]["faults"], sep="\n  ")
    return int(any(one["faults"] for one in done.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir(), "slurm.json"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/published/clusters.md"))
    sys.exit(shown(parser.parse_args()))
