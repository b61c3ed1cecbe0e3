"""How a bench counts and judges; how fast anything is, no test says."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from keras_cnn import bench
from keras_cnn.__main__ import main
from keras_cnn.bench import contenders, coverage, goals, interleave, sweep

# A contender that logs its turns and its end: CHILD NAME THREADS.
SCRIPT = """
import atexit, json, os, sys
def log(word):
    with open({log!r}, "a") as file:
        file.write(word + "\\n")
name, threads = sys.argv[1:]
atexit.register(log, name + " ended")
for number, _ in enumerate(sys.stdin):
    log(name + " " + os.environ["OMP_NUM_THREADS"])
    print(json.dumps({{"images": 10 * number, "seconds": 2.0}}), flush=True)
"""


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """Contenders are scripts; returns the file in which they say what they did."""
    log = tmp_path / "log"
    code = SCRIPT.format(log=str(log))
    monkeypatch.setattr(interleave, "CHILD", (sys.executable, "-c", code))
    return log


def test_a_ratio_is_taken_within_rounds_against_the_fastest_peer():
    random = np.random.default_rng(0)
    ours, slow, fast = random.uniform(50, 150, (3, 9))
    by_hand = sorted(a / max(b, c) for a, b, c in zip(ours, slow, fast, strict=True))
    median, low, high = goals.ratio(ours, [slow, fast])
    assert (median, low, high) == pytest.approx((by_hand[4], by_hand[2], by_hand[6]))


def test_intervals_are_simulated_when_they_are_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(coverage, "EXPERIMENTS", 2)
    monkeypatch.setattr(coverage, "IMAGES", (10,))
    assert main(["bench", "intervals"]) == 0
    out = capsys.readouterr().out
    assert "| rare classes" in out and "of 2 simulated experiments each" in out
    assert out.count("| half right ") == 3 and "claim a difference" in out


def last_cells(table):
    """The cells of a Markdown table's last row."""
    return [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]


def test_the_table_says_whether_a_goal_is_met():
    rates = {"repeats together": [32.0, 30.0, 34.0], "repeats in sequence": [20.0, 20.0, 20.0]}
    *met, yes = last_cells(goals.markdown("repeats", rates))
    assert met == ["repeats together", "repeats in sequence", "1.60", "1.55 to 1.65", "1.6"]
    rates["repeats together"][0] = 31.0
    assert (yes, last_cells(goals.markdown("repeats", rates))[-2:]) == ("yes", ["1.6", "no"])


def test_the_table_gives_each_contender_its_median_and_quartiles():
    rates = {"repeats together": [10.0, 20.0, 30.0, 50.0, 40.0], "repeats in sequence": [1.0] * 5}
    speeds = goals.markdown("repeats", rates).split("\n\n")[0]
    assert last_cells(speeds.rpartition("\n")[0]) == ["repeats together", "30", "20 to 40"]


def test_every_goal_is_between_contenders_there_are():
    assert goals.BENCHES.keys() | goals.PEERS.keys() == goals.HOW.keys()
    for name in goals.HOW:
        assert set(goals.contenders(name)) <= set(contenders.CONTENDERS)


def test_contenders_take_turns_and_the_first_round_does_not_count(scripted):
    rates = interleave.rates(["one", "other"], rounds=2, threads=3)
    assert rates == {"one": [5.0, 10.0], "other": [5.0, 10.0]}
    assert scripted.read_text().splitlines()[:6] == ["one 3", "other 3"] * 3


def test_contenders_end_by_themselves_and_so_remove_what_they_made(scripted):
    interleave.rates(["one", "other"], rounds=1, threads=1)
    assert scripted.read_text().splitlines()[4:] == ["one ended", "other ended"]


def test_real_contenders_get_through_images():
    rates = interleave.rates(["sliced tensor"], rounds=1, threads=1)
    assert list(rates) == ["sliced tensor"]
    assert len(rates["sliced tensor"]) == 1 and rates["sliced tensor"][0] > 0
    assert contenders.CONTENDERS["feed"]()() == 50_000


def test_a_contender_that_dies_is_named():
    with pytest.raises(RuntimeError, match="nobody"):
        interleave.rates(["nobody"], rounds=1, threads=1)


def test_a_contender_that_died_before_its_turn_is_named(monkeypatch, tmp_path):
    over = tmp_path / "over"
    code = f"""
import json, pathlib, sys, time
over = pathlib.Path({str(over)!r})
if sys.argv[1] == "dead":
    over.touch()
    sys.exit(1)
for line in sys.stdin:
    while not over.exists():
        time.sleep(0.01)
    time.sleep(0.2)  # the other is gone by then
    print(json.dumps({{"images": 1, "seconds": 1.0}}), flush=True)
"""
    monkeypatch.setattr(interleave, "CHILD", (sys.executable, "-c", code))
    with pytest.raises(RuntimeError, match="the contender dead ended"):
        interleave.rates(["first", "dead"], rounds=1, threads=1)


@pytest.fixture
def measured(monkeypatch):
    """Nothing is measured; returns the benches that would have been."""
    asked = []

    def rates(names, rounds, threads, backend):
        asked.append((names, rounds, threads))
        assert backend == "torch" or names == goals.contenders(backend)
        return {name: [10.0 + number] * rounds for number, name in enumerate(names)}

    machine = {"processor": "abacus", "cores": 2, "device": "cpu", "versions": {"torch": "9"}}
    monkeypatch.setattr(interleave, "rates", rates)
    monkeypatch.setattr(bench, "_machine", lambda threads, backend="torch": machine)
    return asked


@pytest.mark.parametrize("names", [[], ["all"]])
def test_no_name_and_all_take_every_bench(names, measured, capsys):
    assert main(["bench", *names]) == 0
    assert measured == [(goals.contenders(name), 5, 1) for name in goals.BENCHES]
    assert capsys.readouterr().out.count("abacus, 2 cores") == len(goals.BENCHES)


def test_peers_are_measured_part_by_part(measured, capsys):
    assert main(["bench", "peers", "--only=jax,decoding"]) == 0
    assert [names for names, *_ in measured] == [goals.contenders(x) for x in ("jax", "decoding")]
    assert "## jax" in capsys.readouterr().out
    assert main(["bench", "peers"]) == 0
    assert len(measured) == 2 + len(goals.PEERS)


def test_a_peer_that_is_not_installed_is_left_out_and_named(measured, monkeypatch, capsys):
    monkeypatch.setattr(goals, "find_spec", lambda name: None if name == "higher" else object())
    assert main(["bench", "peers", "--only=maml"]) == 0
    assert not [name for name in measured[0][0] if "higher" in name]
    assert len(measured[0][0]) == 4 and "not installed: higher" in capsys.readouterr().out


def test_figures_and_goals_go_to_the_file_and_the_table(measured, tmp_path, capsys):
    out = tmp_path / "new" / "figures.json"
    command = ["bench", "repeats", "repeats", "--rounds=6", "--threads=2", f"--out={out}"]
    assert main(command) == 0
    assert measured == [(["repeats together", "repeats in sequence"], 6, 2)]
    content = json.loads(out.read_text())
    assert content["machine"]["processor"] == "abacus"
    found = content["benches"]["repeats"]
    assert found["images_a_second"]["repeats in sequence"] == [11.0] * 6
    (goal,) = found["goals"]
    assert (goal["times"], goal["goal"], goal["met"]) == (pytest.approx(10 / 11), 1.6, False)
    assert "0.91" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["trainin"], "did you mean 'training'"),
        (["loader", "--rounds=4"], "at least 5"),
        (["loader", "--rounds=many"], "--rounds is 'many'"),
        (["loader", "--threads=0"], "--threads is '0'"),
        (["loader", "--out={file}/figures.json"], "cannot be written"),
        (["intervals", "--out=figures.json"], "no figures for --out"),
        (["peers", "--only=decodin"], "did you mean 'decoding'"),
        (["loader", "--only=decoding"], "--only chooses parts of bench peers"),
        (["growth", "--only=image"], "did you mean 'images'"),
        (["growth", "--most=9"], "the least number of images is 1,000"),
        (["loader", "--most=9"], "--most is for bench growth"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    arguments, complaint, measured, tmp_path, capsys
):
    (tmp_path / "file").touch()
    arguments = [argument.format(file=tmp_path / "file") for argument in arguments]
    assert main(["bench", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not measured


def test_predict_still_asks_for_images(capsys):
    assert main(["predict", "model.keras"]) == 2
    assert "needs IMAGES" in capsys.readouterr().err


def test_a_sweep_is_told_by_run_and_in_sum(capsys):
    run = {"data": (2, 1), "network": (0.5, 0.25), "features": (0, 0), "training": (8, 4)}
    run |= {"evaluation": (1, 0.5), "saving": (0.5, 0.5), "rest": (0.25, 0.125)}
    one = {
        "command": {"runs": (20, 12.5)},
        "runs": {"4-a-0": run, "4-a-1": run},
        "second call": (0.75, 0.5),
    }
    lines = [line.split() for line in sweep.markdown(one).replace("|", " ").splitlines()]
    assert ["runs", "20.00", "12.50"] in lines and ["second", "call", "0.75", "0.50"] in lines
    by_run = "4-a-1 1.00 (2.00) 0.25 (0.50) 0.00 (0.00) 4.00 (8.00) 0.50 (1.00) 0.50 (0.50)"
    assert f"{by_run} 0.12 (0.25) 0.38 (0.75) 6.38 (12.25)".split() in lines
    in_sum = next(line for line in lines if line[:1] == ["sum"])
    assert in_sum[-4:] == ["0.75", "(1.50)", "12.75", "(24.50)"]
    assert "Overhead of a run, processor seconds: median 0.38" in sweep.markdown(one)
