"""Runs on Ray, without it: a package of its name stands in. `ray_cluster.py` tries the real one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from test_engine import a_job, is_alive, kinds, wait_until

from keras_cnn.errors import UserError
from keras_cnn.recipe import resources
from keras_cnn.runs import engine
from keras_cnn.runs.executors import cluster, executor, ray, ray_driver
from keras_cnn.runs.executors.cluster import Gone, Remote
from keras_cnn.runs.executors.ray import RayCluster

# As much of Ray as is asked for: how a task ends is told by the name of its folder, and each call
# is noted in the file `calls`. It greets, as Ray does; `head` ends the process, once, as Ray does;
# `another head` is one that knows nothing of this node.
RAY = """
import json, os, pathlib, types
HERE, NODE = pathlib.Path(__file__).parent, "here"
class RayError(Exception): pass
class TaskCancelledError(RayError): pass
class OutOfMemoryError(RayError): pass
class NodeDiedError(RayError): pass
class WorkerCrashedError(RayError): pass
class OtherError(RayError): pass
class RayTaskError(RayError):
    cause = RuntimeError("its process was killed by signal 9")
exceptions = types.SimpleNamespace(**{k: v for k, v in globals().items() if k.endswith("Error")})
ENDS = {"memory": OutOfMemoryError("long words"), "node": NodeDiedError("long words"),
    "worker": WorkerCrashedError(), "process": RayTaskError(), "other": OtherError("a\\nb")}
def note(**call):
    with (HERE.parent / "calls").open("a") as file:
        file.write(json.dumps(call) + "\\n")
def init(address, **settings):
    if address.endswith(":1"):
        raise ConnectionError("no raylet\\non this machine")
    print("Welcome to Ray")
    note(init=address, log_to_driver=settings["log_to_driver"])
    return types.SimpleNamespace(address_info={"gcs_address": os.environ["HEAD"]})
class Function:
    def __init__(self, function, **options):
        self.function, self.wants = function, options
    def options(self, **options):
        return Function(self.function, **options)
    def remote(self, folder, *more):
        note(send=pathlib.Path(folder).name, **self.wants)
        return folder
remote = Function
def get_runtime_context():
    return types.SimpleNamespace(get_node_id=lambda: "here")
def nodes():
    return [{"Alive": True, "NodeID": NODE, "Resources": {"CPU": 2.0, "memory": 4e9}},
        {"Alive": False, "NodeID": "gone", "Resources": {"CPU": 64.0, "GPU": 8.0}}]
def wait(tasks, num_returns, timeout):
    assert num_returns == len(tasks) and timeout == 0
    mark = HERE.parent / "head_went"
    if any(task.endswith("/head") for task in tasks) and not mark.exists():
        mark.touch()
        os._exit(1)
    if any(task.endswith("another head") for task in tasks) and not mark.exists():
        mark.touch()
        global NODE
        NODE = "another's"
        return [], tasks
    return [task for task in tasks if not task.endswith("waits")], []
def get(task):
    name = task.rpartition("/")[2]
    if name.endswith("head"):
        make(task)
    if name in ENDS:
        raise ENDS[name]
def make(task):
    folder = pathlib.Path(task)
    pathlib.Path(json.loads((folder / "task.json").read_text())["folder"]).mkdir()
    (folder / "end.json").write_text('{"kind": "done", "error": ""}')
def cancel(task, force):
    note(cancel=task.rpartition("/")[2], force=force)
def shutdown():
    note(shutdown=True)
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Reads what the stand-in was asked; a head that listens stands at HEAD."""
    (tmp_path / "stand_in" / "ray").mkdir(parents=True)
    (tmp_path / "stand_in" / "ray" / "__init__.py").write_text(RAY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stand_in"))
    file = tmp_path / "stand_in" / "calls"
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("HEAD", f"127.0.0.1:{head.getsockname()[1]}")
        yield lambda: [json.loads(line) for line in file.read_text().splitlines()]


def opened(**settings):
    found = RayCluster(resources.Ray(address=os.environ["HEAD"], **settings))
    found.open()
    return found


def folders(tmp_path, *names, **task):
    made = [tmp_path / name for name in names]
    for folder in made:
        folder.mkdir()
        (folder / "task.json").write_text(json.dumps(task or {"run": {"spec": {"threads": 2}}}))
    return made


def test_tasks_ask_for_what_a_run_is_given(calls, tmp_path, caplog, capfd):
    found = opened(gpus=0.5, gigabytes=8, cores=4)
    try:
        found.send(folders(tmp_path, "waits"))
        found.send(folders(tmp_path, "teach", command=["teach", "folder"]))
    finally:
        found.close()
    first, sent, command, last = calls()
    assert first["log_to_driver"] is False and last == {"shutdown": True}
    assert sent == {"send": "waits", "name": "keras_cnn waits", "max_retries": 2} | {
        "retry_exceptions": False, "num_cpus": 2, "num_gpus": 0.5, "memory": 8_000_000_000
    }  # fmt: skip
    assert command["num_cpus"] == 4
    said, _ = caplog.messages
    assert "has memory=8e+09, num_gpus=0.5: runs wait" in said
    assert capfd.readouterr() == ("", ""), "Ray's words are not the command's"


def test_what_ended_a_task_is_told_in_a_few_words(calls, tmp_path):
    found = opened()
    names = ["memory", "node", "worker", "process", "other", "ended", "waits", "cancelled waits"]
    try:
        tickets = dict(zip(found.send(folders(tmp_path, *names)), names, strict=True))
        assert found.gone(["of another command"]).popitem()[1].again
        found.cancel([ticket for ticket in tickets if "cancelled" in tickets[ticket]])
        gone = {tickets[ticket]: why for ticket, why in found.gone([*tickets]).items()}
    finally:
        found.close()
    assert not gone["memory"].again and "out of memory" in gone.pop("memory").why
    assert gone == {
        "node": Gone("its node died"),
        "worker": Gone("its worker died"),
        "process": Gone("its process was killed by signal 9"),
        "other": Gone("OtherError: a"),
        "ended": Gone("its task ended"),
    }
    assert {"cancel": "cancelled waits", "force": True} in calls()


def test_a_cancelled_task_is_not_worth_another_try():
    class Rays:
        exceptions = None

        def nodes(self):
            return [{"Alive": True, "NodeID": ""}]

        def wait(self, tasks, **_):
            return tasks, []

        def cancel(self, task, force):
            assert force

    driver = ray_driver.Driver(Rays())
    driver._tasks = {"1": "task"}
    driver.answer({"number": 1, "cancel": ["1", "unknown"]})
    assert driver.answer({"number": 2, "gone": ["1"]}) == {"gone": {"1": ("cancelled", False)}}


@pytest.mark.parametrize("row", ["head", "another head"])
def test_a_head_that_goes_and_comes_back_has_its_runs_sent_again(calls, tmp_path, monkeypatch, row):
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_QUESTIONS", 0.1)
    monkeypatch.setattr(cluster, "SECONDS_TO_APPEAR", 0.1)
    events, job = [], a_job(tmp_path / "out", row)
    where = resources.Ray(address=os.environ["HEAD"])
    assert not engine.execute([job], executor(where, [job], 1), events.append)
    assert kinds(events, row) == ["lost", "done"]
    assert [name for call in calls() for name in ("init", "send") if name in call] == [
        *("init", "send"), *("init", "send")
    ]  # fmt: skip


def test_a_head_that_stays_away_ends_the_command_with_a_line(calls, tmp_path, monkeypatch):
    found = opened()
    (ticket,) = found.send(folders(tmp_path, "head"))
    monkeypatch.setattr(ray, "SECONDS_TO_RECONNECT", 0.2)
    monkeypatch.setattr(ray, "SECONDS_BETWEEN_TRIES", 0.05)
    monkeypatch.setattr(found, "_address", "127.0.0.1:9")
    assert found.gone([ticket]) == {}, "nothing is known of it"
    with pytest.raises(UserError, match=r"refused.*finished runs are kept, the same command"):
        found.send(folders(tmp_path, "more"))
    found.cancel([ticket])
    found.close()


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("127.0.0.1:9", r"no Ray cluster answers at 127.0.0.1:9 \(connection refused\)"),
        ("head", "an address is HOST:PORT"),
        ("ray://head:10001", "an address is HOST:PORT"),
    ],
)
def test_an_address_where_no_cluster_is_gets_one_line(address, line):
    with pytest.raises(UserError, match=line):
        RayCluster(resources.Ray(address=address)).open()


def test_what_ray_says_of_a_connection_is_told(calls, monkeypatch):
    monkeypatch.setattr(ray, "_check_answers", lambda address: None)
    found = RayCluster(resources.Ray(address="127.0.0.1:1"))
    with pytest.raises(UserError, match=r"cluster at 127\.0\.0\.1:1: no raylet$"):
        found.open()


def test_without_ray_its_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"):
        RayCluster(resources.Ray()).open()


def test_at_most_so_many_are_with_the_cluster(tmp_path):
    jobs = [a_job(tmp_path, str(number)) for number in range(5)]
    found = executor(resources.Ray(), jobs, 2)
    assert isinstance(found, Remote) and found.slots == 2


def test_a_dry_run_tells_what_would_be_submitted(tmp_path):
    job = a_job(tmp_path, "4")
    specs = [job.run.spec, job.run.spec, job.run.with_spec(threads=4).spec]
    text = ray.submission(resources.Ray(address="head:6379", gpus=0.5, gigabytes=2), specs, 2)
    assert text.splitlines() == [
        "Tasks of the Ray cluster at head:6379, at most 2 at a time:",
        "  2 with num_cpus=1, num_gpus=0.5, memory=2e+09",
        "  1 with num_cpus=4, num_gpus=0.5, memory=2e+09",
        "  python -m keras_cnn.runs.remote FOLDER",
    ]


# --- the task itself, as a node does it --------------------------------------------------------


def replace_remote(tmp_path, code):
    """A package in the place of ours, as if on the shared disk, with another `remote`."""
    (tmp_path / "shared" / "keras_cnn" / "runs").mkdir(parents=True)
    for folder in ("keras_cnn", "keras_cnn/runs"):
        (tmp_path / "shared" / folder / "__init__.py").touch()
    (tmp_path / "shared" / "keras_cnn" / "runs" / "remote.py").write_text(code)
    return str(tmp_path / "shared")


def test_a_task_starts_the_process_where_the_command_was_given(tmp_path, monkeypatch):
    path = replace_remote(
        tmp_path,
        "import os, pathlib, sys\n"
        "words = sys.argv[1:], os.environ['CUDA_VISIBLE_DEVICES'], os.getcwd()\n"
        "pathlib.Path(sys.argv[1], 'words').write_text(repr(words))\n",
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # by Ray
    for has_gpu, seen in ((True, "3"), (False, "")):
        ray_driver.make(str(tmp_path), str(tmp_path), path, has_gpu)
        words = [str(tmp_path), "--with-parent"], seen, str(tmp_path)
        assert (tmp_path / "words").read_text() == repr(words)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise OSError('no such disk')", "ended with exit code 1: OSError: no such disk"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    ],
)
def test_a_task_whose_process_fails_says_why(tmp_path, code, why):
    path = replace_remote(tmp_path, code)
    with pytest.raises(RuntimeError, match=why):
        ray_driver.make(str(tmp_path), str(tmp_path), path, False)
    (tmp_path / "end.json").touch()
    ray_driver.make(str(tmp_path), str(tmp_path), path, False)  # has been done before


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs signals")
def test_a_worker_that_is_killed_takes_the_run_along(tmp_path):
    """The real `remote`, with a process in place of a run that ends as it does."""
    job = a_job(tmp_path / "out", "4")
    folder = cluster.folder_of(job)
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps(job.task()))
    (tmp_path / "run.py").write_text(
        "import os, pathlib, sys\nsys.stdin.readline()\n"
        f"pathlib.Path({str(tmp_path)!r}, 'pids').write_text(f'{{os.getppid()}} {{os.getpid()}}')\n"
        "sys.stdin.read()\n"
    )
    worker = textwrap.dedent(f"""
        import sys
        from keras_cnn.runs.executors import ray_driver
        ray_driver.make({str(folder)!r}, {str(tmp_path)!r}, {str(tmp_path)!r}, False)
    """)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'keras_cnn.runs.remote' in sys.orig_argv:\n"
        "    from keras_cnn.runs import child\n"
        f"    child.COMMAND = sys.executable, '-I', '-S', {str(tmp_path / 'run.py')!r}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", worker], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "pids").is_file() and (tmp_path / "pids").read_text())
        numbers = (tmp_path / "pids").read_text().split()
        assert all(is_alive(number) for number in numbers)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not any(is_alive(number) for number in numbers))
    assert not (folder / "end.json").exists(), "its end is not that of the run"
