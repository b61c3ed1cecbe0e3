"""What a run computes on: backend, device, versions, threads."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import platform
import random
import re
import sys
import time
from collections.abc import Collection
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from keras_cnn.errors import UserError, nearest

BACKENDS = ("torch", "tensorflow", "jax")
# Starts a child that imports what is installed, and no file of such a name in the current folder.
PYTHON = (sys.executable, "-P")
# JAX and TensorFlow else take most of a GPU's memory at once: no second process fits beside one.
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
# Variables that libraries read: types, precision, instruction sets, where to cut `fit` short.
# What was set outside must not decide a result, so they do not reach a process that computes one.
DECISIVE = (
    *("KERAS_", "TORCH_", "PYTORCH_", "ATEN_", "TF_", "JAX_", "XLA_", "CUBLAS_", "CUDNN_"),
    *("NVIDIA_TF32_", "OMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "NPY_", "SKLEARN_"),
)
# But for those that say where it runs, in what memory, and what is logged or kept on disk.
HARMLESS = (
    *("KERAS_CNN_", "KERAS_TORCH_DEVICE", "PYTORCH_ENABLE_MPS_FALLBACK", "PYTORCH_ALLOC_CONF"),
    *("PYTORCH_CUDA_ALLOC_CONF", "TORCH_HOME", "TF_CPP_", "TF_GPU_ALLOCATOR", "JAX_PLATFORM"),
    *("JAX_COMPILATION_CACHE_DIR", "XLA_PYTHON_CLIENT_", *SHARED_GPU),
)
CGROUPS = Path("/sys/fs/cgroup")
DEVICES = Path("/dev")
# What Keras imports where it is installed, for wrappers that nothing here uses: a third of the
# processor time of its own import on torch, and 80 to 180 MB.
WRAPPED_BY_KERAS = ("jax", "matplotlib.pyplot", "sklearn")
SECONDS_TO_LOOK = 0.2  # for what else is running: 20 of the kernel's ticks
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def describe() -> dict[str, object]:
    """What is in use in this process; every result records it. Imports keras.

    Returns:
        `backend`, `device` (`cpu`, or the accelerator's name), `versions` of what computes,
        `python`, `platform`, `processor`, `cores` and `threads` (None: the backend's default).
    """
    import keras

    backend = keras.backend.backend()
    packages = ("keras_cnn", "keras", "numpy", backend, *(("jaxlib",) if backend == "jax" else ()))
    threads = os.environ.get("OMP_NUM_THREADS", "")  # OpenMP takes lists, too: 4,2
    return {
        "backend": backend,
        "device": _device(backend),
        "versions": {name: version(name) for name in packages},
        **machine(),
        "threads": int(threads) if threads.isdecimal() else None,
    }


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


def find_own_modules() -> None:
    """Lets modules of the user's own be imported from the current folder, after all installed."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def own_module(name: str) -> ModuleType:
    """Imports a module of the user's own.

    Raises:
        UserError: There is none of this name, or its code ends in an error.
    """
    find_own_modules()
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"cannot import {name!r}: it is no name of a module")
    try:
        return importlib.import_module(name)
    except Exception as error:  # users' code may raise anything
        raise UserError(f"cannot import {name!r} ({type(error).__name__}: {error})") from error


def version(package: str) -> str:
    """The installed version of a package, or of its build for processors; or `unknown`."""
    for name in (package, f"{package}-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    module = sys.modules.get(package)  # run from a checkout that is not installed
    return getattr(module, "__version__", "unknown")


def machine() -> dict[str, object]:
    """`python`, `platform`, `processor` and `cores`, found without importing a framework."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
    }


def cores() -> int:
    """Processor cores this process may use: those it is bound to, and no more than its container's.

    Of a limit in parts of a core the whole ones count: more threads than that are stopped in turns.
    """
    return max(1, min(len(allowed_cores()), int(min(_core_limit(CGROUPS), 1024))))


def free_cores() -> int:
    """Those of `cores` that nothing else keeps busy just now, at least 1; looks for 0.2 s on Linux.

    More threads than that would wait for each other, spinning, and take many times as long.
    """
    statistics = Path("/proc/stat")
    if not statistics.is_file():
        return cores()
    before = statistics.read_text()
    time.sleep(SECONDS_TO_LOOK)
    free = len(allowed_cores()) - round(busy_cores(before, statistics.read_text(), allowed_cores()))
    return max(1, min(cores(), free))


def busy_cores(before: str, after: str, numbers: Collection[int]) -> float:
    """How many of some cores were busy between two states of Linux's /proc/stat.

    Args:
        before: The file's text.
        after: Likewise, later.
        numbers: The cores' numbers.
    """

    def times(text: str) -> dict[str, list[int]]:
        rows = (line.split() for line in text.splitlines() if re.match(r"cpu\d", line))
        return {name: list(map(int, times[:8])) for name, *times in rows}  # in 1/100 s

    busy, earlier, later = 0.0, times(before), times(after)
    for name in {f"cpu{number}" for number in numbers} & earlier.keys() & later.keys():
        spent = [new - old for old, new in zip(earlier[name], later[name], strict=True)]
        if total := sum(spent):
            busy += 1 - sum(spent[3:5]) / total  # idle, and waiting for a disk
    return busy


def allowed_cores() -> set[int]:
    """The numbers of the cores this process is bound to."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core_limit(root: Path, membership: Path = Path("/proc/self/cgroup")) -> float:
    """How many cores' time Linux grants the control groups of this process; infinite: all."""
    limit = math.inf
    for line in membership.read_text().splitlines() if membership.is_file() else []:
        _, controllers, path = line.split(":", 2)
        top = root / ("cpu" if "cpu" in controllers.split(",") else "")
        if controllers and top == root:
            continue  # of the first version, and not about processors
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):  # in a container the path may be the host's
            if folder.is_relative_to(top):
                limit = min(limit, _quota(folder))
    return limit


def _quota(group: Path) -> float:
    """Cores' time of one control group: quota by period, as either version of them tells it."""
    names = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    for files in names:
        with contextlib.suppress(OSError, ValueError):  # not there, or `max`: no limit
            quota, period = map(int, " ".join((group / name).read_text() for name in files).split())
            return quota / period if quota > 0 < period else math.inf
    return math.inf


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, found without importing a framework.

    Returns:
        What CUDA_VISIBLE_DEVICES calls each of them: a number, or a name.
    """
    numbers = (path.name.removeprefix("nvidia") for path in DEVICES.glob("nvidia[0-9]*"))
    there = [number for number in numbers if number.isdecimal()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not there or visible is None:
        return [str(number) for number in range(len(there))]
    names = [name.strip() for name in visible.split(",")]
    hidden = next((n for n, name in enumerate(names) if name in ("", "-1")), None)
    return names[:hidden]  # CUDA sees none from the first wrong one on


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is visible, found without importing a framework."""
    return bool(gpus())


def settled(backend: str, threads: int | None = None) -> dict[str, str]:
    """The environment of a process in which nothing that was set outside decides a number.

    Libraries read it when they are imported: it has to be set before. Keras's configuration file
    is the package's own, `keras.json` beside this module.

    Args:
        backend: `torch`, `tensorflow` or `jax`.
        threads: Threads that it computes with; None leaves them as they are.
    """
    variables = {
        name: value
        for name, value in os.environ.items()
        if name.startswith((*HARMLESS, *THREADS)) or not name.startswith(DECISIVE)
    }
    variables = SHARED_GPU | variables
    variables |= {"KERAS_BACKEND": backend, "KERAS_HOME": str(Path(__file__).parent)}
    variables |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
    flags = []
    if has_gpu():
        flags.append("--xla_gpu_deterministic_ops=true")  # sums in the same order each time
    if threads is not None:
        names = (*THREADS, "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")
        variables |= dict.fromkeys(names, str(threads))  # NPROC: JAX's
        if threads == 1:
            flags.append("--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    if flags:
        variables["XLA_FLAGS"] = " ".join(flags)
    return variables


def of_child(backend: str, threads: int) -> dict[str, str]:
    """As `settled`, for a process that imports this very package, also if it is not installed."""
    return settled(backend, threads) | import_path()


def import_path() -> dict[str, str]:
    """The variable by which another Python finds this very package, also if it is not installed."""
    here, inherited = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([here, inherited] if inherited else [here])}


def settle(backend: str) -> None:
    """Makes this process such a one; where Keras is imported, it is too late and left alone."""
    if "keras" not in sys.modules:
        variables = settled(backend)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        spare_wrapped(backend)
        if backend == "tensorflow":
            _start_tensorflow()


def spare_wrapped(backend: str) -> None:
    """Lets Keras, when this process imports it, leave out the packages that it wraps for others.

    They can be imported afterwards; Keras's own wrappers of them stay unusable in this process.
    """
    if "keras" not in sys.modules and not any(isinstance(f, _KerasFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder(backend))


class _KerasFinder(MetaPathFinder):
    """Finds Keras alone, as the other finders do, and hides what it wraps while it is loaded."""

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Answers for `keras` once."""
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_alone(module: ModuleType) -> None:
                needed = {*sys.modules, self._backend}
                hidden = [name for name in WRAPPED_BY_KERAS if name not in needed]
                sys.modules.update(dict.fromkeys(hidden))  # as packages that are not installed
                try:
                    load(module)
                finally:
                    for name in hidden:
                        del sys.modules[name]

            spec.loader.exec_module = load_alone
        return spec


def _start_tensorflow() -> None:
    """Imports it without its greetings, which no setting of its own turns off."""
    sys.stderr.flush()
    shown = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow

        tensorflow.config.list_logical_devices()  # it greets a second time here
    finally:
        os.dup2(shown, 2)
        os.close(shown)


def check_keras() -> None:
    """Refuses a process in which Keras was set to what methods and networks are not made for.

    Raises:
        UserError: Its float type, data format or epsilon is not as it comes, or `fit` is cut short.
    """
    from keras import config

    for name, wanted in (
        ("floatx", "float32"),
        ("image_data_format", "channels_last"),
        ("epsilon", 1e-7),
        ("max_epochs", None),
        ("max_steps_per_epoch", None),
    ):
        value = getattr(config, name)()
        if value != wanted:
            raise UserError(
                f"Keras's {name} is {value!r} (from keras.json, a variable or a call): "
                f"{wanted!r} is needed, keras.config.set_{name}({wanted!r}) sets it"
            )


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
        torch.backends.cudnn.allow_tf32 = False  # products of float32 in float32, as elsewhere
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


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()
