"""Which arrays of Slurm jobs some runs make, what each asks for, and how Slurm is asked."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from keras_cnn.errors import printable
from keras_cnn.progress import runs as counted
from keras_cnn.recipe.resources import Slurm

SECONDS_FOR_AN_ANSWER = 60.0


@dataclass(frozen=True)
class Limits:
    """Of a site; by default Slurm's own.

    Attributes:
        most_in_an_array: Jobs of an array.
        seconds_known: How long squeue knows a job after its end, at least.
    """

    most_in_an_array: int = 1001
    seconds_known: float = 300.0


def submission(resources: Slurm, threads: Sequence[int], parallel: int) -> list[str]:
    """What would be submitted, in lines: one of words, and the command of each array.

    Args:
        resources: What each job is given.
        threads: Of each run.
        parallel: How many run at a time, at most.
    """
    if not threads:
        return ["Slurm: no job"]
    try:
        most = limits().most_in_an_array
    except OSError:  # this machine has no Slurm
        most = Limits.most_in_an_array
    groups = arrays(threads, most)
    given = [f"partition {resources.partition}" if resources.partition else "the site's partition"]
    given += [f"{resources.minutes} min"]
    given += [f"{resources.gigabytes:g} GB"] if resources.gigabytes else []
    given += [f"{resources.gpus} GPU{'s' if resources.gpus > 1 else ''}"] if resources.gpus else []
    count = f"{len(groups)} arrays" if len(groups) > 1 else "1 array"
    at_once = f", at most {parallel} at once" if parallel < len(threads) else ""
    count += ", one after another" if at_once and len(groups) > 1 else ""
    lines = [f"Slurm: {counted(len(threads))} in {count}{at_once}; each {', '.join(given)}"]
    for group in groups:
        flags = parameters(resources, threads[group[0]], parallel)
        at_a_time = min(flags.pop("array_parallelism"), len(group))
        words = [f"--array=0-{len(group) - 1}%{at_a_time}"]
        words += [f"--{name.replace('_', '-')}={value}" for name, value in sorted(flags.items())]
        lines.append(f"sbatch {shlex.join([*words, '--requeue'])}")
    return lines


def arrays(cores: Sequence[int], most: int) -> list[list[int]]:
    """Shares jobs out to arrays: of the same number of cores, and of so many jobs at most.

    Args:
        cores: Of each job.
        most: Jobs of an array; at least 1.

    Returns:
        The numbers of the jobs of each array, in their order.
    """
    groups: dict[int, list[int]] = {}
    for number, each in enumerate(cores):
        groups.setdefault(each, []).append(number)
    return [
        group[start : start + most]
        for group in groups.values()
        for start in range(0, len(group), most)
    ]


def parameters(resources: Slurm, cores: int, parallel: int) -> dict[str, object]:
    """What an array asks for, by the names that submitit has for sbatch's flags."""
    asked = {
        "partition": resources.partition,
        "account": resources.account,
        "constraint": resources.constraint,
        "mem": f"{resources.gigabytes * 1024:.0f}M" if resources.gigabytes else None,
        "gpus_per_node": resources.gpus,
        "time": resources.minutes,
        "cpus_per_task": cores,
        "array_parallelism": parallel,
    }
    return {name: value for name, value in asked.items() if value is not None}


def limits() -> Limits:
    """What the site allows.

    Raises:
        OSError: Slurm does not answer.
    """
    done = ask(["scontrol", "show", "config"])
    if done.returncode:
        raise OSError(last_line(done.stderr))
    found = dict(re.findall(r"^(\w+)\s*=\s*(\d+)", done.stdout, re.MULTILINE))
    return Limits(
        max(1, int(found.get("MaxArraySize", Limits.most_in_an_array))),
        float(found.get("MinJobAge", Limits.seconds_known)) or math.inf,
    )


def ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command of Slurm; one that hangs, or is not there, has failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_FOR_AN_ANSWER, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} timed out")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: {error.strerror}")


def last_line(text: str) -> str:
    """What a command said last, on a line."""
    return printable((text.strip().splitlines() or ["no message"])[-1])
