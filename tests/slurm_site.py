"""A Slurm of one node on this machine: munged, slurmctld and slurmd, started by hand.

    apt-get install slurm-wlm munge

All its files are in one folder, and the ports are free ones: a Slurm that is here already is left
alone. The node has more processors than the machine, so that several small jobs fit.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
PROCESSORS = 8  # that the node claims to have
CONFIGURATION = """\
ClusterName=proof
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
OverTimeLimit=0
SlurmdTimeout=20
SlurmctldTimeout=20
MessageTimeout=5
MinJobAge=600
MaxArraySize={most_in_an_array}
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} RealMemory={megabytes}
PartitionName=low Nodes={host} Default=YES MaxTime=60 DefMemPerCPU=100 PriorityTier=1
PartitionName=high Nodes={host} MaxTime=60 DefMemPerCPU=100 PriorityTier=2 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs of Slurm and MUNGE that are not on PATH."""
    return [name for name in NEEDED if not shutil.which(name, path=_path())]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass
class Site:
    """The running daemons.

    Attributes:
        folder: Their files.
        variables: The environment of whatever uses this Slurm.
    """

    folder: Path
    variables: Mapping[str, str]
    _daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Starts `munged`, `slurmctld` or `slurmd`, as this user."""
        arguments = {
            "munged": [
                "--foreground",
                "--force",
                f"--key-file={self.folder}/munge.key",
                f"--socket={self.folder}/munge.socket",
                f"--pid-file={self.folder}/munged.pid",
                f"--seed-file={self.folder}/munged.seed",
                f"--log-file={self.folder}/munged.log",
            ],
            "slurmctld": ["-D"],
            "slurmd": ["-D"],
        }[name]
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [shutil.which(name, path=_path()), *arguments],
                env={**self.variables, "PATH": _path()},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # an interrupt of the keyboard is not for it
            )

    def kill(self, name: str) -> None:
        """Kills a daemon at once; what it started goes on."""
        self._daemons[name].kill()
        self._daemons.pop(name).wait()

    def stop(self) -> None:
        """Ends all jobs and daemons."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.ask("scancel", f"--user={getpass.getuser()}")
            wait_until(lambda: not self.ask("squeue", "--noheader").strip(), 30)
        for daemon in reversed(self._daemons.values()):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons.values():
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints; empty where it fails."""
        done = subprocess.run(
            command, env=dict(self.variables), capture_output=True, text=True, timeout=60
        )
        return "" if done.returncode else done.stdout

    def wait_until_up(self) -> None:
        """Waits until the node takes jobs."""

        def is_up() -> bool:
            return self.ask("sinfo", "--noheader", "--format=%T").strip() in ("idle", "mixed")

        if not wait_until(is_up, 60):
            logs = [path.read_text() for path in self.folder.glob("slurm*.log")]
            raise RuntimeError("Slurm did not start:\n" + "\n".join(logs)[-3000:])


def wait_until(condition, seconds: float) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


@contextmanager
def site(folder: Path, most_in_an_array: int = 1001) -> Iterator[Site]:
    """A Slurm while the block runs.

    Args:
        folder: Takes its files; no other user may write in the folders above it.
        most_in_an_array: Its `MaxArraySize`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, other)]
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=platform.node().partition(".")[0],
            folder=folder,
            user=getpass.getuser(),
            controller_port=ports[0],
            node_port=ports[1],
            most_in_an_array=most_in_an_array,
            processors=PROCESSORS,
            megabytes=megabytes,
        )
    )
    variables = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    found = Site(folder, variables)
    try:
        found.start("munged")
        if not wait_until((folder / "munge.socket").exists, 20):
            raise RuntimeError(f"munged did not start: {(folder / 'munged.out').read_text()}")
        for name in ("slurmctld", "slurmd"):
            found.start(name)
        found.wait_until_up()
        yield found
    finally:
        found.stop()
