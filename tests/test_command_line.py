"""The command line as users meet it: whole commands in processes of their own.

Mistakes are looked at in this process, by `main`, since they must be found before any work.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from method_runs import finished as finished_run
from method_runs import write
from PIL import Image

from keras_cnn import environment, home, models, prediction, recipe
from keras_cnn.__main__ import COMMANDS, main
from keras_cnn.errors import UserError
from keras_cnn.models import saved
from keras_cnn.pretrained import named
from keras_cnn.recipe import resolve
from keras_cnn.recipe.spec import KNOWN_METHODS
from keras_cnn.results import store
from keras_cnn.runs import engine, estimate, preflight, study, worker
from keras_cnn.runs.jobs import Event

# Two runs (one a variant) of the smallest size: what takes time is their start.
SMALL = shlex.split(
    "recipe fewshot_convnext --profile=mini --rows=4 --data=synthetic:20 "
    "--set shots 2 --set=test_shots=2 --set epochs=1 --backend=torch"
)
TINY = [*SMALL, "--repeats=1"]
MEASURED = (
    "seconds",
    "seconds_an_epoch",
    "images_a_second",
    "processor_use",
    "peak_memory_megabytes",
)
SECONDS = 120  # a command that takes longer hangs


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder to work in, with a home beside it that only this file's commands use."""
    folder = tmp_path_factory.mktemp("work")
    variables = {**os.environ, "KERAS_CNN_HOME": str(folder / "home"), "COLUMNS": "100"}
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return folder, variables


def begun(workplace, arguments):
    folder, variables = workplace
    return subprocess.Popen(
        [sys.executable, "-m", "keras_cnn", *map(str, arguments)],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives it
        # A shell's background job ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(workplace, *arguments):
    """Exit code, standard output and standard error of a command."""
    process = begun(workplace, arguments)
    try:
        out, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert "Traceback" not in errors, errors
    return process.returncode, out, errors


@dataclass
class Finished:
    """A tiny recipe that ran undisturbed."""

    folder: Path
    stdout: str
    stderr: str
    seconds: float

    @property
    def table(self):
        return (self.folder / "table.md").read_text()

    @property
    def runs(self):
        return sorted(path.parent for path in self.folder.glob("*/run.json"))


@pytest.fixture(scope="module")
def finished(workplace):
    start = time.monotonic()
    code, out, errors = ended(workplace, *TINY, "--out=undisturbed", "--jobs=2")
    assert code == 0, errors
    folder = workplace[0] / "undisturbed" / "fewshot_convnext"
    return Finished(folder, out, errors, time.monotonic() - start)


@pytest.fixture
def here(workplace, monkeypatch, capsys):
    """As `ended`, by `main` in this process."""
    folder, variables = workplace
    monkeypatch.chdir(folder)
    for name in ("KERAS_CNN_HOME", "COLUMNS", "KERAS_BACKEND"):
        monkeypatch.setenv(name, variables[name])

    def said(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exited:
            code = exited.code
        return code, *capsys.readouterr()

    return said


@pytest.fixture
def mistake(tmp_path, monkeypatch, capsys):
    """What `main` says to a mistake: one line, code 2, nothing made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")

    def said(*arguments):
        before = sorted(tmp_path.iterdir())
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert captured.out == "" and len(lines) == 1 and lines[0].startswith("keras_cnn: ")
        assert sorted(tmp_path.iterdir()) == before, "something was made"
        return lines[0]

    return said


# Mistakes


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("recipee x", "'recipe'"),
        ("settings -", "takes no '-'"),
        ("settings ..", "no method '..'"),
        ("settings .os.path", "no method '.os.path'"),
        ("summary ..", "no model '..'"),
        ("recipe fewshot_convnxt", "'fewshot_convnext'"),
        ("recipe fewshot_convnext --row=4", "'--rows'"),
        ("recipe fewshot_convnext --dryrun", "'--dry-run'"),
        ("recipe fewshot_convnext --rows=4,9", "no row '9'"),
        ("recipe fewshot_convnext --variant=corect", "'corrected'"),
        ("recipe fewshot_convnext --profile=dekc", "'deck'"),
        ("recipe fewshot_convnext --backend=tensorflw", "'tensorflow'"),
        ("recipe fewshot_convnext --set epoch 3", "'epochs'"),
        ("recipe fewshot_convnext --set epoch=3", "'epochs'"),
        ("recipe fewshot_convnext --set epochs=1.5", "1.5"),
        ("recipe fewshot_convnext --set epochs", "--set epochs VALUE"),
        ("recipe fewshot_convnext --set model=convnext_ato", "'convnext_atto'"),
        ("recipe fewshot_convnext --repeats=none", "whole number"),
        ("recipe fewshot_convnext --jobs=0", "whole number"),
        ("recipe fewshot_convnext --fresh=perhaps", "switch"),
        ("recipe fewshot_convnext --out", "needs a value"),
        ("recipe fewshot_convnext --set method=[supervised]", "did you mean 'supervised'"),
        ("recipe fewshot_convnext --set model=[baseline]", "model is ['baseline']"),
        ("data digits --image-size=", "--image-size needs a value"),
        ("summary baseline --classes=", "--classes needs a value"),
        ("bench training --rounds=", "--rounds needs a value"),
        ("recipe fewshot_convnext --out --fresh", "needs a value"),
        ("recipe fewshot_convnext --data=", "--data needs a value"),
        ("recipe fewshot_convnext --rows=", "--rows needs a value"),
        ("recipe fewshot_convnext --weights=", "--weights needs a value"),
        ("recipe fewshot_convnext --backend=", "--backend needs a value"),
        ("recipe fewshot_convnext --out=", "--out needs a value"),
        ("recipe fewshot_convnext --fresh=", "--fresh needs a value"),
        ("recipe fewshot_convnext --set epochs=", "--set epochs= needs a value"),
        ("recipe fewshot_convnext --set epochs ''", "--set epochs= needs a value"),
        ("recipe ''", "empty name"),
        ("predict none.keras ''", "empty name"),
        ("recipe fewshot_convnext --set epochs 3 --set epochs=4", "--set epochs is given twice"),
        ("recipe fewshot_convnext --set batch-size 3 --set batch_size=4", "given twice"),
        ("recipe fewshot_convnext --epochs=3 --set epochs=4", "are one setting"),
        ("recipe fewshot_convnext --data=digits --set data=digits", "are one setting"),
        ("recipe fewshot_convnext --repeats=99999999999999999999", "--repeats is '9999"),
        ("recipe fewshot_convnext --repeats=" + "9" * 5000, "--repeats is '9999"),
        ("recipe fewshot_convnext --repeats=100000000", "1 to 10,000"),
        ("recipe fewshot_convnext --jobs=99999999999999999999", "--jobs is '9999"),
        ("recipe fewshot_convnext --image-size=100000", "1 to 1024"),
        ("recipe fewshot_convnext --set image_size=100000", "image_size is 100000"),
        ("recipe fewshot_convnext --set hidden_units=100000", "hidden_units is 100000"),
        ("recipe data_loader --profile=mini --set workers=100000", "workers is 100000"),
        ("data digits --image-size=100000", "1 to 1024"),
        ("summary baseline --classes=999999999", "1 to 100000"),
        ("recipe fewshot_convnext --set epochs=" + "9" * 5000, "cannot be read"),
        ("recipe fewshot_convnext --set epochs=[[[[[[[[[[[[[[[[[[[[[[[[[", "nested"),
        ("recipe fewshot_convnext --set data='&a [*a]'", "what it refers to"),
        ("recipe fewshot_convnext --out=~nobody-of-this-name/x", "no such user"),
        ("recipe fewshot_convnext --method=linear_prob", "'linear_probe'"),
        ("recipe fewshot_convnext --profile=mini --weights=pretrained", "--set model"),
        ("recipe fewshot_convnext --profile=mini --weights=pretrained", "--weights=bundled"),
        ("recipe fewshot_convnext --profile=deck --data=digits", "--weights=bundled"),
        ("recipe reliability --data=digits --weights=bundled", "--set model"),
        ("settings fewshot_convnxt", "'fewshot_convnext'"),
        ("settings mamml", "'maml'"),
        ("recipe fewshot_convnext --on=slrum", "did you mean 'slurm'?"),
        ("recipe fewshot_convnext --on=slurm:minuts=3", "did you mean 'minutes'?"),
        ("recipe fewshot_convnext --on=slurm:minutes=soon", "minutes: input should be a valid"),
        ("recipe fewshot_convnext --on=local:gpus=3", "local has no 'gpus'"),
        ("recipe all --method=linear_probe", "recipe all takes no --method"),
        ("recipe my/own.yaml", "my/own.yaml: no such file; `python -m keras_cnn recipes`"),
        ("settings my/own.yml", "my/own.yml: no such file"),
        ("recipe ./fewshot_convnext", "no recipe './fewshot_convnext'"),
        ("recipe fewshot_convnext --profile=mini --weights=bundeld", "did you mean 'bundled'?"),
        ("settings fewshot_convnext --rows=4", "settings has no --rows: it takes no flags"),
        ("report --out=nofolder", "nofolder: no such folder: --out names"),
        ("backbone none.keras /dev/null/x.weights.h5", "/dev/null: results cannot be written"),
        ("backbone none.keras /dev/null/x.weights.h5", "(a file is there)"),
        ("summary none.keras --classes=3", "--classes is for a network by name"),
        ("summary none.keras --image-size=64", "--image-size is for a network by name"),
        ("recipe -- --dry-run", "no recipe './--dry-run'"),
        ("recipe fewshot_convnext --repeats=1 --repeats=2", "twice"),
        ("recipe fewshot_convnext more", "'more' is too much"),
        ("recipe", "needs NAME"),
        ("recipe fewshot_convnext --data=synthetik", "'synthetic'"),
        ("recipe all --rows=4", "recipe all takes no --rows"),
        ("recipe all --set epochs=1", "recipe all takes no --set"),
        ("recipe all --profile=dekc", "'deck'"),
        ("recipe fewshot_convnext --data=synthetic:20 --set shots=3", "at most 2 shots"),
        ("recipe fewshot_convnext --profile=deck", "fetch cinic10"),
        ("recipe fewshot_convnext --data=digits --profile=deck", "fetch convnext_tiny"),
        ("recipe fewshot_convnext --image-size=16", "at least 32 pixels"),
        ("recipe fewshot_convnext --set hidden_units=16", "has no hidden_units"),
        ("recipe reliability --set stochastic_depth=0.1", "has no stochastic_depth"),
        ("recipe fewshot_convnext --weights=none.pth --profile=mini", "no such file"),
        ("recipe fewshot_convnext --data=synthetic:20 --set shots=2 --out=/dev/null/x", "written"),
        ("fetch cinic", "'cinic10'"),
        ("data synthetik", "'synthetic'"),
        ("data digits --out=picture.txt", ".png"),
        ("predict none.keras none.png", "no such file"),
        ("evaluate none.keras --data=digits", "no such file"),
        ("evaluate none.keras", "--data"),
        ("evaluate . --data=digits", "no such file"),
        ("evaluate none.keras --data=digits --out=none/picture.png", "no folder none"),
        ("summary convnext_ato", "'convnext_atto'"),
        ("summary baseline --format=xml", "markdown"),
        ("summary none.keras", "no such file"),
    ],
)
def test_a_mistake_is_one_line_that_helps_and_nothing_is_run(mistake, command, words):
    assert words in mistake(*shlex.split(command))


def test_data_of_too_few_images_and_a_mistyped_folder_are_one_line_before_any_run(
    mistake, tmp_path
):
    for split, label in itertools.product(("train", "test"), ("cat", "dog")):
        folder = tmp_path / "pictures" / split / label
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(folder / "1.png")
    said = mistake("recipe", "fewshot_convnext", "--data=synthetic:20")
    assert "100 shots" in said and "has 2 images" in said and "--set shots 2 works" in said
    said = mistake("recipe", "fewshot_convnext", f"--data={tmp_path / 'picture'}")
    assert said == f"keras_cnn: no folder '{tmp_path}/picture': did you mean '{tmp_path}/pictures'?"
    said = mistake("data", f"{tmp_path}/pictrues/train")
    assert said.endswith(f"did you mean '{tmp_path}/pictures'?")


def test_files_that_are_no_models_are_one_line(mistake, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "picture.png")
    (tmp_path / "renamed.keras").write_bytes((tmp_path / "picture.png").read_bytes())
    assert "not a .keras file" in mistake("predict", "picture.png", "picture.png")
    assert "not a .keras file" in mistake("evaluate", "renamed.keras", "--data=digits")
    assert "not a .keras file" in mistake("summary", "renamed.keras")


def test_weights_that_do_not_fit_are_one_line_before_any_run(workplace):
    import torch

    folder, _ = workplace
    torch.save({"stem.0.weight": torch.zeros(3)}, folder / "small.pth")
    code, out, errors = ended(workplace, *TINY, "--weights=small.pth", "--out=unfit")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"keras_cnn: small.pth: .*convnext_atto.*\n", errors)
    assert not (folder / "unfit" / "fewshot_convnext").exists()


def test_weights_are_fitted_to_the_network_at_hand_its_width_and_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "check_weights", worker.fit_weights)

    def asked(name, **settings):
        overrides = {"data": "synthetic:20", "weights": str(tmp_path / "model.keras"), **settings}
        overrides |= {"shots": 2, "test_shots": 2} if name == "fewshot_basic" else {}
        return resolve.runs(recipe.read(name), "mini", ["1"], "as_run", 1, overrides)

    def save(name, **options):
        model = saved.classifier(models.classifier(name, 10, **options))
        saved.save(model, tmp_path / "model.keras", {})

    save("baseline", hidden_units=10)
    preflight.check(asked("reliability"))
    with pytest.raises(UserError, match=r"model\.keras"):
        preflight.check(asked("reliability", hidden_units=64))
    save("fewshot_cnn", image_size=48)
    preflight.check(asked("fewshot_basic", image_size=48))
    with pytest.raises(UserError, match=r"model\.keras"):
        preflight.check(asked("fewshot_basic"))


def test_a_library_that_is_not_installed_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fire", None)
    assert main(["recipes"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras_cnn: fire is not installed: `pip install -e .`")


def test_a_path_may_begin_with_the_home_folder_or_a_dash(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            (tmp_path / "home" / "photos" / split / name).mkdir(parents=True)
            picture = Image.new("RGB", (40, 40), (len(split), ord(name[0]), 0))
            picture.save(tmp_path / "home" / "photos" / split / name / "1.png")
    shutil.copy(recipe.folder() / "reliability.yaml", tmp_path / "home" / "mine.yaml")
    assert main(["recipe", "~/mine.yaml", "--out=~/out", "--data=~/photos", "--dry-run"]) == 0
    assert "data=~/photos" in capsys.readouterr().out
    assert main(["data", "~/photos", "--out=~/samples.png"]) == 0
    assert (tmp_path / "home" / "samples.png").is_file()
    (tmp_path / "home" / "out").mkdir()
    assert main(["report", "--out=~/out", "--to=~/page"]) == 0
    assert (tmp_path / "home" / "page" / "report.md").is_file()
    monkeypatch.setenv("KERAS_CNN_HOME", "~/cache")
    assert home.home() == tmp_path / "home" / "cache"

    picture.save(tmp_path / "-x.png")
    asked = []
    monkeypatch.setattr(prediction, "predict", lambda model, images: asked.append(images))
    with pytest.raises(AttributeError):  # it gives nothing to print
        main(["predict", "some.keras", "--top=1", "--", "-x.png", "--json", "b.png"])
    assert asked == [("./-x.png", "./--json", "b.png")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["-x.png", "home"]


def test_an_empty_backend_is_none_that_was_named(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert main([*SMALL[:-1], "--dry-run"]) == 0
    code = "import os, keras_cnn; print(os.environ['KERAS_BACKEND'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "torch\n"


def test_more_runs_at_a_time_than_cores_are_told_and_not_made(capsys):
    cores = environment.cores()
    assert main([*SMALL, f"--jobs={cores + 6}", "--repeats=9", "--dry-run"]) == 0
    title = capsys.readouterr().out.splitlines()[0]
    assert title.endswith(f" {cores} at a time: no more than processor cores")


def test_another_method_for_a_row_is_run_corrected_and_leaves_out_what_it_does_not_know(capsys):
    command = "recipe fewshot_convnext --profile=mini --rows=4 --repeats=1 --method=linear_probe"
    assert main(shlex.split(f"{command} --shots=3 --dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "method=linear_probe data=clothing shots=3" in lines[1]
    assert [line.split()[:3] for line in lines if line.startswith("row")] == [
        ["row", "4", "corrected"]
    ]


# Help and lists


def test_help_of_every_command_is_readable_and_needs_no_pager(workplace, capsys):
    code, out, errors = ended(workplace, "--help")
    assert (code, errors) == (0, "")
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\w.+\.$", out, re.MULTILINE), name
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: python -m keras_cnn {name}")
        assert "\x1b" not in text and max(map(len, text.splitlines()[1:])) <= 100
    assert main(["recipe", "fewshot_convnext", "--help"]) == 0
    usage = capsys.readouterr().out.splitlines()[0]
    for flag in ("--dry-run", "--image-size=…", "--set=…", "--fresh"):
        assert f"[{flag}]" in usage


def test_help_and_recipes_are_quick_and_import_no_framework(workplace):
    folder, variables = workplace
    heavy = {"keras", "torch", "tensorflow", "jax", "numpy", "sklearn", "matplotlib", "PIL"}
    for command in ("--help", "recipes"):
        code = (
            "import resource, sys; from keras_cnn.__main__ import main; "
            f"main([{command!r}]); usage = resource.getrusage(resource.RUSAGE_SELF); "
            f"print({heavy!r} & set(sys.modules), usage.ru_utime + usage.ru_stime, "
            "sep='\\n', file=sys.stderr)"
        )
        tries = [
            subprocess.run(
                [sys.executable, "-c", code], cwd=folder, env=variables, text=True,
                capture_output=True, check=True,
            ).stderr.splitlines()
            for _ in range(3)
        ]  # fmt: skip
        assert {imported for imported, _ in tries} == {"set()"}
        assert min(float(seconds) for _, seconds in tries) < 0.5  # of processor time


def test_recipes_lists_slides_title_and_runs(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    convnext = next(line for line in lines if line.startswith("fewshot_convnext"))
    assert "17, 18, 23" in convnext and "6 rows, 12 x 5 runs" in convnext
    assert "ConvNeXt taught new classes" in convnext
    resnet = next(line for line in lines if line.startswith("fewshot_resnet"))
    assert "7 rows, 14 x 5 runs" in resnet


def test_settings_are_listed_with_type_default_and_meaning(capsys):
    assert main(["settings", "maml"]) == 0
    title, heading, *lines = capsys.readouterr().out.splitlines()
    assert (title, heading.split()) == ("maml:", ["setting", "default", "type", "meaning"])
    cells = {line.split()[0]: re.split(r" {2,}", line)[1:] for line in lines}
    assert cells["inner_steps"] == ["5", "whole number", "Steps of the inner loop"]
    assert cells["way"] == ["5", "whole number, null", "Classes of a task, at most; null takes all"]
    assert cells["batch_norm"][:2] == ["stored", "task, stored"]
    known = resolve.defaults(KNOWN_METHODS["maml"])
    assert cells.keys() == known.keys() and all(len(one) == 3 for one in cells.values())
    assert main(["settings", "fewshot_convnext"]) == 0
    as_run, corrected = capsys.readouterr().out.split("\n\n")
    assert as_run.startswith("supervised_as_run:\n") and corrected.startswith("supervised:\n")
    cells = {line.split()[0]: re.split(r" {2,}", line)[1:] for line in corrected.splitlines()[2:]}
    assert cells["model"][:2] == ["convnext_atto", "convnext_tiny"]
    assert cells["learning_rate"][:2] == ["by row", "0.001"]


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ("slurm:partition=gpu,minutes=9", ["2 runs in 1 array", "partition gpu, 9 min", "sbatch"]),
        ("ray:head:6379", ["Tasks of the Ray cluster at head:6379", "2 with num_cpus=1"]),
    ],
)
def test_a_dry_run_tells_what_would_be_submitted(here, on, words):
    code, out, _ = here(*SMALL, "--dry-run", "--repeats=1", f"--on={on}", "--out=elsewhere")
    assert code == 0 and all(one in out for one in words), out


def test_a_dry_run_lists_rows_and_what_is_special_of_them_and_runs_nothing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command = [*SMALL, "--dry-run", "--repeats=3", "--rows=4,5", "--jobs=2"]
    assert main([one for one in command if one != "--rows=4"]) == 0
    title, alike, as_run, corrected, *rows, guess, last = capsys.readouterr().out.splitlines()
    assert title == "fewshot_convnext: profile mini, 2 at a time"
    assert alike.split() == shlex.split(
        "all: data=synthetic:20 shots=2 test_shots=2 model=convnext_atto weights=bundled "
        "unfrozen_stages=2 learning_rate=0.0001 epochs=1"
    )
    assert as_run.startswith("as_run: method=supervised_as_run ") and "dropout_on_logits" in as_run
    assert corrected == "corrected: the defaults"
    special = ("optimizer=adam momentum=0.0 l2=0.0 schedule=step", "optimizer=sgd momentum=0.9 ")
    assert len(rows) == 2 * 2
    for line, (row, variant) in zip(
        rows, itertools.product((4, 5), ("as_run", "corrected")), strict=True
    ):
        assert re.match(rf"row {row}  {variant} +3 runs  ~\d+ s each  {special[row - 4]}", line)
    assert guess.startswith("~: nothing like it has been run here; a guess, ")
    assert re.fullmatch(r"12 runs, about \d+ s for all of them.", last)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--profile=deck", "fetch cinic10"),
        ("--profile=mini --set shots=113", "--set shots 112"),
        ("--profile=mini --out=/dev/null/x", "cannot be written there (/dev/null is a file)"),
    ],
)
def test_a_dry_run_of_what_cannot_run_says_so(capsys, flags, words):
    command = f"recipe fewshot_convnext --rows=1 --repeats=5 --dry-run {flags}"
    with pytest.raises(SystemExit, match="2"):
        main(shlex.split(command))
    *_, count, hindrance = capsys.readouterr().out.splitlines()
    assert count.startswith("10 runs") and words in hindrance


def specs_of(name, profile, **overrides):
    return resolve.runs(recipe.read(name), profile, ["1"], "as_run", 1, overrides)


def test_the_time_is_estimated_from_images_epochs_and_what_was_measured(tmp_path):
    def of_images(specs, measured=()):
        return estimate.seconds(specs[0], dict(measured)) - estimate.START_SECONDS

    speed, test_share = estimate.TYPICAL_SPEED["baseline"], 1 / estimate.FASTER_IN_EVALUATION
    deck = {"model": "baseline", "hidden_units": 32, "epochs": 3, "weights": "random"}
    here = specs_of("reliability", "mini", **deck, data="synthetic:70")
    assert of_images(here) == pytest.approx((70 + 70 * test_share) * 3 / speed)
    few = specs_of("reliability", "mini", **deck, data="synthetic:70", shots=2)
    assert of_images(few) == pytest.approx((2 * 10 + 70 * test_share) * 3 / speed)
    large = specs_of("reliability", "mini", **deck, data="synthetic:70", image_size=64)
    assert of_images(large) == pytest.approx(4 * of_images(here)), "four times the pixels"

    folder = tmp_path / "reliability" / "a run"
    epochs = [{"epoch": epoch} for epoch in (1, 2, 3)]
    write(
        finished_run(here[0], folder, epochs, train_images=70, test_images=70, seconds=21.0),
        here[0],
    )
    measured = estimate.measured_speeds(tmp_path)
    assert of_images(here, measured) == pytest.approx(21)
    assert of_images(few, measured) == pytest.approx(
        21 * (20 + 70 * test_share) / (70 + 70 * test_share)
    )
    assert of_images(large, measured) == pytest.approx(84), "from another size, scaled"
    wide = specs_of("reliability", "mini", **deck | {"hidden_units": 64}, data="synthetic:70")
    assert of_images(wide, measured) == of_images(wide), "of another width it tells nothing"

    estimated = estimate.estimate([*here, *few, *wide], tmp_path, parallel=1)
    assert estimated.guessed == [False, False, True]
    text = estimate.listing("title", [here[0]], estimate.estimate(here, tmp_path, parallel=1))
    assert f"{estimate.START_SECONDS + 21:.0f} s each" in text and "~" not in text


def test_the_first_guess_of_the_main_job_is_of_the_right_size(tmp_path):
    """It took 7 min 04 s on the two cores of the README's table, alone in a new environment."""
    runs = resolve.runs(recipe.read("fewshot_convnext"), "mini")
    estimated = estimate.estimate(runs, tmp_path, parallel=2)
    assert all(estimated.guessed) and 424 / 1.5 < estimated.seconds_left < 424 * 1.5


def test_the_time_of_what_is_not_here_is_not_known(tmp_path):
    """No guess of a data set's size; what it takes is told when the images are there."""
    specs = specs_of("reliability", "deck")
    assert estimate.seconds(specs[0], {}) is None
    estimated = estimate.estimate(specs, tmp_path, parallel=2)
    *_, row, count, hindrance = estimate.listing("title", specs, estimated).splitlines()
    assert "time not known" in row and count == "1 run, time of all of them not known."
    assert "fetch cinic10" in hindrance


def test_the_time_of_what_has_no_epochs_or_a_time_limit_is_estimated_too(tmp_path):
    tiny = resolve.runs(recipe.read("pretrain"), "deck", ["convnext_atto"], repeats=1)[0]
    training = tiny.spec.training.model_copy(update={"minutes": 3.0})
    limited = tiny.model_copy(update={"spec": tiny.spec.model_copy(update={"training": training})})
    assert estimate.seconds(limited, {}) == pytest.approx(180 + estimate.START_SECONDS)
    assert estimate.estimate([limited], tmp_path, parallel=1).guessed == [False]

    overrides = {"data": "synthetic:70", "shots": None}
    (probe,) = resolve.runs(
        recipe.read("fewshot_methods"), "mini", ["linear_probe"], repeats=1, overrides=overrides
    )
    folder = tmp_path / "fewshot_methods" / "a run"
    counts = {"train_images": 70, "test_images": 70}
    write(finished_run(probe, folder, [{}], **counts, seconds=21.0), probe)
    measured = estimate.measured_speeds(tmp_path)
    assert estimate.seconds(probe, measured) == pytest.approx(21 + estimate.START_SECONDS)


def test_a_dry_run_of_fresh_counts_what_is_on_disk_again(here, finished):
    command = [*TINY, "--out=undisturbed", "--dry-run"]
    _, out, _ = here(*command)
    assert out.splitlines()[-1] == f"{len(finished.runs)} runs, {len(finished.runs)} on disk."
    _, out, _ = here(*command, "--fresh")
    assert out.splitlines()[-1].startswith(f"{len(finished.runs)} runs, about ")


def test_three_runs_two_at_a_time_take_as_long_as_two(tmp_path):
    plan = recipe.read("fewshot_convnext")
    specs = resolve.runs(plan, "mini", ["4"], "corrected", 3, {"data": "synthetic:20", "shots": 2})
    estimated = estimate.estimate(specs, tmp_path, parallel=2)
    assert estimated.seconds_left == pytest.approx(2 * estimated.seconds[0])
    alone = estimate.estimate(specs[:1], tmp_path, parallel=2)
    assert alone.seconds_left == pytest.approx(estimated.seconds[0]), "one run uses one core"


# A whole recipe


def variants_shown(out):
    """The variants of row 4 in a table on standard output."""
    return re.findall(r"^4 .*\b(as_run|corrected) (?!.* seen)", out, re.M)


def test_a_recipe_ends_with_table_pictures_and_models(finished):
    assert len(finished.runs) == 2
    for folder in finished.runs:
        assert {path.name for path in folder.iterdir()} == {
            "run.json", "environment.json", "history.csv", "metrics.json", "confusion.csv",
            "model.keras", "predictions.npz", "checksums.json",
        }  # fmt: skip
        result = store.read(folder)
        assert len(result.history) == 1 and np.sum(result.confusion) == 20
        assert result.environment["backend"] == "torch" and result.environment["threads"] == 1
        started_from = result.environment["fingerprints"]["weights"]
        assert started_from == named.BUNDLED["convnext_atto"]
    assert variants_shown(finished.stdout) == ["as_run", "corrected"]
    assert max(map(len, finished.stdout.splitlines()[:12])) <= 120, "as wide as no terminal is"
    assert "Best on" not in finished.stdout, "no model is chosen on the test images"
    with (finished.folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["as_run", "corrected"]
    content = json.loads((finished.folder / "table.json").read_text())
    best = [float(row["test_accuracy_best"]) for row in rows]
    assert best == [line["measures"]["test_accuracy"]["best"] for line in content["lines"]]
    for folder, accuracy in zip(finished.runs, best, strict=True):
        assert 100 * store.read(folder).metrics["test_accuracy"] == accuracy
    pictures = ["row-4-curves", "row-4-as_run-confusion", "row-4-corrected-confusion", "rows"]
    for picture in pictures:
        with Image.open(finished.folder / f"{picture}.png") as image:
            assert min(image.size) > 200
    hidden = {path.name for path in finished.folder.glob(".*")}
    assert hidden == {".locks", ".figures.json"}, "nothing half-made is left"


def test_progress_is_plain_lines_where_there_is_no_terminal(finished):
    lines = finished.stderr.splitlines()
    assert [line[:5] for line in lines if " done: " in line] == ["[1/2]", "[2/2]"]
    assert "left)" in lines[-1] and "\x1b" not in finished.stderr


def test_again_runs_nothing_and_prints_the_same(here, finished):
    def state():
        paths = [*finished.runs, *finished.folder.glob("*.png")]
        return {path: path.stat().st_mtime_ns for path in paths}

    before, table = state(), finished.table
    code, out, errors = here(*TINY, "--out=undisturbed")
    assert (code, out, errors) == (0, finished.stdout, "")
    assert state() == before and finished.table == table


def test_the_tables_own_command_gives_the_table_again(here, finished):
    command = re.search(r"Again with: `python -m keras_cnn (.+)`", finished.table).group(1)
    code, out, errors = here(*shlex.split(command))
    assert (code, out, errors) == (0, finished.stdout, "")


@pytest.fixture
def one_core():
    """A lone run then has one thread, as each of two had: more of them may round otherwise."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system tells no process where to run")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def test_fresh_runs_again_to_the_same_figures(here, finished, one_core):
    before = {path: path.stat().st_mtime_ns for path in finished.runs}
    metrics = [store.read(path).metrics for path in finished.runs]
    code, out, errors = here(*TINY, "--out=undisturbed", "--variant=corrected", "--fresh")
    assert code == 0 and "[1/1] row 4 corrected repeat 1 done" in errors
    assert "corrected" in out and "as_run" not in out
    after = {path: path.stat().st_mtime_ns for path in finished.runs}
    assert [path.name[:5] for path in after if after[path] != before[path]] == ["4-cor"]
    for path, old in zip(finished.runs, metrics, strict=True):
        new = store.read(path).metrics
        assert {k: v for k, v in new.items() if k not in MEASURED} == {
            k: v for k, v in old.items() if k not in MEASURED
        }
    code, out, _ = here(*TINY, "--out=undisturbed", "--fresh=false")  # the whole again
    assert (code, out) == (0, finished.stdout)


# A user's own images, other settings, all recipes: what surrounds the runs, which are made up


class Made(list):
    """The runs made; those that are to fail are named by recipe or variant."""

    failing = ("overfitting",)


@pytest.fixture
def made_up(finished, tmp_path, monkeypatch):
    """A command in this process; its runs are copies of a finished one. Gives the runs made."""
    monkeypatch.chdir(tmp_path)
    made = Made()

    def execute(jobs, executor, notify):
        failed = []
        for job in jobs:
            made.append(job.run)
            if {job.run.place.recipe, job.run.place.variant} & {*made.failing}:
                failed.append(Event(job, "failed", error="it was to fail", log="at length"))
                continue
            shutil.copytree(finished.runs[0], job.folder)
            (job.folder / "run.json").write_text(job.run.model_dump_json())
        return failed

    monkeypatch.setattr(engine, "execute", execute)
    return made


@pytest.fixture
def photos(tmp_path):
    """Two folders of ten images in two classes, two of each to test with."""
    for name, label in itertools.product(("photos", "others"), ("cat", "dog")):
        folder = tmp_path / name / label
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40, 40), (20 * number, ord(name[0]), ord(label[0]))).save(
                folder / f"{number}.png"
            )
    return tmp_path / "photos"


OWN = shlex.split("recipe fewshot_convnext --rows=4 --repeats=1 --set shots=3 --data=photos")


def test_a_users_own_images_are_all_tested_on_and_the_profile_is_named(made_up, photos, capsys):
    assert main(OWN) == 0
    captured = capsys.readouterr()
    assert {run.spec.images.test_shots for run in made_up} == {None}
    assert {run.spec.network.model for run in made_up} == {"convnext_atto"}
    profile, count = captured.err.splitlines()
    assert profile.startswith(
        "Profile mini: data photos; convnext_atto from bundled weights, in 0.4 times "
    )
    assert count == "fewshot_convnext: 2 runs"
    assert "slide" not in captured.out and "100" not in captured.out.splitlines()[0]
    assert main([*OWN, "--set=test_shots=1"]) == 0
    assert {run.spec.images.test_shots for run in made_up[2:]} == {1}, (
        "unless the user says otherwise"
    )


def test_the_profile_that_nobody_asked_for_is_named_and_where_weights_go(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.pth").touch()
    assert main([*OWN, "--weights=my.pth", "--dry-run"]) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    network = "convnext_tiny from my.pth (--set model NAME: another network)"
    assert line == f"Profile deck: data photos; {network} (--profile=mini is smaller)."
    assert "weights=my.pth" in captured.out and "test_shots" not in captured.out
    assert main([*OWN, "--weights=my.pth", "--set=model=resnet18", "--dry-run"]) == 0
    assert "; resnet18 from my.pth (--profile" in capsys.readouterr().err
    (tmp_path / "mine.weights.h5").touch()
    assert main([*OWN, "--weights=mine.weights.h5", "--dry-run"]) == 0
    assert "Profile mini: data photos; convnext_atto from mine" in capsys.readouterr().err
    assert main([*OWN, "--profile=mini", "--dry-run"]) == 0
    assert capsys.readouterr().err == "", "it was asked for"


def test_a_damaged_result_is_left_out_and_told_and_the_others_are_in_the_table(
    made_up, photos, tmp_path, capsys
):
    assert main(OWN) == 0
    folder = tmp_path / "artifacts" / "fewshot_convnext"
    (folder / "table.md").unlink()
    capsys.readouterr()
    damaged = next(folder.glob("4-as_run-*"))
    (damaged / "metrics.json").write_text("{")
    with pytest.raises(SystemExit, match="1"):
        main(OWN)
    said = capsys.readouterr()
    assert variants_shown(said.out) == ["corrected"]
    assert f"left out of the table: {damaged.relative_to(tmp_path)}: damaged" in said.err


def test_failed_runs_are_listed_at_the_end_and_tried_again(made_up, photos, capsys):
    made_up.failing = ("as_run",)
    with pytest.raises(SystemExit, match="1"):
        main(OWN)
    said = capsys.readouterr()
    assert variants_shown(said.out) == ["corrected"], "the other one is done"
    *_, count, failure, log = said.err.splitlines()
    assert count == "1 run failed; the same command tries again:"
    assert failure == "  row 4 as_run repeat 1: it was to fail"
    log = Path(log.removeprefix("    log: "))
    assert log.parent == Path("artifacts/fewshot_convnext/failed")
    assert log.read_text() == "at length"
    made_up.failing = ()
    assert main(OWN) == 0
    said = capsys.readouterr()
    assert "fewshot_convnext: 2 runs, 1 on disk already\n" in said.err
    assert variants_shown(said.out) == ["as_run", "corrected"]
    assert not log.parent.exists(), "what is done is no longer listed as failed"


def test_failed_runs_are_listed_where_their_log_cannot_be_kept(made_up, photos, capsys):
    made_up.failing = ("as_run",)
    folder = Path("artifacts/fewshot_convnext")
    folder.mkdir(parents=True)
    (folder / "failed").write_text("a file is in the way")
    with pytest.raises(SystemExit, match="1"):
        main(OWN)
    *_, failure, log = capsys.readouterr().err.splitlines()
    assert failure == "  row 4 as_run repeat 1: it was to fail"
    assert log.startswith("    log: not kept: ")


def test_one_command_at_a_time_writes_the_table(made_up, photos, monkeypatch):
    """Another one's table, pictures and what is moved away are not mixed with it."""
    folder = Path("artifacts/fewshot_convnext").absolute()
    with store.held(folder / "table"):
        command = threading.Thread(target=main, args=(OWN,))
        command.start()
        while len(made_up) < 2:
            time.sleep(0.01)
        command.join(0.5)
        assert command.is_alive() and not list(folder.glob("table.*"))
    command.join(SECONDS)
    assert (folder / "table.md").is_file() and (folder / "row-4-curves.png").is_file()


def test_a_result_is_told_as_what_it_was_last_asked_for(made_up, photos, tmp_path, capsys):
    """The same images elsewhere are the same run."""
    assert main(OWN) == 0
    shutil.copytree(photos, tmp_path / "album")
    before = len(made_up)
    capsys.readouterr()
    assert main([one.replace("photos", "album") for one in OWN]) == 0
    assert len(made_up) == before
    out = capsys.readouterr().out
    assert "data album" in out and "photos" not in out


def test_rows_of_a_backend_that_is_not_installed_are_left_out_and_told(
    made_up, monkeypatch, capsys
):
    def require(backend):
        if backend in lacking:
            raise UserError(f"backend {backend} is not installed")

    lacking = {"jax"}
    monkeypatch.setattr(environment, "require", require)
    command = ["recipe", "backends", "--profile=mini", "--data=synthetic:20", "--repeats=2"]
    assert main(command) == 0
    assert {run.spec.backend for run in made_up} == {"torch", "tensorflow"} and len(made_up) == 4
    told = "backends: row jax is left out: backend jax is not installed"
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [told, "backends: 4 runs"]
    assert "\njax " not in captured.out and "\ntensorflow " in captured.out
    assert "--repeats=2 --backend=torch --data=synthetic:20\n" in captured.out
    assert main([*command, "--rows=jax"]) == 2
    assert capsys.readouterr().err == "keras_cnn: backend jax is not installed\n"
    lacking.add("tensorflow")  # whose results are on disk
    assert main(command) == 0
    assert "\ntensorflow " in capsys.readouterr().out and len(made_up) == 4


def test_few_runs_have_all_threads_and_the_same_on_other_threads_is_taken(
    made_up, photos, monkeypatch
):
    monkeypatch.setattr(study.environment, "cores", lambda: 16)
    monkeypatch.setattr(study.environment, "gpus", list)
    assert main([*OWN, "--variant=corrected"]) == 0
    assert [run.spec.threads for run in made_up] == [16]
    assert main([one.replace("repeats=1", "repeats=20") for one in OWN]) == 0
    assert [run.spec.threads for run in made_up[1:]] == [1] * 39, "what is there is taken"


def test_a_table_of_other_runs_is_kept_with_its_pictures_and_one_of_fewer_replaced(
    made_up, photos, tmp_path, capsys
):
    folder = tmp_path / "artifacts" / "fewshot_convnext"

    def shown():
        names = ["table.md", "table.csv", "table.json", "row-4-curves.png"]
        return {name: (folder / name).read_bytes() for name in names}

    assert main(OWN) == 0
    first = shown()
    assert "--out" not in (folder / "table.md").read_text(), "the default"
    assert main([*OWN, "--set=test_shots=1"]) == 0  # other settings
    (kept,) = (folder / "earlier").iterdir()
    assert kept.name.startswith("photos-")
    assert (
        capsys.readouterr()
        .err.rstrip()
        .endswith(f"in {kept.relative_to(tmp_path)}, with its pictures.")
    )
    assert {name: (kept / name).read_bytes() for name in first} == first
    second = shown()
    assert main([one.replace("photos", "others") for one in OWN]) == 0  # other data
    assert len(list((folder / "earlier").iterdir())) == 2
    copies = [(at / "table.md").read_bytes() for at in (folder / "earlier").iterdir()]
    assert sorted(copies) == sorted([first["table.md"], second["table.md"]])

    assert main([*OWN, "--variant=corrected"]) == 0
    assert len(list((folder / "earlier").iterdir())) == 3
    few = (folder / "table.md").read_text()
    capsys.readouterr()
    assert main(OWN) == 0  # the same and more: nothing of the former is lost
    assert capsys.readouterr().err.count("\n") == 1
    assert len(list((folder / "earlier").iterdir())) == 3
    assert shown()["table.md"] == first["table.md"] != few.encode()


def test_all_recipes_are_run_one_after_the_other_whatever_becomes_of_each(
    made_up, tmp_path, monkeypatch, capsys
):
    names = ["backends", "fewshot_convnext", "overfitting", "reliability"]
    monkeypatch.setattr(recipe, "names", lambda: names)
    monkeypatch.setattr(study.models, "check", lambda model, *_, **options: refuse(model))

    def refuse(model):
        if model == "convnext_atto":
            raise UserError("it cannot be used")

    flags = ["--data=synthetic:20", "--repeats=1", "--out=here", "--profile=mini"]
    with pytest.raises(SystemExit) as exited:
        main(["recipe", "all", *flags])
    assert exited.value.code == 1
    assert {run.place.recipe for run in made_up} == {"backends", "overfitting", "reliability"}
    assert {run.spec.images.data for run in made_up} == {"synthetic:20"}
    lines = capsys.readouterr().out.splitlines()[-4:]
    ends = [line.split(maxsplit=1) for line in lines]
    assert [name for name, _ in ends] == names
    assert re.fullmatch(r"3 runs done, 0 failed, \d+ s: here/backends/table.md", ends[0][1])
    assert ends[1][1] == "not run: it cannot be used"
    assert re.fullmatch(r"0 runs done, 2 failed, \d+ s: no table", ends[2][1])
    assert re.fullmatch(r"1 run done, 0 failed, \d+ s: here/reliability/table.md", ends[3][1])

    names[:] = ["backends", "reliability"]
    assert main(["recipe", "all", *flags]) == 0
    assert len(made_up) == 3 + 2 + 1, "what is on disk is not run again"
    capsys.readouterr()
    assert main(["recipe", "all", *flags, "--dry-run"]) == 0
    ends = capsys.readouterr().out.splitlines()[-3:]
    assert ends == [
        "backends     3 runs, 3 on disk",
        "reliability  1 run, 1 on disk",
        "all          about 0 s for what is not on disk",
    ]


# Disturbances


def without_timings(folder):
    """The figures of table.csv and table.json that two runs have in common."""
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    lines = json.loads((folder / "table.json").read_text())["lines"]
    for row in rows:
        timed = [key for key in row if key.startswith(MEASURED)]
        assert timed
        for key in timed:
            del row[key]
    for line in lines:
        for name in MEASURED:
            del line["measures"][name]
    return rows, lines


def test_killed_at_any_moment_and_called_again_the_table_is_that_of_an_undisturbed_run(
    workplace, finished
):
    moments = random.Random(213)
    arguments = [*TINY, "--out=killed", "--jobs=2"]
    for _ in range(3):
        process = begun(workplace, arguments)
        try:
            process.wait(timeout=moments.uniform(0.1, 1.0) * finished.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    code, out, errors = ended(workplace, *arguments)
    assert code == 0, errors
    folder = workplace[0] / "killed" / "fewshot_convnext"
    assert (folder / "table.md").read_text() == finished.table.replace("undisturbed", "killed")
    assert out == finished.stdout.replace("undisturbed", "killed")
    assert without_timings(folder) == without_timings(finished.folder)
    for ours, theirs in zip(sorted(folder.glob("4-*")), finished.runs, strict=True):
        for name in ("run.json", "confusion.csv"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_two_commands_at_once_share_the_work(workplace, finished):
    arguments = [*TINY, "--out=shared", "--jobs=1"]
    processes = [begun(workplace, arguments) for _ in range(2)]
    ends = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    for out, _ in ends:
        assert out == finished.stdout.replace("undisturbed", "shared")
    # A command shows the figures of a run only where its own process trained it.
    trained = [re.findall(r"\] row 4 (\w+) repeat 1 done: train", errors) for _, errors in ends]
    assert sorted(itertools.chain(*trained)) == ["as_run", "corrected"]
    folder = workplace[0] / "shared" / "fewshot_convnext"
    assert (folder / "table.md").read_text() == finished.table.replace("undisturbed", "shared")
    assert not list(folder.glob(".*.partial")) and len(list(folder.glob("*.png"))) == 4


# A saved model at work


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    (folder / "inside").mkdir()
    for name in ("one.png", "inside/two.jpg", "inside/three.JPEG"):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_predict_names_the_most_probable_classes(here, finished, pictures):
    model = finished.runs[0] / "model.keras"
    code, out, errors = here("predict", model, pictures, "--top=2", "--json")
    assert (code, errors) == (0, "")
    content = json.loads(out)
    assert sorted(Path(one["image"]).name for one in content) == [
        "one.png",
        "three.JPEG",
        "two.jpg",
    ]
    for one in content:
        first, second = one["classes"]
        assert 1 >= first["probability"] >= second["probability"] > 0
        assert first["name"] in store.read(finished.runs[0]).class_names


def test_predict_evaluate_and_summary_as_text(
    workplace, finished, pictures, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    model = str(finished.runs[1] / "model.keras")
    assert main(["predict", model, str(pictures / "one.png")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*one\.png: (\w+ \d+\.\d%, ){2}\w+ \d+\.\d%", line)

    picture = tmp_path / "confusion.png"
    table = tmp_path / "images.csv"
    into = f"--out={picture}", f"--csv={table}"
    assert main(["evaluate", model, "--data=synthetic:20", *into]) == 0
    out = capsys.readouterr().out
    result = store.read(finished.runs[1])
    rows = list(csv.DictReader(table.open(newline="")))
    shares = np.array([[float(row[name]) for name in result.class_names] for row in rows])
    there = shares[result.predictions.images]  # the run's test images in the order of its draw
    np.testing.assert_allclose(result.predictions.probabilities, there, rtol=1e-3, atol=1e-6)
    metrics = result.metrics
    assert f"{metrics['test_accuracy_over_images']:.2%} of 20 images" in out, "the run's own figure"
    assert "precision" in out and picture.is_file()
    assert main(["evaluate", model, "--data=digits", f"--out={picture}"]) == 2
    assert "classes the model was not taught" in capsys.readouterr().err

    for name in (model, "baseline"):
        assert main(["summary", name]) == 0
        assert "mult-adds" in capsys.readouterr().out.lower()


def test_data_tells_what_a_source_holds(workplace, here):
    code, out, errors = here("data", "synthetic:20")
    assert (code, errors) == (0, "")
    assert "train" in out and "20" in out and "fine_0" in out
    assert (workplace[0] / "synthetic:20-samples.png").is_file()


def test_output_that_nobody_reads_or_that_does_not_fit_is_no_traceback(workplace):
    folder, variables = workplace
    command = f"{shlex.quote(sys.executable)} -m keras_cnn recipes"
    ends = ((" | true", ""), (" > /dev/full", "No space left"), (" >&-", ""), (" <&- >&-", ""))
    for end, said in ends:
        done = subprocess.run(
            ["sh", "-c", command + end], cwd=folder, env=variables, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr and said in done.stderr
        assert done.stderr.count("\n") <= 1 and "Exception ignored" not in done.stderr
