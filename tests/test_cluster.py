"""Jobs by way of folders on a shared disk. Processes of this machine stand in for the cluster's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from test_engine import FAKE, a_job, kinds

from keras_cnn.errors import UserError
from keras_cnn.runs import engine
from keras_cnn.runs.executors import cluster, command
from keras_cnn.runs.executors.cluster import Gone, Remote

# `remote.main` with a process in place of the worker that imports no package of ours.
NODE = """
import sys
from pathlib import Path
from keras_cnn.runs import child, remote
child.COMMAND = (sys.executable, "-I", "-S", {fake!r})
sys.exit(remote.main(Path(sys.argv[1])))
"""

# In place of a row that sleeps: one that sleeps the first time.
ONCE = (
    """if name == "sleep":
    time.sleep(60)""",
    """if name == "once":
    mark = folder.parent / "mark"
    if not mark.exists():
        mark.touch()
        time.sleep(60)""",
)


class Processes:
    """A cluster of processes; a ticket is a process's number."""

    name = "processes"

    def __init__(self, fake):
        self.code = NODE.format(fake=str(fake))
        self.by_ticket, self.cancelled, self.is_open = {}, [], False

    def open(self):
        self.is_open = True

    def close(self):
        self.is_open = False

    def send(self, folders):
        started = [subprocess.Popen([sys.executable, "-c", self.code, str(f)]) for f in folders]
        self.by_ticket |= {str(process.pid): process for process in started}
        return [str(process.pid) for process in started]

    def gone(self, tickets):
        ended = {t: p.poll() for t in tickets if (p := self.by_ticket.get(t))}
        return {
            ticket: Gone("its node failed") for ticket, code in ended.items() if code is not None
        } | {ticket: Gone("unknown") for ticket in tickets if ticket not in self.by_ticket}

    def cancel(self, tickets):
        for ticket in tickets:
            self.by_ticket[ticket].terminate()
        self.cancelled += tickets


@pytest.fixture
def processes(tmp_path, monkeypatch):
    script = tmp_path / "fake.py"
    script.write_text(FAKE.replace(*ONCE))
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_QUESTIONS", 0.2)
    monkeypatch.setattr(cluster, "SECONDS_TO_APPEAR", 0.5)
    found = Processes(script)
    yield found
    assert not found.is_open
    for process in found.by_ticket.values():
        process.kill()
        process.wait()


def executed(processes, folder, rows, notify=lambda event: None):
    events = []

    def note(event):
        events.append(event)
        notify(event)

    jobs = [a_job(folder, row) for row in rows]
    return events, engine.execute(jobs, Remote(processes, len(jobs)), note)


def test_jobs_go_as_files_and_come_back_as_folders(processes, tmp_path):
    out = tmp_path / "out"
    events, failed = executed(processes, out, ["a", "fail", "noise", "exit", "killed"])
    assert kinds(events, "a") == ["started", "epoch", "done"]
    assert kinds(events, "noise") == ["started", "epoch", "epoch", "done"]
    assert {event.job.run.place.row: event.error for event in failed} == {
        "fail": "it cannot \\x1b[31mbe done",
        "exit": "exit code 1: no more memory",
        "killed": "killed by signal 9 (out of memory?)",
    }
    assert "at length" in next(e.log for e in failed if e.job.run.place.row == "fail")
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    assert folders == {"a", "noise"}, "no job's folder is left"


def test_a_node_that_fails_has_its_run_made_again(processes, tmp_path):
    """Its process is killed, and that of the run goes with it: nothing says so in the folder."""
    killed = []

    def kill(event):
        if event.kind == "epoch" and not killed:
            killed.extend(processes.by_ticket)
            processes.by_ticket[killed[0]].kill()

    events, failed = executed(processes, tmp_path / "out", ["once"], kill)
    assert kinds(events, "once") == ["started", "epoch", "lost", "started", "epoch", "done"]
    assert not failed and len(processes.by_ticket) == 2


def test_a_run_that_was_cancelled_has_failed(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "gone", lambda tickets: {
        ticket: Gone("cancelled", again=False) for ticket in tickets
        if processes.by_ticket[ticket].poll() is not None
    })  # fmt: skip

    def cancel(event):
        if event.kind == "epoch":
            processes.cancel([*processes.by_ticket])

    events, (failed,) = executed(processes, tmp_path / "out", ["once"], cancel)
    assert kinds(events, "once") == ["started", "epoch", "failed"]
    assert failed.error == "cancelled"


class Ended(KeyboardInterrupt):
    """As `__main__.Terminated`."""


def test_an_interrupt_cancels_and_another_end_leaves_jobs_to_the_next_command(processes, tmp_path):
    def end(event):
        if event.kind == "epoch":
            raise Ended

    out = tmp_path / "out"
    with pytest.raises(Ended):
        executed(processes, out, ["once", "a"], end)
    assert not processes.cancelled

    def interrupt(event):
        if event.kind == "epoch" and event.job.run.place.row == "once":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executed(processes, out, ["once"], interrupt)
    assert len(processes.by_ticket) == 2, "the job under way is followed, not sent again"
    assert len(processes.cancelled) == 1
    events, failed = executed(processes, out, ["once"])  # cancelled: it has to be sent again
    assert kinds(events, "once")[-1] == "done" and not failed and len(processes.by_ticket) == 3


def test_the_result_on_disk_is_the_truth(processes, tmp_path, monkeypatch):
    """A node that brought its result and then failed has not lost it; one that only says so has."""
    monkeypatch.setattr(processes, "send", lambda folders: [folder.name for folder in folders])
    monkeypatch.setattr(processes, "gone", lambda tickets: dict.fromkeys(tickets, Gone("failed")))
    out = tmp_path / "out"
    (out / "brought").mkdir(parents=True)
    events, failed = executed(processes, out, ["brought"])
    assert kinds(events, "brought") == ["done"] and not failed

    def say_done(folders):
        for folder in folders:
            cluster.tell_end(folder, "done")
        return [folder.name for folder in folders]

    monkeypatch.setattr(processes, "send", say_done)
    events, (failed,) = executed(processes, out, ["not-brought"])
    assert kinds(events, "not-brought") == ["lost", "lost", "failed"]
    assert failed.error == "its result did not appear, 3 times"


def test_a_line_that_is_half_written_is_read_when_it_is_whole(processes, tmp_path, monkeypatch):
    out, folders = tmp_path / "out", []
    record = json.dumps({"epoch": 1, "train_accuracy": 0.5, "test_accuracy": 0.5}) + "\n"

    def send(sent):
        folders.extend(sent)
        (sent[0] / "reports.jsonl").write_text(record + record[:20])
        return ["1"]

    def complete(event):
        if event.kind == "epoch" and len(events) == 2:
            with (folders[0] / "reports.jsonl").open("a") as file:
                file.write(record[20:])
            (out / "a").mkdir()
            cluster.tell_end(folders[0], "done")

    monkeypatch.setattr(processes, "send", send)
    monkeypatch.setattr(processes, "gone", lambda tickets: {})
    events = []

    def note(event):
        events.append(event)
        complete(event)

    assert not engine.execute([a_job(out, "a")], Remote(processes, 1), note)
    assert kinds(events, "a") == ["started", "epoch", "epoch", "done"]


def test_a_whole_command_goes_as_one_job_and_its_output_and_exit_code_come_back(
    processes, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    processes.code = "import sys; from pathlib import Path; from keras_cnn.runs import remote\n"
    processes.code += "sys.exit(remote.main(Path(sys.argv[1])))"
    assert command.run(processes, ["recipes"], tmp_path / "out") == 0
    assert "fewshot_convnext" in capfd.readouterr().err
    assert command.run(processes, ["data", "nothing"], tmp_path / "out") == 2
    assert "keras_cnn: no data 'nothing'" in capfd.readouterr().err
    assert not (tmp_path / "out" / ".jobs").exists() and not processes.is_open


def test_a_command_that_loses_its_machine_is_sent_again_twice(processes, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(processes, "send", lambda folders: sent.extend(folders) or ["1"])
    monkeypatch.setattr(processes, "gone", lambda tickets: dict.fromkeys(tickets, Gone("failed")))
    with pytest.raises(UserError, match="teach: failed"):
        command.run(processes, ["teach", "photos"], tmp_path / "out")
    assert len(sent) == 3
