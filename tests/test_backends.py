"""Runs the tests marked `every_backend` in other processes: on TensorFlow, JAX and plain torch."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


# On plain torch only the files that train small models through the doors of `torch_fast`: all
# marked tests take 95 s of a core there.
THROUGH_THE_DOORS = ("test_as_run.py", "test_optimizers.py", "test_supervised.py")


def test_tensorflow():
    marked_tests_pass("tensorflow")


def test_plain_torch():
    marked_tests_pass("torch", {"KERAS_CNN_PLAIN": "1"}, THROUGH_THE_DOORS)


def marked_tests_pass(backend, variables=(), files=()):
    """Runs the marked tests of some files, all by default, in a process of their own."""
    if importlib.util.find_spec(backend) is None:  # it is not imported into this process
        pytest.skip(f"{backend} is not installed")
    paths = [TESTS / file for file in files] or [*TESTS.glob("test_*.py")]
    paths = sorted(path for path in paths if "every_backend" in path.read_text(encoding="utf-8"))
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "every_backend", *map(str, paths)],
        env={**os.environ, "KERAS_BACKEND": backend, **dict(variables)},
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", finished.stdout).group(1))
    assert passed >= 10, "the marked tests were not found"
