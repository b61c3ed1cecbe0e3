from __future__ import annotations

import os
from pathlib import Path

import pytest

from keras_cnn import environment

# One thread: the machine may be busy, and results are then the same to the last bit.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads of one test wait without spinning
# On a GPU: float32 products as on a CPU, which results are held against, and memory for others.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
if environment.has_gpu():  # JAX, too, adds up in the same order each time
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
else:  # half of JAX's compiling, which is most of what it does here, is optimizing
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# What JAX has compiled is kept for the next time in this folder: compiling is 60 % of its tests.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("KERAS_BACKEND", "torch")  # also for tests that import keras first
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items):
    """What takes longest first: at the end it would keep one worker while the others idle."""
    longest = ("test_backends.py", "test_on_jax.py", "test_export.py", "test_saved.py")
    items.sort(key=lambda item: item.path.name not in longest)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """No test sees what the user has fetched, or leaves anything there."""
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(autouse=True)
def nothing_else_runs(monkeypatch):
    """The same number of threads however busy the machine is."""
    monkeypatch.setattr(environment, "free_cores", lambda: environment.cores())


@pytest.fixture
def made_here(monkeypatch):
    """Runs of a recipe are made in this process: no other has to import a framework."""
    from method_runs import Here  # when Keras is known to be wanted

    from keras_cnn.runs import executors

    monkeypatch.setattr(executors, "executor", lambda *_: Here())
