"""Progress: a terminal gets bars that vanish, anything else a line now and then."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_cnn import progress
from keras_cnn.runs.engine import Event, Job


def jobs(count: int) -> list[Job]:
    spec = SimpleNamespace(training=SimpleNamespace(epochs=4))
    places = [SimpleNamespace(row=str(n), variant="corrected", repeat=0) for n in range(count)]
    runs = [SimpleNamespace(spec=spec, place=place) for place in places]
    return [Job(run, Path(run.place.row)) for run in runs]


def play() -> None:
    """Three jobs: one done, one failed, one found busy."""
    record = {"epoch": 1, "train_accuracy": 0.5, "test_accuracy": 0.25, "images": 30, "seconds": 2}
    done, failed, busy = jobs(3)
    with progress.shown([done, failed, busy]) as show:
        for job in (done, failed, busy):
            show(Event(job, "started"))
        show(Event(done, "epoch", record))
        show(Event(busy, "busy"))
        show(Event(done, "done"))
        show(Event(failed, "failed", error="no [space] left"))


LINES = (
    "[1/3] row 0 corrected repeat 1 done: train 50.0%, test 25.0%, 15 images/s",
    "[2/3] row 1 corrected repeat 1 failed: no [space] left",
)


def test_runs_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    play()
    for words in (*LINES, "runs"):
        assert words in screen.getvalue()


@pytest.mark.parametrize("pause", [1000.0, 0.0])
def test_runs_elsewhere(pause, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", pause)
    play()
    lines = capsys.readouterr().err.splitlines()
    if pause == 0:  # a line for each epoch too
        assert lines.pop(0).startswith("[0/3] row 0 corrected repeat 1 epoch 1/4: train 50.0%")
    assert [line.rpartition(" (")[0] for line in lines] == [*LINES]


def test_loops_on_a_terminal_and_elsewhere(capsys, monkeypatch):
    def work() -> None:
        with progress.bar("decoding", 2000) as advance:
            for done in (1000, 2000):
                advance(done)

    work()
    assert capsys.readouterr().err == ""  # done before a line is due
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    work()
    assert capsys.readouterr().err.splitlines() == [
        "decoding: 1,000 of 2,000, 0 s left",
        "decoding: 2,000 of 2,000, 0 s left",
    ]


def test_durations():
    found = [progress.duration(seconds) for seconds in (6.6, 200, 3720, -1)]
    assert found == ["7 s", "3 min 20 s", "1 h 02 min", "0 s"]
