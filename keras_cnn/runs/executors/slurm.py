"""Jobs as tasks of Slurm arrays, submitted by submitit.

What submitit starts on a node becomes `remote.main` at once, so that Slurm's signals meet the run
itself. Its files, and what a node prints, are in `.jobs/slurm`, beside the jobs' folders.

A preempted task is put back into the queue by Slurm, under the same name. One that hits its time
limit, or whose node fails for good, is `Gone`, and the engine sends it once more; what keeps a
checkpoint (`identity.checkpoint_file`) goes on from it.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from keras_cnn import environment, files
from keras_cnn.errors import UserError, printable
from keras_cnn.progress import runs as counted
from keras_cnn.recipe.resources import Slurm
from keras_cnn.runs.executors.cluster import Gone
from keras_cnn.runs.executors.slurm_arrays import (
    Limits,
    arrays,
    ask,
    last_line,
    limits,
    parameters,
)

FOLDER = "slurm"
MOST_IN_A_COMMAND = 500  # tasks to cancel
SECONDS_BETWEEN_TRIES = 5.0
SECONDS_UNTIL_TOLD = 30.0  # that Slurm does not answer
SECONDS_TO_SEND = 900.0  # again and again while the controller is away, as for a restart
SECONDS_TO_CANCEL = 60.0  # likewise; somebody waits for it
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
FORGOTTEN = "Slurm does not know it any more"
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
        self._limits = Limits()
        self._waiting: dict[str, float] = {}  # when tasks were seen to wait last
        self._answered = time.monotonic()  # when Slurm did so last
        self._has_told_silence = False
        self._told: set[str] = set()  # reasons why jobs wait

    def open(self) -> None:
        """Asks Slurm for its limits.

        Raises:
            UserError: It does not answer.
        """
        try:
            self._limits = limits()
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
            for group in arrays(cores, self._limits.most_in_an_array):
                some = [folders[index] for index in group]
                asked = parameters(self._resources, cores[group[0]], self._parallel)
                if after and self._parallel < len(folders):
                    asked["dependency"] = f"afterany:{after}"  # so that no more run at a time
                tickets |= zip(some, self._submit(some, asked, names), strict=True)
                after = tickets[some[0]].partition("_")[0]
        except BaseException:  # an interrupt, too: nobody knows these jobs yet
            for name in names:
                ask(["scancel", f"--name={name}"])
            raise
        self._waiting |= dict.fromkeys(tickets.values(), time.monotonic())
        return [tickets[folder] for folder in folders]

    def _cores(self, folder: Path) -> int:
        """What a job needs: a core for each thread of its run; a command tells no threads."""
        task = files.read_json(folder / "task.json")
        return task["run"]["spec"]["threads"] if "run" in task else self._resources.cores

    def _submit(
        self, folders: Sequence[Path], asked: dict[str, object], names: list[str]
    ) -> list[str]:
        """Submits one array, whose name is added to `names` before."""
        import submitit

        command = [*environment.PYTHON, "-m", "keras_cnn.runs.remote"]
        place = folders[0].parent / FOLDER
        title = re.sub(r"\W", "_", place.parents[1].name)  # scancel takes a comma for another name
        path = environment.import_path()["PYTHONPATH"]
        lasting = {*LASTING, *(f"SBATCH_{n.upper()}" for n in DEFAULTS if n not in asked)}
        kept = {name: value for name, value in os.environ.items() if name in lasting}

        tried: list[str] = []

        def submit() -> list[str]:
            for name in tried:  # it may have been heard, though it got no answer
                ask(["scancel", f"--name={name}"])
            tried.append(f"keras_cnn-{title}-{uuid.uuid4().hex[:6]}")
            names.append(tried[-1])
            executor = submitit.SlurmExecutor(place, python=shlex.join(environment.PYTHON))
            executor.update_parameters(
                **asked,
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
                raise OSError(last_line(str(error))) from None
            return [job.job_id for job in jobs]

        try:
            return self._patiently(submit, SECONDS_TO_SEND)
        except OSError as error:
            raise UserError(f"Slurm refused the jobs: {error}") from None

    def gone(self, tickets: Collection[str]) -> dict[str, Gone]:
        """Asks squeue once for all. While it does not answer, no job is gone."""
        if not tickets:
            return {}
        jobs = ",".join(dict.fromkeys(ticket.partition("_")[0] for ticket in tickets))
        asked = ["squeue", "--states=all", "--array", "--noheader", "--format=%i|%T|%r|%o"]
        done = ask([*asked, f"--jobs={jobs}"])
        is_unknown = "Invalid job id" in done.stderr  # of the only one that was asked for
        if done.returncode and not is_unknown:
            self._tell_silence(done.stderr)
            return {}
        self._note_answer()
        now = time.monotonic()
        rows = [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
        found = {row[0]: row for row in rows}
        self._tell_stuck([found[ticket] for ticket in tickets if ticket in found])
        known = {name.partition("_")[0] for name in found}
        gone = {}
        for ticket in tickets:
            _, state, _, script = found.get(ticket, (ticket, "", "", ""))
            if state == "PENDING":
                self._waiting[ticket] = now
            elif not state:
                is_cancelled = ticket.partition("_")[0] in known and self._waited(ticket, now)
                gone[ticket] = Gone("cancelled", False) if is_cancelled else Gone(FORGOTTEN)
            elif why := self._why(state):
                log = _text(Path(script).parent / f"{ticket}_0_log.err")
                why += f": {last_line(log)}" if state == "FAILED" and log.strip() else ""
                gone[ticket] = Gone(why, state not in FINAL)
        return gone

    def _waited(self, ticket: str, now: float) -> bool:
        """Whether a task that is not listed cannot have begun: it would be listed as ended.

        One that is cancelled before it begins just vanishes from its array.
        """
        return now - self._waiting.get(ticket, -math.inf) < self._limits.seconds_known

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

    def _patiently(self, action: Callable[[], Given], seconds: float) -> Given:
        """Does it again while Slurm's controller is away.

        Raises:
            OSError: It stays away for so long, or the action failed for another reason.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                done = action()
            except OSError as error:
                if not IS_AWAY.search(str(error)) or time.monotonic() > end:
                    raise
                self._tell_silence(str(error))
                time.sleep(SECONDS_BETWEEN_TRIES)
            else:
                self._note_answer()
                return done

    def _note_answer(self) -> None:
        self._answered, self._has_told_silence = time.monotonic(), False

    def _tell_silence(self, why: str) -> None:
        """Tells it once until Slurm answers again."""
        silence = time.monotonic() - self._answered
        if silence >= SECONDS_UNTIL_TOLD and not self._has_told_silence:
            self._has_told_silence = True
            self._tell(f"Slurm does not answer ({last_line(why)}); its jobs go on, asked again")

    def _tell_stuck(self, rows: Sequence[Sequence[str]]) -> None:
        """Tells each reason once."""
        for reason in STUCK:
            held = [
                row[0] for row in rows if row[1] == "PENDING" and row[2].replace("_", " ") == reason
            ]
            if held and reason not in self._told:
                self._told.add(reason)
                first = f"squeue --jobs={held[0]}"
                self._tell(f"Slurm holds {counted(len(held))} back: {reason} ({first})")

    def _tell(self, line: str) -> None:
        logging.getLogger(__name__).warning("keras_cnn: %s", printable(line))

    def cancel(self, tickets: Collection[str]) -> None:
        """Cancels these tasks, and no other of their arrays; of ended ones nothing is said."""
        left = [*tickets]
        while left:
            some, left = left[:MOST_IN_A_COMMAND], left[MOST_IN_A_COMMAND:]

            def scancel(some: Sequence[str] = some) -> None:
                done = ask(["scancel", "--quiet", *some])
                if done.returncode and IS_AWAY.search(done.stderr):
                    raise OSError(last_line(done.stderr))

            try:
                self._patiently(scancel, SECONDS_TO_CANCEL)
            except OSError as error:
                raise UserError(f"jobs may go on: Slurm does not answer: {error}") from None


def _text(path: Path) -> str:
    try:
        return files.content(path).decode(errors="replace")
    except OSError:
        return ""
