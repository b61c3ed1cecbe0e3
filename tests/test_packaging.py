"""What a wheel holds (an editable install finds what setup.cfg forgets), and what it offers."""

from __future__ import annotations

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


def test_the_modules_listed_are_there_and_import_no_framework():
    code = (
        "import sys, keras_cnn; "
        "modules = [getattr(keras_cnn, name) for name in keras_cnn.__all__]; "
        "import keras_cnn.runs.study; assert keras_cnn.data.load and keras_cnn.models.classifier; "
        "print({'keras', 'torch', 'tensorflow', 'jax'} & set(sys.modules), hasattr(keras_cnn, 'x'))"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "set() False\n"


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
