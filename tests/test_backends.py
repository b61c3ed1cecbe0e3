"""Runs the tests marked `every_backend` in other processes: on TensorFlow, JAX and plain torch."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("backend", "variables", "files"),
    [
        ("tensorflow", {}, [""]),
        ("torch", {"KERAS_CNN_PLAIN": "1"}, THROUGH_THE_DOORS),
    ],
    ids=["tensorflow", "plain torch"],
)
def test_backend(backend, variables, files):
    marked_tests_pass(backend, variables, files)


def marked_tests_pass(backend, variables=(), files=("",)):
    """Runs the marked tests of some files, all by default, in a process of their own."""
    pytest.importorskip(backend)
    paths = [str(TESTS / file) for file in files]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "every_backend", *paths],
        env={**os.environ, "KERAS_BACKEND": backend, **dict(variables)},
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", finished.stdout).group(1))
    assert passed >= 10, "the marked tests were not found"
