"""Flipped bits, hostile inputs, crashes and kills, in numbers that no test suite has time for.

    python tests/robustness.py [--kinds=flips,inputs,crashes,kills,warm,teach] [--seed=0]

Every call runs in a process forked from this one, in folders of its own, on torch, and is held to
60 seconds and 1.5 GB. Afterwards: nothing lost, nothing run that an input brought along, no
traceback, nothing left behind. FILE.md (artifacts/published/robustness.md) gets the figures, and
each fault found by name; the exit code is 1 where there is one.

    flips     300 single bits of each kind of file on disk
    inputs    500 hostile inputs over all commands
    crashes   200 points: the process ends before or after the n-th rename, removal or sync
    kills     60 kills of a recipe's command at random moments, its next command after each
    warm      30 kills of its command, of the process that forks its runs, and of a run, in turn
    teach     20 kills of `teach` with its children; at last the bits of one that was left alone
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"
os.environ["KERAS_BACKEND"] = "torch"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import robustness_inputs  # noqa: E402
from PIL import Image  # noqa: E402

from keras_cnn import data, environment, models, pretrained, recipe, report  # noqa: E402
from keras_cnn.__main__ import COMMANDS, main  # noqa: E402
from keras_cnn.errors import UserError  # noqa: E402
from keras_cnn.models import freeze, saved  # noqa: E402
from keras_cnn.prediction import predict  # noqa: E402
from keras_cnn.pretrained import keras_files  # noqa: E402
from keras_cnn.recipe import resolve  # noqa: E402
from keras_cnn.results import identity, store  # noqa: E402
from keras_cnn.runs import publish, study, worker  # noqa: E402
from keras_cnn.training import checkpoint, frozen  # noqa: E402

MOST_SECONDS, MOST_MEGABYTES = 60, 1500
FLIPS, INPUTS, CRASHES, KILLS, WARM_KILLS, TEACH_KILLS = 300, 500, 200, 60, 30, 20
SETTINGS = {"data": "synthetic:30", "image_size": 16, "hidden_units": 4, "epochs": 1}
ENDED = 137  # the exit code of a process that a crash point ended


@dataclass
class Outcome:
    """How a call in a process of its own ended."""

    code: int | str  # or `hang`
    text: str
    seconds: float
    megabytes: float


@dataclass
class Tally:
    """What came of one kind: by outcome how often, and each fault in a line."""

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: float = 0.0

    def add(self, what: str, outcome: Outcome, case: str) -> None:
        """Counts an outcome, which is a fault too where it is slow, large or a traceback."""
        self.counts[what] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.largest = max(self.largest, outcome.megabytes)
        if outcome.code == "hang":
            self.faults.append(f"over {MOST_SECONDS} s: {case}")
        elif "Traceback (most recent call last)" in outcome.text:
            self.faults.append(f"traceback: {case}: {outcome.text.strip().splitlines()[-1]}")
        if outcome.megabytes > MOST_MEGABYTES:
            self.faults.append(f"{outcome.megabytes:,.0f} MB: {case}")


def isolated(action: Callable[[], int | None], seconds: float = MOST_SECONDS) -> Outcome:
    """Does something in a forked process, which is ended with all it started."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _act(action, output.fileno())
        code: int | str | None = None
        while code is None:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() - began > seconds:
                os.killpg(child, signal.SIGKILL)
                _, _, usage = os.wait4(child, 0)
                code = "hang"
            else:
                time.sleep(0.005)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Outcome(code, text, time.monotonic() - began, usage.ru_maxrss / 1e3)


def _act(action: Callable[[], int | None], output: int) -> None:
    """In the forked process: acts, prints to the output and ends."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 70
    try:
        code = action() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def a_run(name: str = "overfitting", **settings: object):
    """One small run of a recipe."""
    given = SETTINGS | settings
    return resolve.runs(recipe.read(name), "mini", repeats=1, overrides=given)[-1]


def make(run, out: Path, fresh: bool = False) -> Path:
    """Makes a run's result in this process."""
    folder = identity.run_folder(run, out)
    worker.make(run, folder, lambda record: None, fresh)
    return folder


# --- flipped bits ------------------------------------------------------------------------------


@dataclass
class Kept:
    """A kind of file on disk: the files, and what reading them gives.

    Attributes:
        make: Makes them in a folder, in a process of its own.
        files: Finds them.
        read: Gives `same`, `told` or `other values` for the content as it is now.
        may_be_other: Whether nothing can tell other values: the file is the user's own.
    """

    make: Callable[[Path], None]
    files: Callable[[Path], list[Path]]
    read: Callable[[Path], str]
    may_be_other: bool = False


def _same(one: np.ndarray, other: np.ndarray) -> str:
    return "same" if np.array_equal(one, other) else "other values"


def pictures(folder: Path) -> np.ndarray:
    """Images of three classes, and a folder with them as PNG files, where it is not there."""
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3)).astype("uint8")
    for number, image in enumerate(images):
        path = folder / ("train", "test")[number // 18] / f"class{number % 3}" / f"{number}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return images


def make_decoded(folder: Path) -> None:
    """Decodes a folder of images."""
    pictures(folder / "images")
    loaded = data.load(str(folder / "images"), 32).splits
    np.save(folder / "expected.npy", np.concatenate([loaded[n].images for n in ("train", "test")]))


def read_decoded(folder: Path) -> str:
    """Loads it again."""
    loaded = data.load(str(folder / "images"), 32).splits
    found = np.concatenate([loaded[name].images for name in ("train", "test")])
    return _same(found, np.load(folder / "expected.npy"))


def network(seed: int = 1) -> keras.Model:
    """A small network of which a part is frozen."""
    return models.classifier("enhanced", 3, 32, hidden_units=4, seed=seed, unfrozen_stages=1)


def features(folder: Path) -> np.ndarray:
    """The features of its frozen part."""
    part, _ = freeze.constant_part(network())
    return frozen.features_of(part, pictures(folder / "images"))


def make_checkpoint(folder: Path) -> None:
    """Pretrains for an epoch."""
    from keras_cnn.methods import pretrain

    images, labels = pictures(folder / "images"), np.arange(24) % 3
    both = (images, labels)
    pretrain.train(network(), both, both, epochs=1, checkpoint=folder / "state.h5")


def read_checkpoint(folder: Path) -> str:
    """Goes on from it."""
    epochs = checkpoint.Checkpoint(folder / "state.h5").planned_epochs()
    return "told" if epochs is None else "same" if epochs == 1 else "other values"


def read_result(folder: Path) -> str:
    """Reads a run's result."""
    (place,) = folder.glob("out/*/1-*")
    found = store.read(place)
    text = repr([found.history, found.metrics, found.confusion, found.class_names, found.spec])
    expected = folder / "expected.txt"
    if not expected.exists():
        expected.write_text(text)
    return "same" if expected.read_text() == text else "other values"


def make_result(folder: Path) -> None:
    """Makes one."""
    make(a_run(), folder / "out")
    read_result(folder)


def make_model(folder: Path) -> None:
    """Saves a model with its card."""
    pictures(folder / "images")
    card = {"class_names": ["a", "b", "c"], "image_size": 32}
    saved.save(saved.classifier(network()), folder / "model.keras", card)
    np.save(folder / "expected.npy", predicted(folder))


def predicted(folder: Path) -> np.ndarray:
    """What the saved model says of an image."""
    image = folder / "images" / "train" / "class0" / "0.png"
    return predict(folder / "model.keras", [image]).probabilities


def make_weights(folder: Path) -> None:
    """Saves a backbone's weights."""
    models.backbone("enhanced", 32, hidden_units=4).save_weights(folder / "own.weights.h5")


def make_backbone(folder: Path) -> None:
    """Has them written by the command."""
    make_model(folder)
    keras_files.write_backbone(folder / "model.keras", folder / "own.weights.h5")


def read_weights(folder: Path, stored: type = np.float32) -> str:
    """Loads them into a network."""
    graph = models.backbone("enhanced", 32, hidden_units=4)
    expected = [weight.astype(stored).astype(np.float32) for weight in graph.get_weights()]
    pretrained.load(graph, str(folder / "own.weights.h5"))
    same = all(map(np.array_equal, graph.get_weights(), expected))
    return "same" if same else "other values"


def _named(pattern: str) -> Callable[[Path], list[Path]]:
    return lambda folder: sorted(path for path in folder.glob(pattern) if path.is_file())


FILES = {
    "decoded images": Kept(make_decoded, _named("home/decoded/*"), read_decoded),
    "kept features": Kept(
        lambda folder: np.save(folder / "expected.npy", features(folder)),
        _named("home/features/*"),
        lambda folder: _same(features(folder), np.load(folder / "expected.npy")),
    ),
    "checkpoint": Kept(make_checkpoint, _named("state.h5"), read_checkpoint),
    "result (JSON, CSV)": Kept(make_result, _named("out/*/1-*/*.[jc]s*"), read_result),
    "saved model (.keras)": Kept(
        make_model,
        _named("model.keras"),
        lambda folder: _same(predicted(folder), np.load(folder / "expected.npy")),
    ),
    "backbone's weights (.weights.h5)": Kept(
        make_backbone, _named("own.weights.h5"), lambda folder: read_weights(folder, np.float16)
    ),
    "own weights (.weights.h5)": Kept(make_weights, _named("own.weights.h5"), read_weights, True),
}


def flips(rng: random.Random, folder: Path, count: int) -> dict[str, Tally]:
    """Flips bits of each kind of file, one at a time, and reads what is left."""
    tallies = {}
    for name, kept in FILES.items():
        place = folder / name.split()[0]
        place.mkdir()
        os.environ["KERAS_CNN_HOME"] = str(place / "home")
        made = isolated(lambda kept=kept, place=place: kept.make(place))
        if made.code:
            raise RuntimeError(made.text)
        tallies[name] = tally = Tally()
        paths = kept.files(place)
        whole = {path: path.read_bytes() for path in paths}
        sizes = [len(content) for content in whole.values()]
        for _ in range(count):
            (path,) = rng.choices(paths, sizes)
            bit = rng.randrange(8 * len(whole[path]))
            damaged = bytearray(whole[path])
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            outcome = isolated(lambda kept=kept, place=place: _read(kept, place))
            what = outcome.text.strip().splitlines()[-1] if outcome.code == 0 else "error"
            case = f"{name}, bit {bit} of {path.name}"
            tally.add(what, outcome, case)
            if what == "other values" and not kept.may_be_other:
                tally.faults.append(f"other values in silence: {case}")
            for one, content in whole.items():
                one.write_bytes(content)
        print(f"{name}: {dict(tally.counts)}, {len(tally.faults)} faults", flush=True)
    return tallies


def _read(kept: Kept, place: Path) -> None:
    try:
        print(f"\n{kept.read(place)}")
    except UserError as error:
        print(f"{error}\ntold")


# --- hostile inputs ----------------------------------------------------------------------------


def inputs(rng: random.Random, folder: Path, count: int) -> dict[str, Tally]:
    """Gives commands what no one should."""
    os.environ |= {"KERAS_CNN_HOME": str(folder / "home"), "HOME": str(folder / "empty")}
    canary, current = folder / "ran", folder / "current"
    current.mkdir()
    make_model(folder)
    cases = robustness_inputs.cases(folder, canary)
    by_command: dict[str, list[list[str]]] = {}
    for case in cases:
        by_command.setdefault(case[0] if case else "", []).append(case)
    for some in by_command.values():
        rng.shuffle(some)
    chosen = [case for turn in _turns(list(by_command.values())) for case in turn][:count]
    tallies: dict[str, Tally] = {}
    for case in chosen:
        known = case[:1] and case[0] in COMMANDS
        tally = tallies.setdefault(case[0] if known else "no command", Tally())
        before = set(tempfile_names())
        outcome = isolated(lambda case=case: _command(current, case))
        shown = f"`keras_cnn {' '.join(case)}`".encode("unicode_escape").decode()[:200]
        lines = [line for line in outcome.text.splitlines() if line.startswith("keras_cnn: ")]
        tally.add(f"exit code {outcome.code}", outcome, shown)
        if outcome.code not in (0, 1, 2, "hang"):
            tally.faults.append(f"exit code {outcome.code}: {shown}")
        if outcome.code == 2 and len(lines) != 1 and "cannot run yet:" not in outcome.text:
            tally.faults.append(f"{len(lines)} lines: {shown}")
        if "\x1b" in outcome.text or "\x00" in outcome.text:
            tally.faults.append(f"control characters: {shown}")
        if canary.exists():
            canary.unlink()
            tally.faults.append(f"RAN code: {shown}")
        left = [name for name in tempfile_names() if name not in before]
        left += [str(path) for path in current.rglob("*") if ".partial" in path.name]
        if left:
            tally.faults.append(f"left {left[0]}: {shown}")
        shutil.rmtree(current)
        current.mkdir()
    for name, tally in tallies.items():
        print(f"{name}: {dict(tally.counts)}, {len(tally.faults)} faults", flush=True)
    return tallies


def _turns(groups: list[list]) -> Iterator[list]:
    """The first of each group, then the second of each, until all are empty."""
    for number in range(max(map(len, groups))):
        yield [group[number] for group in groups if number < len(group)]


def _command(current: Path, arguments: list[str]) -> int:
    os.chdir(current)
    return main(arguments)


def tempfile_names() -> list[str]:
    """What lies in the folder for temporary files."""
    return os.listdir(tempfile.gettempdir())


# --- crashes -----------------------------------------------------------------------------------

POINTS = ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir")


def crashing(action: Callable[[], object], number: int, after: bool, counted: Path) -> None:
    """Acts, and ends the process at the n-th point; tells how many points there were."""
    seen = 0

    def watched(original: Callable) -> Callable:
        def call(*arguments, **options):
            nonlocal seen
            seen += 1
            if seen == number and not after:
                os._exit(ENDED)
            given = original(*arguments, **options)
            if seen == number:
                os._exit(ENDED)
            return given

        return call

    for name in POINTS:
        setattr(os, name, watched(getattr(os, name)))
    action()
    counted.write_text(str(seen))


def _table(out: Path) -> None:
    plan = study.plan("overfitting", "mini", repeats=1, overrides=SETTINGS, out=out)
    publish.publish(study.execute(study.prepare(plan)))


def _decoded(out: Path) -> None:
    pictures(out.parent / "images")
    data.load(str(out.parent / "images"), 32)


PRETRAINING = {"crop_from": 24, "epochs": 2, "batch_size": 10, "model": "enhanced"}
PRETRAINING |= {"stochastic_depth": 0.0}


# By name: what was done before, what is done, and what has to be there whatever happens.
SCENARIOS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "a result": (lambda out: None, lambda out: make(a_run(), out)),
    "a result made again": (lambda out: make(a_run(), out), lambda out: make(a_run(), out, True)),
    "pretraining": (lambda out: None, lambda out: make(a_run("pretrain", **PRETRAINING), out)),
    "decoding": (lambda out: None, _decoded),
    "table and pictures": (lambda out: [make(run, out) for run in _both()], _table),
    "report": (
        lambda out: ([make(run, out) for run in _both()], _table(out)),
        lambda out: report.report(out, out),
    ),
}


def _both() -> list:
    return resolve.runs(recipe.read("overfitting"), "mini", repeats=1, overrides=SETTINGS)


def crashes(rng: random.Random, folder: Path, count: int) -> dict[str, Tally]:
    """Ends processes at each of their renames, removals and syncs, and does the same again."""
    points = []
    for name in SCENARIOS:
        place, number = _prepared(folder, name), folder / "count"
        _, action = SCENARIOS[name]
        whole = isolated(lambda a=action, p=place, n=number: crashing(lambda: a(p), 0, False, n))
        if whole.code:
            raise RuntimeError(f"{name}: {whole.text}")
        seen = range(1, int(number.read_text()) + 1)
        points += [(name, number, after) for number in seen for after in (False, True)]
    tallies = {name: Tally() for name in SCENARIOS}
    rng.shuffle(points)
    ended = 0
    for name, number, after in points:
        if ended == count:
            break
        tally, place = tallies[name], _prepared(folder, name)
        _, action = SCENARIOS[name]
        before = _results(place)
        case = f"{name}, {'after' if after else 'before'} point {number}"
        crashed = isolated(
            lambda a=action, p=place, n=number, f=after: crashing(lambda: a(p), n, f, p / "count")
        )
        ended += crashed.code == ENDED
        tally.add("ended there" if crashed.code == ENDED else "not reached", crashed, case)
        again = isolated(lambda a=action, p=place: a(p) and None)
        tally.add("went on", again, f"{case}, then again")
        if again.code:
            tally.faults.append(f"not gone on with: {case}: {again.text.strip()[-200:]}")
        if not before <= _results(place):
            tally.faults.append(f"LOST a result: {case}")
        tally.faults += [f"left {left}: {case}" for left in leftovers(place.parent)]
    for name, tally in tallies.items():
        print(f"{name}: {dict(tally.counts)}, {len(tally.faults)} faults", flush=True)
    print(f"{ended} of {len(points)} points", flush=True)
    return {name: tally for name, tally in tallies.items() if tally.counts}


def _prepared(folder: Path, name: str) -> Path:
    """A new copy of what a scenario starts from; its home is the process's."""
    start, place = folder / f"start {name}", folder / "place"
    if not start.exists():
        os.environ["KERAS_CNN_HOME"] = str(start / "home")
        (start / "out").mkdir(parents=True)
        before, _ = SCENARIOS[name]
        made = isolated(lambda: before(start / "out") and None)
        if made.code:
            raise RuntimeError(f"{name}: {made.text}")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(start, place)
    os.environ["KERAS_CNN_HOME"] = str(place / "home")
    return place / "out"


def _results(out: Path) -> set[str]:
    """The results that can be read, by name."""
    found = set()
    for path in out.glob("*/[0-9a-z]*-*-*-*"):
        try:
            store.read(path)
            found.add(path.name)
        except UserError:
            continue
    return found


def leftovers(place: Path) -> list[str]:
    """Half written files and folders, but for locks."""
    hidden = [path for path in place.rglob(".*") if path.name not in (".locks", ".figures.json")]
    hidden = [path for path in hidden if not path.name.endswith(".lock")]
    return [str(path.relative_to(place)) for path in hidden if ".locks" not in path.parts]


# --- kills -------------------------------------------------------------------------------------


def kills(rng: random.Random, folder: Path, count: int) -> dict[str, Tally]:
    """Kills the command of a recipe, with and without its children, and gives it again."""
    tally, home = Tally(), folder / "home"
    temporary = folder / "temporary"
    temporary.mkdir()
    variables = os.environ | {"KERAS_CNN_HOME": str(home), "TMPDIR": str(temporary)}
    turn, out, finished = 0, folder / "out0", set()
    command = _recipe(SETTINGS)
    seconds = 20.0  # what the whole takes, at first a guess
    while tally.counts["killed"] < count:
        began = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*command, f"--out={out}"], env=variables, stdout=output, stderr=output
            )
            try:
                process.wait(rng.uniform(0.2, seconds))
                ended = f"exit code {process.returncode}"
                seconds = time.monotonic() - began
            except subprocess.TimeoutExpired:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                process.wait()
                ended = "killed"
            output.seek(0)
            text = output.read().decode(errors="replace")
        case = f"kill {tally.counts['killed']} after {time.monotonic() - began:.1f} s"
        tally.add(ended, Outcome(process.returncode, text, 0, 0), case)
        tally.faults += [f"a process is there 20 s later: {case}" for _ in _alive(home)]
        if not finished <= (finished := _results(out)):
            tally.faults.append(f"LOST a result: {case}")
        if ended == "exit code 0":
            left = [*leftovers(out), *leftovers(home), *os.listdir(temporary)]
            tally.faults += [f"left {name}: {case}" for name in left]
            turn, finished = turn + 1, set()
            out = folder / f"out{turn}"
            shutil.rmtree(home, ignore_errors=True)
    print(f"kills: {dict(tally.counts)}, {turn} recipes finished, {len(tally.faults)} faults")
    return {"recipe": tally}


def _recipe(settings: dict[str, object]) -> list[str]:
    """The command of a recipe of four runs."""
    command = [sys.executable, "-m", "keras_cnn", "recipe", "overfitting", "--profile=mini"]
    return [*command, "--repeats=2", *(f"--set={name}={value}" for name, value in settings.items())]


def warm_kills(rng: random.Random, folder: Path, count: int) -> dict[str, Tally]:
    """Kills one process of a sweep whose runs are forked, and gives the command again."""
    codes = {"command": (-signal.SIGKILL,), "server": (0,), "run": (1,)}
    tallies, home = {name: Tally() for name in codes}, folder / "home"
    temporary = folder / "temporary"
    temporary.mkdir()
    variables = os.environ | {"KERAS_CNN_HOME": str(home), "TMPDIR": str(temporary)}
    command = _recipe(SETTINGS | {"epochs": 20})

    def begun(out: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, f"--out={out}"],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    undisturbed = begun(folder / "undisturbed")
    undisturbed.communicate(timeout=5 * MOST_SECONDS)
    expected = bits(folder / "undisturbed")
    for number in range(count):
        what, out, began = [*codes][number % len(codes)], folder / f"out{number}", time.monotonic()
        tally, process = tallies[what], begun(out)
        _forked(process, runs=True)
        time.sleep(rng.uniform(0, 2))
        if forked := _forked(process, what == "run"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid if what == "command" else rng.choice(forked), signal.SIGKILL)
        _, text = process.communicate(timeout=5 * MOST_SECONDS)
        case = f"{what} killed after {time.monotonic() - began:.1f} s, {number}"
        tally.add(f"exit code {process.returncode}", Outcome(process.returncode, text, 0, 0), case)
        tally.faults += [f"a process is there 20 s later: {case}" for _ in _alive(home)]
        if process.returncode not in (*codes[what], 0):
            tally.faults.append(f"exit code {process.returncode}: {case}")
        finished, again = _results(out), begun(out)
        again.communicate(timeout=5 * MOST_SECONDS)
        if again.returncode:
            tally.faults.append(f"not gone on with: {case}")
        if not finished <= _results(out):
            tally.faults.append(f"LOST a result: {case}")
        if bits(out) != expected:
            tally.faults.append(f"other bits: {case}")
        left = [*leftovers(out), *leftovers(home), *os.listdir(temporary)]
        tally.faults += [f"left {name}: {case}" for name in left]
        print(f"{case}: exit code {process.returncode}, {len(finished)} finished", flush=True)
    return tallies


def teach_kills(rng: random.Random, folder: Path, count: int) -> dict[str, Tally]:
    """Kills `teach` with its children, again and again, until it ends: with the same bits."""
    tally, temporary, home = Tally(), folder / "temporary", folder / "home"
    temporary.mkdir()
    os.environ["KERAS_CNN_HOME"] = str(home)
    split = data.load("clothing").splits["train"]
    for label in (1, 4, 6):
        for number, place in enumerate(np.flatnonzero(split.labels == label)[:10]):
            path = folder / "photos" / split.class_names[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.images[place]).save(path)
    command = [sys.executable, "-m", "keras_cnn", "teach", str(folder / "photos")]
    command += ["--backbone=efficientnet_lite0"]

    def given(home: Path, out: Path, seconds: float | None) -> tuple[int, str, float]:
        """Its exit code, what it says, and its processor time; killed after so much of it."""
        process = subprocess.Popen(
            [*command, f"--out={out}"],
            env=os.environ | {"KERAS_CNN_HOME": str(home), "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        used = 0.0
        while process.poll() is None:  # what it says at its end is less than a pipe holds
            with contextlib.suppress(OSError):
                times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                used = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
            if seconds is not None and used >= seconds:
                os.killpg(process.pid, signal.SIGKILL)
                seconds = None
            time.sleep(0.02)
        said, _ = process.communicate()
        return process.returncode, said.replace(str(out), "OUT"), used

    def left(out: Path) -> dict[str, str]:
        """By name, what the candidates' runs and the model's weights are."""
        found = {
            path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in out.glob("candidates/*/predictions.npz")
        }
        digest = hashlib.sha256()
        for weight in saved.load(out / "model.keras")[0].get_weights():
            digest.update(np.ascontiguousarray(weight))
        return found | {"model": digest.hexdigest()}

    code, expected, seconds = given(home, folder / "undisturbed", None)
    if code:
        raise RuntimeError(f"exit code {code}")
    expected_bits = left(folder / "undisturbed")
    turn, is_finished = 0, True
    while tally.counts["killed"] < count or not is_finished:
        if is_finished:
            turn, out = turn + 1, folder / f"out{turn + 1}"
            shutil.rmtree(home)
        is_last = tally.counts["killed"] >= count
        code, said, took = given(home, out, None if is_last else rng.uniform(0.2, seconds))
        is_finished = code != -signal.SIGKILL
        case = f"turn {turn}, kill {tally.counts['killed']}, after {took:.1f} s of processor time"
        tally.add(f"exit code {code}" if is_finished else "killed", Outcome(code, "", 0, 0), case)
        tally.faults += [f"a process is there 20 s later: {case}" for _ in _alive(home)]
        print(f"{case}: exit code {code}", flush=True)
        if is_finished:
            if code or said != expected:
                tally.faults.append(f"exit code {code}, or another table: {case}")
            elif left(out) != expected_bits:
                tally.faults.append(f"other bits: {case}")
            names = [*leftovers(out), *leftovers(home), *os.listdir(temporary)]
            tally.faults += [f"left {name}: {case}" for name in names]
    print(f"teach: {dict(tally.counts)}, {len(tally.faults)} faults", flush=True)
    return {"teach": tally}


def _forked(command: subprocess.Popen, runs: bool) -> list[int]:
    """The process that forks a command's runs, or the runs, once there is one; none at its end."""
    while command.poll() is None:
        servers = [
            number
            for number in _children(command.pid)
            if _has(Path(f"/proc/{number}/cmdline"), b"keras_cnn.runs.fork_server")
        ]
        found = [run for server in servers for run in _children(server)] if runs else servers
        if found:
            return found
        time.sleep(0.01)
    return []


def _children(parent: int) -> list[int]:
    """The processes that one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def bits(out: Path) -> dict[str, str]:
    """By name, a hash of each result's history, but for its seconds, and of its model's weights."""
    found = {}
    for folder in out.glob("*/[0-9a-z]*-*-*-*"):
        digest, history = hashlib.sha256(), store.read(folder).history
        digest.update(repr([[*record.values()][:-1] for record in history]).encode())
        for weight in saved.load(folder / "model.keras")[0].get_weights():
            digest.update(np.ascontiguousarray(weight))
        found[folder.name] = digest.hexdigest()
    return found


def _alive(home: Path, patience: float = 20) -> list[int]:
    """Processes that have this home in their environment, after they were given time to end."""
    end = time.monotonic() + patience
    while found := [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if _has(path, os.fsencode(f"KERAS_CNN_HOME={home}"))
    ]:
        if time.monotonic() > end:
            return found
        time.sleep(0.1)
    return []


def _has(path: Path, words: bytes) -> bool:
    try:
        return words in path.read_bytes()
    except OSError:
        return False


# --- report ------------------------------------------------------------------------------------

KINDS = {
    "flips": (flips, FLIPS, "Single bits flipped, of each kind of file"),
    "inputs": (inputs, INPUTS, "Hostile inputs, over all commands"),
    "crashes": (crashes, CRASHES, "Crash points, and the same done again"),
    "kills": (kills, KILLS, "Kills at random moments"),
    "warm": (warm_kills, WARM_KILLS, "Kills of a command, its server of forks, and its runs"),
    "teach": (
        teach_kills,
        TEACH_KILLS,
        "Kills of `teach`, given again to its end",
    ),
}


def written(done: dict[str, dict], command: str) -> str:
    """The page."""
    described = environment.describe()
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    lines = [
        "# What flipped bits, hostile inputs, crashes and kills do",
        "",
        f"`{command}`, {described['processor']}, one core; Python {platform.python_version()}, "
        f"{versions}.",
        "",
        f"Each call is held to {MOST_SECONDS} s and {MOST_MEGABYTES:,} MB. `same`: the values that "
        "were written; `told`: one line says that the file is damaged. Other values in weights of "
        "another program cannot be told: there is nothing to hold them against.",
    ]
    for kind, tallies in done.items():
        total = sum(sum(tally["counts"].values()) for tally in tallies.values())
        lines += ["", f"## {KINDS[kind][2]} ({total} outcomes)", ""]
        lines += [
            "| of | outcomes | slowest, s | most memory, MB | faults |",
            "|---|---|---|---|---|",
        ]
        for name, tally in tallies.items():
            counts = ", ".join(f"{what} {n}" for what, n in sorted(tally["counts"].items()))
            seconds = f"{tally['slowest']:.1f}" if tally["slowest"] else "-"
            memory = f"{tally['largest']:,.0f}" if tally["largest"] else "-"
            lines.append(f"| {name} | {counts} | {seconds} | {memory} | {len(tally['faults'])} |")
        lines += ["", *(f"- {fault}" for t in tallies.values() for fault in t["faults"])]
    return "\n".join(lines).rstrip() + "\n"


def run(arguments: argparse.Namespace) -> int:
    """Runs the kinds that were asked for, and writes the page after each."""
    done: dict[str, dict] = {}
    for kind in arguments.kinds.split(","):
        action, count, _ = KINDS[kind]
        count = max(1, round(count * arguments.share))
        with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
            tempfile.tempdir = str(Path(folder, "temporary"))
            Path(tempfile.tempdir).mkdir()
            work = Path(folder, "work")
            work.mkdir()
            tallies = action(random.Random(arguments.seed), work, count)
            tempfile.tempdir = None
        done[kind] = {name: vars(tally) for name, tally in tallies.items()}
        state = arguments.out.with_suffix(".json")
        if state.exists() and arguments.add:
            done = json.loads(state.read_text()) | done
        if arguments.add:
            state.write_text(json.dumps(done))
        command = f"python tests/robustness.py --kinds={','.join(done)} --seed={arguments.seed}"
        arguments.out.write_text(written(done, command), encoding="utf-8")
    return int(any(tally["faults"] for tallies in done.values() for tally in tallies.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1, help="of the counts, for a trial")
    parser.add_argument("--add", action="store_true", help="keep the other kinds' last figures")
    parser.add_argument("--out", type=Path, default=Path("artifacts/published/robustness.md"))
    sys.exit(run(parser.parse_args()))
