"""Runs the tests marked `every_backend` on TensorFlow and JAX too, each in its own process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_backend(backend):
    pytest.importorskip(backend)
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "every_backend", str(TESTS)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", finished.stdout).group(1))
    assert passed >= 10, "the marked tests were not found"
