"""Jobs as tasks of Slurm arrays, submitted by submitit.

What submitit starts on a node becomes `remote.main` at once, so that Slurm's signals meet the run
itself. Its files, and what a node prints, are in `.jobs/slurm`, beside the jobs' folders.

A preempted task is put back into the queue by Slurm, under the same name. One that hits its time
limit, or whose node fails for good, is `Gone`, and the engine sends it once more; what keeps a
checkpoint (`identity.checkpoint_file`) goes on from it.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from keras_cnn import environment, files
from keras_cnn.errors import UserError, printable
from keras_cnn.progress import runs as counted
from keras_cnn.recipe.resources import Slurm
from keras_cnn.runs.executors.cluster import Gone

FOLDER = "slurm"
MOST_IN_AN_ARRAY = 1001  # Slurm's own default
MOST_IN_A_COMMAND = 500  # tasks to cancel
SECONDS_FOR_AN_ANSWER = 60.0
SECONDS_BETWEEN_TRIES = 5.0
SECONDS_UNTIL_TOLD = 30.0  # that Slurm does not answer
SECONDS_OF_PATIENCE = 900.0  # with a controller that is being restarted, before jobs are sent
ENDS = {  # of a task, by its state; those in which it waits or runs are not here
    "COMPLETED": "it ended without a result",
    "FAILED": "its process failed",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "its node was wanted for another job",
    "REVOKED": "Slurm moved it to another cluster",
    "CANCELLED": "cancelled",
    "DEADLINE": "its deadline passed",
}
FINAL = ("CANCELLED", "DEADLINE", "OUT_OF_MEMORY")  # another try would end likewise
STUCK = (  # reasons to wait that do not end by themselves
    *("PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "JobHeldUser", "JobHeldAdmin"),
    *("launch failed requeued held", "InvalidAccount", "InvalidQOS", "AssocGrpBillingMinutes"),
)
# Variables of no job: of the site, and of the user for what is not asked for here.
LASTING = ("SLURM_CONF", "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_WCKEY")
DEFAULTS = ("account", "partition", "constraint")  # SBATCH_ACCOUNT and so on
Given = TypeVar("Given")
IS_AWAY = re.compile("unable to contact|timed out|connection refused|communication", re.IGNORECASE)


class SlurmCluster:
    """A `cluster.Cluster` of Slurm. A ticket is `JOB_TASK`, as squeue and scancel have it.

    Args:
        resources: What each job is given.
        parallel: How many run at a time, at most.

    Raises:
        UserError: submitit is not installed, or this machine has no Slurm.
    """

    name = "slurm"

    def __init__(self, resources: Slurm, parallel: int) -> None:
        try:
            import submitit  # noqa: F401 (here: a mistake is told before anything is prepared)
        except ImportError:
            raise UserError("--on=slurm needs submitit: pip install -e '.[slurm]'") from None
        if not shutil.which("sbatch"):
            raise UserError("--on=slurm: there is no sbatch here: give the command on a login node")
        self._resources = resources
        self._parallel = parallel
        self._most = MOST_IN_AN_ARRAY
        self._silent_since: float | None = None
        self._told: set[str] = set()

    def open(self) -> None:
        """Asks Slurm for its largest array.

        Raises:
            UserError: It does not answer.
        """
        try:
            self._most = _most_in_an_array()
        except OSError as error:
            raise UserError(f"Slurm does not answer: {error}") from None

    def close(self) -> None:
        """Does nothing: no connection is kept."""

    def send(self, folders: Sequence[Path]) -> list[str]:
        """Submits jobs as few arrays as can be.

        Raises:
            UserError: Slurm refuses them; then none is left there.
        """
        tickets: dict[Path, str] = {}
        names: list[str] = []
        try:
            after = None
            cores = [self._cores(folder) for folder in folders]
            for group in arrays(cores, self._most):
                some = [folders[index] for index in group]
                parameters = _parameters(self._resources, cores[group[0]], self._parallel)
                if after and self._parallel < len(folders):
                    parameters["dependency"] = f"afterany:{after}"  # as one array, at most so many
                tickets |= zip(some, self._submit(some, parameters, names), strict=True)
                after = tickets[some[0]].partition("_")[0]
        except BaseException:  # an interrupt, too: nobody knows these jobs yet
            for name in names:
                _run(["scancel", f"--name={name}"])
            raise
        return [tickets[folder] for folder in folders]

    def _cores(self, folder: Path) -> int:
        """What a job needs: a core for each thread of its run; a command tells no threads."""
        task = files.read_json(folder / "task.json")
        return task["run"]["spec"]["threads"] if "run" in task else self._resources.cores

    def _submit(
        self, folders: Sequence[Path], parameters: dict[str, object], names: list[str]
    ) -> list[str]:
        """Submits one array, whose name is added to `names` before."""
        import submitit

        command = [*environment.PYTHON, "-m", "keras_cnn.runs.remote"]
        place = folders[0].parent / FOLDER
        path = environment.import_path()["PYTHONPATH"]
        lasting = {*LASTING, *(f"SBATCH_{n.upper()}" for n in DEFAULTS if n not in parameters)}
        kept = {name: value for name, value in os.environ.items() if name in lasting}

        def submit() -> list[str]:
            names.append(f"keras_cnn-{folders[0].parents[1].name}-{uuid.uuid4().hex[:6]}")
            executor = submitit.SlurmExecutor(place, python=shlex.join(environment.PYTHON))
            executor.update_parameters(
                **parameters,
                job_name=names[-1],
                setup=[f"export PYTHONPATH={shlex.quote(path)}"],
                signal_delay_s=0,  # none ahead of the time limit's own
                use_srun=False,  # one process on one node
                wckey=None,
                additional_parameters={"requeue": True},
            )
            try:
                with submitit.helpers.clean_env():  # of a job that this process may run in
                    os.environ.update(kept)
                    jobs = executor.map_array(
                        os.execv,
                        [sys.executable] * len(folders),
                        [[*command, str(folder)] for folder in folders],
                    )
            except (submitit.core.utils.FailedJobError, RuntimeError) as error:
                raise OSError(_last_line(str(error))) from None
            return [job.job_id for job in jobs]

        try:
            return _patiently(submit)
        except OSError as error:
            raise UserError(f"Slurm refused the jobs: {error}") from None

    def gone(self, tickets: Collection[str]) -> dict[str, Gone]:
        """Asks squeue once for all. While it does not answer, no job is gone."""
        if not tickets:
            return {}
        jobs = ",".join(dict.fromkeys(ticket.partition("_")[0] for ticket in tickets))
        asked = ["squeue", "--states=all", "--array", "--noheader", "--format=%i|%T|%r|%o"]
        done = _run([*asked, f"--jobs={jobs}"])
        is_unknown = "Invalid job id" in done.stderr  # of the only one that was asked for
        if done.returncode and not is_unknown:
            self._tell_silence(done.stderr)
            return {}
        self._silent_since = None
        rows = [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
        found = {row[0]: row for row in rows}
        self._tell_stuck([found[ticket] for ticket in tickets if ticket in found])
        gone = {}
        for ticket in tickets:
            _, state, _, script = found.get(ticket, (ticket, "", "", ""))
            if not state:
                gone[ticket] = Gone("Slurm does not know it any more")
            elif why := self._why(state):
                log = Path(script).parent / f"{ticket}_0_log.err"
                last = _last_line(_text(log)) if state == "FAILED" else ""
                gone[ticket] = Gone(f"{why}: {last}" if last else why, state not in FINAL)
        return gone

    def _why(self, state: str) -> str:
        """How a task ended, in words; empty where it has not."""
        minutes, gigabytes = self._resources.minutes, self._resources.gigabytes
        if state == "TIMEOUT":
            limit = f"{minutes} minute{'s' if minutes > 1 else ''}"
            return f"it hit its time limit of {limit} (--on=slurm:minutes=…)"
        if state == "OUT_OF_MEMORY":
            limit = f"its {gigabytes:g} GB of memory" if gigabytes else "the memory it was given"
            return f"it needs more than {limit} (--on=slurm:gigabytes=…)"
        return ENDS.get(state, "")

    def _tell_silence(self, why: str) -> None:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since >= SECONDS_UNTIL_TOLD:
            self._tell(f"Slurm does not answer ({_last_line(why)}); its jobs go on, asked again")

    def _tell_stuck(self, rows: Sequence[Sequence[str]]) -> None:
        for reason in sorted({row[2] for row in rows if row[1] == "PENDING"} & {*STUCK}):
            jobs = [row[0] for row in rows if row[1:3] == ["PENDING", reason]]
            self._tell(f"Slurm holds {counted(len(jobs))} back: {reason} (squeue --jobs={jobs[0]})")

    def _tell(self, line: str) -> None:
        """Says a line, once."""
        if line not in self._told:
            self._told.add(line)
            logging.getLogger(__name__).warning("keras_cnn: %s", printable(line))

    def cancel(self, tickets: Collection[str]) -> None:
        """Cancels these tasks, and no other of their arrays; of ended ones nothing is said."""
        left = [*tickets]
        while left:
            some, left = left[:MOST_IN_A_COMMAND], left[MOST_IN_A_COMMAND:]

            def scancel(some: Sequence[str] = some) -> None:
                done = _run(["scancel", "--quiet", *some])
                if done.returncode and IS_AWAY.search(done.stderr):
                    raise OSError(_last_line(done.stderr))

            try:
                _patiently(scancel)
            except OSError as error:
                raise UserError(f"jobs may go on: Slurm does not answer: {error}") from None


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
        most = _most_in_an_array()
    except OSError:  # this machine has no Slurm
        most = MOST_IN_AN_ARRAY
    groups = arrays(threads, most)
    given = [f"partition {resources.partition}" if resources.partition else "the site's partition"]
    given += [f"{resources.minutes} min"]
    given += [f"{resources.gigabytes:g} GB"] if resources.gigabytes else []
    given += [f"{resources.gpus} GPU{'s' if resources.gpus > 1 else ''}"] if resources.gpus else []
    count = f"{len(groups)} arrays" if len(groups) > 1 else "1 array"
    at_once = f", at most {parallel} at once" if parallel < len(threads) else ""
    lines = [f"Slurm: {counted(len(threads))} in {count}{at_once}; each {', '.join(given)}"]
    for group in groups:
        flags = _parameters(resources, threads[group[0]], parallel)
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

    def cut() -> Iterator[list[int]]:
        for group in groups.values():
            for start in range(0, len(group), most):
                yield group[start : start + most]

    return [*cut()]


def _parameters(resources: Slurm, cores: int, parallel: int) -> dict[str, object]:
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


def _most_in_an_array() -> int:
    """The site's limit.

    Raises:
        OSError: Slurm does not answer.
    """
    done = _run(["scontrol", "show", "config"])
    if done.returncode:
        raise OSError(_last_line(done.stderr))
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(1, int(limit[1])) if limit else MOST_IN_AN_ARRAY


def _patiently(action: Callable[[], Given]) -> Given:
    """Does it again while Slurm's controller is away, as for a restart.

    Raises:
        OSError: It stays away, or the action failed for another reason.
    """
    end = time.monotonic() + SECONDS_OF_PATIENCE
    while True:
        try:
            return action()
        except OSError as error:
            if not IS_AWAY.search(str(error)) or time.monotonic() > end:
                raise
            time.sleep(SECONDS_BETWEEN_TRIES)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command of Slurm; one that hangs, or is not there, has failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_FOR_AN_ANSWER, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} timed out")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: {error.strerror}")


def _last_line(text: str) -> str:
    return printable((text.strip().splitlines() or ["no message"])[-1])


def _text(path: Path) -> str:
    try:
        return files.content(path).decode(errors="replace")
    except OSError:
        return ""
