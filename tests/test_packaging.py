"""What a wheel holds (an editable install finds what setup.cfg forgets), and what it offers."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_cnn import models, pretrained
from keras_cnn.errors import UserError

ROOT = Path(__file__).parents[1]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_the_command_has_a_name_of_its_own():
    name, place = SETUP["options.entry_points"]["console_scripts"].strip().split(" = ")
    module, function = place.split(":")
    assert name == "keras_cnn" and callable(getattr(importlib.import_module(module), function))


def test_every_folder_of_the_package_is_listed():
    folders = [path.parent for path in ROOT.glob("keras_cnn/**/__init__.py")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(SETUP["options"]["packages"].split()) == found | {"keras_cnn.recipes"}


def test_every_file_that_is_no_code_is_listed():
    folders = {"keras_cnn.recipes": ROOT / "recipes"}
    for path in ROOT.glob("keras_cnn/**/*.*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            folders[".".join(path.parent.relative_to(ROOT).parts)] = path.parent
    listed = SETUP["options.package_data"]
    assert set(listed) == set(folders)
    for package, folder in folders.items():
        patterns = listed[package].split()
        for path in folder.glob("*.*"):
            assert path.suffix in (".py", ".pyc") or any(map(path.match, patterns)), path


def in_a_new_process(code, **variables):
    """What Python prints that has imported nothing."""
    environment = {key: os.environ[key] for key in os.environ if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


LOADED = "print({'keras', 'torch', 'tensorflow', 'jax'} & set(sys.modules))"


def test_the_modules_listed_are_there_and_import_no_framework():
    code = (
        "import sys, keras_cnn; assert dir(keras_cnn) == sorted(dir(keras_cnn)); "
        "assert {*keras_cnn.__all__} < {*dir(keras_cnn)} and not hasattr(keras_cnn, 'x'); "
        "parts = [getattr(keras_cnn, name) for name in keras_cnn.__all__]; "
        "assert keras_cnn.study.run and keras_cnn.data.load and keras_cnn.models.classifier; "
        "assert callable(keras_cnn.predict); from keras_cnn import *; assert study.plan; "
        f"{LOADED}"
    )
    assert in_a_new_process(code) == "set()\n"


ROOMS = ("recipe", "results", "pages", "plots", "report", "downloads", "runs")
DOORS = ("methods.settings", "methods.interface", "deck.settings", "deck.slides")


def test_these_rooms_know_no_framework():
    files = [path for room in ROOMS for path in (ROOT / "keras_cnn" / room).glob("*.py")]
    modules = [f"keras_cnn.{path.parent.name}.{path.stem}" for path in files]
    modules = [name for name in modules if name != "keras_cnn.runs.worker"]
    assert len(modules) > 30
    code = "\n".join(f"import {name}" for name in [*modules, *(f"keras_cnn.{x}" for x in DOORS)])
    assert in_a_new_process(f"import sys\n{code}\n{LOADED}") == "set()\n"


def test_keras_on_another_backend_before_the_package_is_told_and_kept(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    code = (
        "import os, sys, warnings, numpy, keras\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import keras_cnn\n"
        "model = keras_cnn.models.classifier('baseline', 3, image_size=8, hidden_units=2)\n"
        "model.predict(numpy.zeros((1, 8, 8, 3)), verbose=0)\n"
        "print(os.environ['KERAS_BACKEND'], keras.backend.backend(), 'torch' in sys.modules)\n"
        "print(*(warning.message for warning in caught))"
    )
    found, warning = in_a_new_process(code, KERAS_HOME=str(tmp_path)).splitlines()
    assert found == "jax jax False"
    assert warning.startswith("keras was imported before keras_cnn and runs on jax")
    code = "import os, keras_cnn, keras; print(os.environ['KERAS_BACKEND'], keras.config.backend())"
    assert in_a_new_process(code, KERAS_HOME=str(tmp_path)) == "torch torch\n"


def test_weights_are_loaded_by_name_and_the_head_keeps_its_own():
    first, second = (models.classifier("convnext_atto", 5, seed=seed) for seed in (1, 2))
    heads = [model.get_layer("head_logits").get_weights()[0] for model in (first, second)]
    pretrained.load(first, "random")
    assert not all(
        np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True)
    )
    for model in (first, second):
        pretrained.load(model, "bundled")
    for one, other in zip(first.weights, second.weights, strict=True):
        if not one.path.startswith("head_"):
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))
    for model, head in zip((first, second), heads, strict=True):
        np.testing.assert_array_equal(model.get_layer("head_logits").get_weights()[0], head)
    with pytest.raises(UserError, match="no such file"):
        pretrained.load(first, "bundeld")
