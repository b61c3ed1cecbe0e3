"""What is set outside of the package decides no result."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_cnn import environment, methods, models
from keras_cnn.errors import UserError
from keras_cnn.plots import canvas

DECISIVE = {
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_NNX_ENABLED": "1",
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "MKL_CBWR": "COMPATIBLE",
}
HARMLESS = {
    "KERAS_CNN_HOME": "somewhere",
    "KERAS_TORCH_DEVICE": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": ".5",
    "SOMETHING_ELSE": "1",
}


@pytest.fixture
def set_outside(tmp_path, monkeypatch):
    for name, value in (DECISIVE | HARMLESS).items():
        monkeypatch.setenv(name, value)
    settings = {"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.1}
    (tmp_path / "keras.json").write_text(json.dumps({**settings, "backend": "jax"}))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


def test_tensorflow_starts_without_its_greetings(tmp_path):
    """One made up: it writes as the real one does, past Python, at its import and to a device."""
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'oneDNN is on')\nclass config:\n"
        "    list_logical_devices = staticmethod(lambda: os.write(2, b'rebuild TensorFlow'))\n"
    )
    code = "import sys; sys.path[:0] = sys.argv[1:]; from keras_cnn.environment import settle; "
    code += "settle('tensorflow'); print('at work', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"at work\n")


def test_variables_that_decide_numbers_reach_no_process_of_ours(set_outside, monkeypatch):
    variables = environment.settled("torch", 3)
    assert not {name: variables.get(name) for name in DECISIVE}.items() & DECISIVE.items()
    assert HARMLESS.items() <= variables.items()
    assert variables["OMP_NUM_THREADS"] == variables["TF_NUM_INTRAOP_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment.settled("torch")["OMP_NUM_THREADS"] == "5", "unless it says how many"


def test_keras_is_as_it_comes_whatever_the_users_file_says(set_outside):
    code = (
        "from keras_cnn import environment; environment.settle('torch'); from keras import config; "
        "print(config.floatx(), config.image_data_format(), config.epsilon(), config.backend(), "
        "config.max_epochs())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["float32", "channels_last", "1e-07", "torch", "None"]


def test_pictures_do_not_follow_the_users_style(tmp_path):
    def drawn(name):
        def draw():
            figure = Figure(figsize=(1, 1))
            figure.add_subplot().set_title("title")
            return figure

        canvas.save(draw, tmp_path / name)
        return (tmp_path / name).read_bytes()

    before = drawn("before.png")
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "font.size": 30}):
        assert drawn("after.png") == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("floatx", "float16"),
        ("image_data_format", "channels_first"),
        ("epsilon", 1e-3),
        ("max_epochs", 1),
        ("max_steps_per_epoch", 1),
    ],
)
def test_a_process_where_keras_is_set_otherwise_is_refused_in_one_line(name, value):
    network = models.classifier("baseline", 2, image_size=8, hidden_units=2)
    split = np.zeros((2, 8, 8, 3), np.uint8), np.arange(2)
    before = getattr(keras.config, name)()
    getattr(keras.config, f"set_{name}")(value)
    try:
        with pytest.raises(UserError, match=f"Keras's {name} is .*keras.config.set_{name}"):
            models.classifier("baseline", 2, image_size=8, hidden_units=2)
        with pytest.raises(UserError, match=f"Keras's {name} is"):
            methods.nearest_mean.train(network, split, split)
    finally:
        getattr(keras.config, f"set_{name}")(before)


def test_float32_is_float32_on_every_device():
    torch = pytest.importorskip("torch")
    environment.seed_everything(0)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


STAT = """cpu  1300 10 500 9000 90 0 0 0 0 0
cpu0 {} 10 400 {} 50 1 2 3 0 0
cpu1 300 0 100 {} 40 0 0 {} 0 0
cpu10 {} 0 0 {} 0 0 0 0 0 0
intr 1
"""


def test_busy_cores_are_those_that_were_not_idle():
    before = STAT.format(1000, 5000, 4000, 0, 0, 0)
    after = STAT.format(1020, 5000, 4015, 5, 4, 16)  # busy all the time, a quarter, a fifth
    assert environment.busy_cores(before, after, {0, 1, 10}) == pytest.approx(1.45)
    assert environment.busy_cores(before, after, {1}) == pytest.approx(0.25)
    assert environment.busy_cores(before, before, {0, 1, 10}) == 0  # no tick yet
    assert environment.busy_cores(before, after, {7}) == 0


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="Linux's")
def test_a_core_that_a_process_keeps_busy_is_not_free(monkeypatch):
    monkeypatch.undo()  # of the fixture that takes the machine for idle
    (core, *_) = os.sched_getaffinity(0)
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(1, flush=True)\nwhile True: 1"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as busy:
        busy.stdout.readline()
        free = environment.free_cores()
        busy.kill()
    assert 1 <= free <= max(1, environment.cores() - 1)


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/of/the/host\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/gone\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "\n"}, math.inf),
        (
            "9:pids:/x\n4:cpu,cpuacct:/x\n0::/\n",
            {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
    ],
)
def test_a_containers_share_of_the_processor_bounds_the_cores(
    membership, files, limit, tmp_path, monkeypatch
):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    found = environment._core_limit(tmp_path / "cgroup", tmp_path / "membership")
    assert found == limit
    monkeypatch.setattr(environment, "_core_limit", lambda root: found)
    assert environment.cores() == max(1, min(len(os.sched_getaffinity(0)), int(min(limit, 99))))


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_is_imported_without_what_it_wraps_and_nobody_else_misses_it(backend):
    code = (
        "import sys\n"
        "from keras_cnn import environment\n"
        f"environment.settle({backend!r})\n"
        "import keras\n"
        "wrapped = ('jax', 'sklearn', 'matplotlib.pyplot')\n"
        "print(*(name for name in wrapped if name in sys.modules))\n"
        "import sklearn.linear_model, matplotlib.pyplot\n"
        "assert sklearn.linear_model.LogisticRegression and matplotlib.pyplot.figure\n"
        "assert keras.ops.convert_to_numpy(keras.ops.ones(2)).sum() == 2\n"
        "assert keras.Sequential([keras.layers.Dense(2)])(keras.ops.ones((1, 3))).shape == (1, 2)\n"
        "print(keras.backend.backend())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["jax" if backend == "jax" else "", backend]
