"""Slurm by what it prints: programs that print it stand in for its own."""

from __future__ import annotations

import json
import logging
import re
import time
from types import SimpleNamespace

import pytest

from keras_cnn.errors import UserError
from keras_cnn.recipe import resources
from keras_cnn.recipe.resources import Slurm
from keras_cnn.runs.executors import slurm, slurm_arrays
from keras_cnn.runs.executors.cluster import Gone
from keras_cnn.runs.executors.slurm import SlurmCluster

PROGRAM = """#!/bin/sh
cd {folder}
echo "$(basename $0) $*" >> calls
[ $(basename $0) = sbatch ] && cat "$1" >> scripts && env > variables
[ -f $(basename $0).err ] && cat $(basename $0).err >&2 && exit 1
cat $(basename $0).out
"""
DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


class Fake:
    """Programs that print what a test puts into their folder, and note how they were called."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
            (folder / name).write_text(PROGRAM.format(folder=folder))
            (folder / name).chmod(0o755)
            self.prints(name, "")
        self.prints(
            "scontrol", "SlurmUser = x(1)\nMaxArraySize            = 5\nMinJobAge = 9 sec\n"
        )
        self.prints("sbatch", "Submitted batch job 7\n")

    def prints(self, name, text):
        (self.folder / f"{name}.err").unlink(missing_ok=True)
        (self.folder / f"{name}.out").write_text(text)

    def fails(self, name, text):
        (self.folder / f"{name}.err").write_text(text)

    def calls(self, name):
        lines = (self.folder / "calls").read_text().splitlines()
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{name} ")]

    def scripts(self):
        return (self.folder / "scripts").read_text().split("#!/bin/bash\n")[1:]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return Fake(folder)


def job_folders(tmp_path, *threads):
    folders = [tmp_path / "out" / "mine" / ".jobs" / str(n) for n in range(len(threads))]
    for folder, each in zip(folders, threads, strict=True):
        folder.mkdir(parents=True)
        task = {"run": {"spec": {"threads": each}}}
        (folder / "task.json").write_text(json.dumps(task))
    return folders


def flags(script):
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE))


def test_jobs_are_shared_out_to_arrays_by_their_threads_and_the_sites_limit():
    assert slurm_arrays.arrays([1] * 3, 5) == [[0, 1, 2]]
    assert slurm_arrays.arrays([1] * 12, 5) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert slurm_arrays.arrays([1, 2, 1, 2, 2], 2) == [[0, 2], [1, 3], [4]]


def test_an_array_asks_for_what_each_run_is_given(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")  # which would win over what is asked for
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "9")  # of a job that the command runs in
    given = resources.read("slurm:partition=long,minutes=30,gigabytes=1.5,gpus=2,constraint=a&b")
    cluster = SlurmCluster(given, 2)
    cluster.open()
    folders = job_folders(tmp_path, 4, 4, 4)
    assert cluster.send(folders) == ["7_0", "7_1", "7_2"]
    (script,) = fake.scripts()
    asked = flags(script)
    expected = {"array": "0-2%2", "partition": "long", "time": "30", "mem": "1536M"}
    expected |= {"gpus-per-node": "2", "constraint": "'a&b'", "cpus-per-task": "4", "requeue": ""}
    assert expected.items() <= asked.items() and "account" not in asked and "wckey" not in asked
    variables = (fake.folder / "variables").read_text().splitlines()
    assert "SBATCH_ACCOUNT=mine" in variables
    assert not [line for line in variables if line.startswith(("SBATCH_TIME", "SLURM_ARRAY"))]
    assert {path.name for path in folders[0].parent.iterdir()} == {"0", "1", "2", "slurm"}


def test_arrays_over_the_limit_keep_the_bound_on_how_many_run(fake, tmp_path):
    cluster = SlurmCluster(Slurm(), 3)
    cluster.open()
    tickets = cluster.send(job_folders(tmp_path, *[1] * 12))
    assert [flags(script)["array"] for script in fake.scripts()] == ["0-4%3", "0-4%3", "0-1%2"]
    assert [flags(script).get("dependency") for script in fake.scripts()] == [
        None,
        "afterany:7",
        "afterany:7",
    ]
    assert tickets == [f"7_{task}" for task in [*range(5), *range(5), 0, 1]]


def test_what_slurm_refuses_is_one_line_and_leaves_no_job(fake, tmp_path):
    cluster = SlurmCluster(Slurm(partition="lnog"), 4)
    cluster.open()
    fake.fails("sbatch", "sbatch: error: invalid partition specified: lnog\nsbatch: error: no\n")
    with pytest.raises(UserError, match=r"^Slurm refused the jobs: sbatch: error: no$"):
        cluster.send(job_folders(tmp_path, 1, 1))
    (cancelled,) = fake.calls("scancel")
    assert re.fullmatch(r"--name=keras_cnn-mine-\w{6}", cancelled)


STATES = {
    "PENDING": None,
    "RUNNING": None,
    "COMPLETING": None,
    "REQUEUED": None,
    "SUSPENDED": None,
    "COMPLETED": Gone("it ended without a result"),
    "CANCELLED": Gone("cancelled", again=False),
    "TIMEOUT": Gone("it hit its time limit of 30 minutes (--on=slurm:minutes=…)"),
    "NODE_FAIL": Gone("its node failed"),
    "PREEMPTED": Gone("its node was wanted for another job"),
    "BOOT_FAIL": Gone("its node did not start"),
    "OUT_OF_MEMORY": Gone(
        "it needs more than its 1.5 GB of memory (--on=slurm:gigabytes=…)", again=False
    ),
}


def test_jobs_are_gone_by_their_state_and_all_are_asked_for_at_once(fake, tmp_path):
    cluster = SlurmCluster(Slurm(minutes=30, gigabytes=1.5), 4)
    script = tmp_path / "with space|and bar" / ".x.sh"
    lines = [f"7_{n}|{state}|None|{script}" for n, state in enumerate(STATES)]
    fake.prints("squeue", "\n".join([*lines, f"9|FAILED|NonZeroExitCode|{script}\n"]))
    script.parent.mkdir()
    (script.parent / "9_0_log.err").write_text("Traceback\nModuleNotFoundError: No module\n")
    expected = {f"7_{n}": gone for n, gone in enumerate(STATES.values()) if gone}
    expected |= {"9": Gone("its process failed: ModuleNotFoundError: No module")}
    expected |= {"8_0": Gone("Slurm does not know it any more")}
    assert cluster.gone([*(f"7_{n}" for n in range(len(STATES))), "9", "8_0"]) == expected
    (call,) = fake.calls("squeue")
    assert "--jobs=7,9,8" in call and "--states=all" in call


def test_a_task_that_vanishes_before_it_has_begun_was_cancelled(fake, tmp_path):
    """Slurm keeps no record of it, unlike of one that has run, or of an array it has forgotten."""
    cluster = SlurmCluster(Slurm(), 4)
    cluster.open()
    never_seen = cluster.send(job_folders(tmp_path, 1, 1, 1))[2]
    fake.prints("squeue", "7_0|PENDING|None|x\n7_1|RUNNING|None|x\n8_0|RUNNING|None|x\n")
    cancelled, forgotten = Gone("cancelled", again=False), Gone("Slurm does not know it any more")
    assert cluster.gone(["7_0", "7_1", never_seen]) == {never_seen: cancelled}
    fake.prints("squeue", "7|CANCELLED|None|x\n8_0|RUNNING|None|x\n")
    assert cluster.gone(["7_0", "8_0", "8_1"]) == {"7_0": cancelled, "8_1": forgotten}
    fake.prints("squeue", "8_0|RUNNING|None|x\n")
    assert cluster.gone(["7_0", "8_0"]) == {"7_0": forgotten}


def test_jobs_are_not_gone_while_slurm_does_not_answer(fake, monkeypatch, caplog):
    monkeypatch.setattr(slurm, "SECONDS_UNTIL_TOLD", 0.0)
    cluster = SlurmCluster(Slurm(), 4)
    fake.fails("squeue", DOWN)
    with caplog.at_level(logging.WARNING):
        assert cluster.gone(["7_1"]) == cluster.gone(["7_1", "7_2"]) == {}
    (line,) = caplog.messages
    assert "Slurm does not answer" in line and "connect failure" in line
    fake.fails("squeue", "slurm_load_jobs error: Invalid job id specified\n")
    assert cluster.gone(["7_1"]) == {"7_1": Gone("Slurm does not know it any more")}


def test_jobs_that_slurm_will_never_start_are_told_once(fake, caplog):
    cluster = SlurmCluster(Slurm(), 4)
    fake.prints("squeue", "7_0|PENDING|PartitionTimeLimit|x\n7_1|PENDING|PartitionTimeLimit|x\n")
    with caplog.at_level(logging.WARNING):
        assert cluster.gone(["7_0", "7_1"]) == cluster.gone(["7_0", "7_1"]) == {}
    (line,) = caplog.messages
    assert line == "keras_cnn: Slurm holds 2 runs back: PartitionTimeLimit (squeue --jobs=7_0)"


def test_jobs_are_sent_and_cancelled_when_the_controller_is_back(fake, tmp_path, monkeypatch):
    cluster = SlurmCluster(Slurm(), 4)
    tries = []

    def sleep(seconds):
        tries.append(seconds)
        fake.prints("sbatch", "Submitted batch job 8\n")
        fake.prints("scancel", "")

    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)  # for this module alone
    monkeypatch.setattr(slurm, "time", clock)
    fake.fails("sbatch", f"sbatch: error: {DOWN}")
    assert cluster.send(job_folders(tmp_path, 1)) == ["8"]
    fake.fails("scancel", f"scancel: error: {DOWN}")
    cluster.cancel(["8", "7_3"])
    first, *others = fake.calls("scancel")
    assert len(tries) == 2 and others == ["--quiet 8 7_3"] * 2
    assert first.startswith("--name="), "the first try may have been heard"


@pytest.mark.parametrize(
    ("on", "threads", "parallel", "lines"),
    [
        (
            "slurm",
            [1] * 3,
            3,
            [
                "Slurm: 3 runs in 1 array; each the site's partition, 60 min",
                "sbatch --array=0-2%3 --cpus-per-task=1 --time=60 --requeue",
            ],
        ),
        (
            "slurm:partition=gpu,minutes=5,gigabytes=2,gpus=1",
            [2] * 6,
            4,
            [
                "Slurm: 6 runs in 2 arrays, one after another, at most 4 at once; "
                "each partition gpu, 5 min, 2 GB, 1 GPU",
                *(
                    f"sbatch --array={array} --cpus-per-task=2 --gpus-per-node=1 --mem=2048M "
                    "--partition=gpu --time=5 --requeue"
                    for array in ("0-4%4", "0-0%1")
                ),
            ],
        ),
    ],
)
def test_what_would_be_submitted_is_told(fake, on, threads, parallel, lines):
    assert slurm_arrays.submission(resources.read(on), threads, parallel) == lines


def test_what_is_not_here_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no sbatch here|pip install -e '.\[slurm\]'"):
        SlurmCluster(Slurm(), 1)
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[slurm\]'"):
        SlurmCluster(Slurm(), 1)
    assert slurm_arrays.submission(Slurm(), [1], 1)[1].startswith("sbatch --array=0-0%1 ")
