"""What a run computes on: backend, device, versions, threads."""

from __future__ import annotations

import importlib.util
import os
import platform
import random
import sys
from importlib import metadata
from pathlib import Path

from keras_cnn.errors import UserError, nearest

BACKENDS = ("torch", "tensorflow", "jax")
# JAX and TensorFlow else take most of a GPU's memory at once: no second process fits beside one.
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def describe() -> dict[str, object]:
    """What is in use in this process; every result records it. Imports keras.

    Returns:
        `backend`, `device` (`cpu`, or the accelerator's name), `versions` of what computes,
        `python`, `platform`, `processor`, `cores` and `threads` (None: the backend's default).
    """
    import keras

    backend = keras.backend.backend()
    packages = ("keras_cnn", "keras", "numpy", backend, *(("jaxlib",) if backend == "jax" else ()))
    return {
        "backend": backend,
        "device": _device(backend),
        "versions": {name: _version(name) for name in packages},
        **machine(),
        "threads": _threads(),
    }


def _threads() -> int | None:
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else None  # OpenMP takes lists, too: 4,2


def require(backend: str) -> None:
    """Refuses a backend that is not one, or is not installed; imports none.

    Args:
        backend: Its name.

    Raises:
        UserError: It cannot be used here.
    """
    if backend not in BACKENDS:
        raise UserError(f"no backend {backend!r}: {nearest(backend, BACKENDS)}")
    if importlib.util.find_spec(backend) is None:
        raise UserError(f"backend {backend} is not installed: pip install {backend}")


def machine() -> dict[str, object]:
    """`python`, `platform`, `processor` and `cores`, found without importing a framework."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
    }


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is visible, found without importing a framework."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(Path("/dev").glob("nvidia[0-9]*"))


def child_variables(backend: str, threads: int | None) -> dict[str, str]:
    """Environment variables for a process that runs on a backend.

    They must be set before the process imports anything: thread pools are made at import.

    Args:
        backend: `torch`, `tensorflow` or `jax`.
        threads: Threads the backend may use; None leaves its default.
    """
    variables = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
    for name, value in SHARED_GPU.items():
        variables[name] = os.environ.get(name, value)
    flags = [os.environ.get("XLA_FLAGS", "")]
    if has_gpu():
        flags.append("--xla_gpu_deterministic_ops=true")  # sums in the same order each time
    if threads is not None:
        for name in ("OMP", "MKL", "OPENBLAS", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"):
            variables[f"{name}{'' if name.startswith('TF') else '_NUM'}_THREADS"] = str(threads)
        if threads == 1:
            flags.append("--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    if any(flags):
        variables["XLA_FLAGS"] = " ".join(filter(None, flags))
    return variables


def peak_memory_megabytes() -> float | None:
    """The most memory this process has held so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and the backend in use.

    `keras.utils.set_random_seed` does the same, but imports TensorFlow whenever it is installed.

    Args:
        seed: Any whole number from 0 to 2**32 - 1.
    """
    import keras
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic = True  # a GPU's sums in the same order each time
    elif keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.random.set_seed(seed)


def _device(backend: str) -> str:
    if backend == "torch":
        import keras
        import torch

        device = keras.ops.zeros(()).device  # where Keras puts tensors: cpu, cuda or mps
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if backend == "tensorflow":
        import tensorflow

        gpus = tensorflow.config.list_physical_devices("GPU")
        return gpus[0].name if gpus else "cpu"
    import jax

    device = jax.devices()[0]
    return device.device_kind if device.platform != "cpu" else "cpu"


def _version(package: str) -> str:
    candidates = [package, f"{package}-cpu"]
    for name in candidates:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    module = sys.modules.get(package)  # run from a checkout that is not installed
    return getattr(module, "__version__", "unknown")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
