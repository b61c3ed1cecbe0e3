"""What growth and neighbours measure is all there; how fast anything is, no test says."""

from __future__ import annotations

import json
import sys

import pytest

from keras_cnn import bench, plots
from keras_cnn.__main__ import main
from keras_cnn.bench import growth, interleave, neighbours

# A contender of the next turn: it says how many busy loops there are.
SCRIPT = """
import json, sys
for _ in sys.stdin:
    busy = open({log!r}).read()
    print(json.dumps({{"images": 1, "seconds": 1.0 + 2 * int(busy)}}), flush=True)
"""
POWERS = {
    10: {"linear, s": 2.0, growth.MEMORY: 100.0},
    1000: {"linear, s": 200.0, growth.MEMORY: 1000.0},
}


@pytest.mark.parametrize(
    ("part", "size", "seconds"),
    [
        ("images", 20, ["decoding, s", "reading, s", "an epoch, s"]),
        ("runs", 2, ["plan, s", "runs, s", "table and pictures, s", "second call, s", "a run, s"]),
        ("classes", 30, ["scores, s", "report, s", "confusion, s", "predictions, s"]),
    ],
)
def test_a_size_is_measured_in_a_process_of_its_own(part, size, seconds, monkeypatch):
    monkeypatch.setattr(growth, "SIZES", {part: (size, 10**6)})
    (found,) = growth.measured(part, most=10**5).values()
    assert [*found][: len(seconds)] == seconds and [*found][-1] == growth.MEMORY
    assert all(value >= 0 for value in found.values()) and found[growth.MEMORY] > 20


def test_slopes_are_those_of_powers():
    slopes = growth.slopes(POWERS)
    assert slopes == pytest.approx({"linear, s": 1.0, growth.MEMORY: 0.5})
    last = growth.markdown(POWERS).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")[1:-1]] == ["slope in log-log", "1.00", "0.50"]


def test_axes_in_logarithms_have_numbers_that_can_be_read():
    lines = {"linear, s": [0.02, 0.2, 20.0]}
    figure = plots.growth("Growth", "runs", [1, 10, 1000], {"seconds": lines}, {"linear, s": 1.0})
    figure.canvas.draw()
    (panel,) = figure.axes
    for axis, wanted in ((panel.xaxis, {"1", "10", "1,000"}), (panel.yaxis, {"0.02", "0.5", "20"})):
        texts = {label.get_text() for label in axis.get_ticklabels(which="both")} - {""}
        assert wanted <= texts and not [text for text in texts if text.strip("0123456789.,")]


def test_pictures_and_figures_of_a_part_go_beside_the_file(monkeypatch, tmp_path, capsys):
    machine = {"processor": "abacus", "cores": 2, "device": "cpu", "versions": {}}
    monkeypatch.setattr(bench, "_machine", lambda *_: machine)
    monkeypatch.setattr(growth, "measured", lambda part, most: POWERS)
    assert main(["bench", "growth", "--only=runs", f"--out={tmp_path / 'growth.json'}"]) == 0
    assert (tmp_path / "growth-runs.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "growth-runs.csv").read_text().splitlines()[1] == "10,2.0,100.0"
    content = json.loads((tmp_path / "growth.json").read_text())
    assert content["benches"]["growth"]["sizes"]["runs"]["10"]["linear, s"] == 2.0
    assert "| 1,000" in capsys.readouterr().out


def test_turns_beside_others_are_taken_while_these_are_there(monkeypatch, tmp_path):
    log = tmp_path / "busy"

    class Loop:
        def __init__(self, command):
            log.write_text(str(int(log.read_text()) + 1))

        def kill(self):
            log.write_text(str(int(log.read_text()) - 1))

        def wait(self):
            pass

    log.write_text("0")
    monkeypatch.setattr(interleave, "CHILD", (sys.executable, "-c", SCRIPT.format(log=str(log))))
    started = neighbours.subprocess.Popen

    def popen(command, **how):  # contenders are started with pipes
        return started(command, **how) if how else Loop(command)

    monkeypatch.setattr(neighbours.subprocess, "Popen", popen)
    monkeypatch.setattr(neighbours, "SECONDS_TO_SETTLE", 0)
    monkeypatch.setattr(neighbours.environment, "cores", lambda: 2)
    found = neighbours.measured(rounds=2)
    assert [*found] == [neighbours.SLEEPS, neighbours.SPINS, neighbours.ALONE]
    assert all(each == {"idle": [1.0, 1.0], "beside": [5.0, 5.0]} for each in found.values())
    assert log.read_text() == "0"


def test_goals_beside_neighbours_are_judged_by_medians_of_rounds():
    found = {
        neighbours.SLEEPS: {"idle": [1.0, 2.0, 1.0], "beside": [2.0, 4.2, 2.3]},
        neighbours.SPINS: {"idle": [1.0, 1.9, 0.9], "beside": [9.0, 9.0, 9.0]},
        neighbours.ALONE: {"idle": [1.0] * 3, "beside": [1.5] * 3},
    }
    judged = neighbours.verdicts(found)
    assert (judged["beside"][1], judged["idle"][1]) == pytest.approx((2.1, 0.95))
    lines = [line.split("|") for line in neighbours.markdown(found).splitlines()]
    assert [line[-2].strip() for line in lines[-2:]] == ["yes", "no"]
