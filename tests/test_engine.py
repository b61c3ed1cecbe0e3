from __future__ import annotations

import dataclasses
import os
import platform
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from keras_cnn import environment, recipe
from keras_cnn.__main__ import main
from keras_cnn.recipe import resolve
from keras_cnn.results import store
from keras_cnn.runs import child, engine, publish, status, study
from keras_cnn.runs.executors import local
from keras_cnn.runs.executors.local import Local
from keras_cnn.runs.jobs import Event, Job

# Stands in for `python -m keras_cnn.runs.worker`, speaks its protocol, imports no package of ours:
# what it does is told by the row's name. It notes when it began and ended beside the folder.
FAKE = """
import json, os, pathlib, signal, sys, time
job = json.loads(sys.stdin.readline())
folder = pathlib.Path(job["folder"])
name = job["run"]["place"]["row"].split("-")[0]
note = folder.parent / f"{folder.name}.{time.time_ns()}"
pathlib.Path(job["scratch"], "left.png").touch()
note.write_text(f"{os.getpid()} {time.monotonic()}")
def epoch(number):
    print(json.dumps({"epoch": number, "train_accuracy": 0.5, "test_accuracy": 0.5}), flush=True)
if name == "busy" and not job["wait"]:
    sys.exit(75)
epoch(1)
if name == "noise":
    print("a library says hello", flush=True)
    print('{"epoch": 2, "train_ac', flush=True)
    print("[1]", "null", '"text"', '{"level": "info"}', sep="\\n", flush=True)
    sys.stdout.buffer.write(b"\\xff\\xfe\\n")
    epoch(2)
if name == "sleep":
    time.sleep(60)
if name == "fail":
    print("what went wrong, at length", file=sys.stderr)
    print(json.dumps({"error": "it cannot \\x1b[31mbe done"}), flush=True)
    sys.exit(1)
if name == "exit":
    sys.exit("no more memory")
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.2)
folder.mkdir()
note.write_text(note.read_text() + f" {time.monotonic()}")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    replace_child(monkeypatch, sys.executable, "-I", "-S", str(script))
    yield
    assert not list((tmp_path / "temporary").iterdir()), "however a process ends"


def locally(jobs, slots, notify=lambda event: None):
    """The failed events of jobs that are run on this machine."""
    return engine.execute(jobs, Local(jobs, slots), notify)


def replace_child(monkeypatch, *command):
    """Starts another process in place of the worker."""
    monkeypatch.setattr(child, "COMMAND", command)
    monkeypatch.setattr(local, "can_fork", lambda spec: False)


def a_job(folder, row):
    run = resolve.runs(recipe.read("fewshot_convnext"), "mini", ["4"], "corrected", 1)[0]
    return Job(run.model_copy(update={"place": named(run.place, row)}), folder / row)


def named(place, row):
    return place.model_copy(update={"row": row})


def on_jax(job):
    spec = job.run.spec.model_copy(update={"backend": "jax"})
    return dataclasses.replace(job, run=job.run.model_copy(update={"spec": spec}))


def executed(folder, rows, parallel=2, notify=None):
    """All events, and the failed ones, of jobs named by what they do."""
    events = []

    def note(event):
        events.append(event)
        if notify:
            notify(event)

    failed = locally([a_job(folder, row) for row in rows], parallel, note)
    return events, failed


def spans(folder):
    """Process id, beginning and end of each fake job that ended well."""
    words = [path.read_text().split() for path in folder.glob("*.[0-9]*")]
    return [(int(one[0]), float(one[1]), float(one[2])) for one in words if len(one) == 3]


def kinds(events, row):
    return [event.kind for event in events if event.job.run.place.row == row]


def is_alive(pid):
    """Whether a process runs; a dead one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("parallel", [1, 3])
def test_so_many_run_at_a_time_and_no_more(fake, tmp_path, parallel):
    rows = [f"ok-{n}" for n in range(6)]
    events, failed = executed(tmp_path, rows, parallel)
    assert not failed
    for row in rows:
        assert kinds(events, row) == ["started", "epoch", "done"]
    ran = spans(tmp_path)
    assert len({pid for pid, *_ in ran}) == 6, "each has a process of its own"
    most = max(sum(a <= moment < b for _, a, b in ran) for _, moment, _ in ran)
    assert most == parallel


def test_failure_death_and_exit_are_told_apart_and_leave_the_others(fake, tmp_path):
    events, failed = executed(tmp_path, ["fail", "killed", "exit", "ok-1", "ok-2"])
    errors = {event.job.run.place.row: event for event in failed}
    assert set(errors) == {"fail", "killed", "exit"}
    assert errors["fail"].error == r"it cannot \x1b[31mbe done", "nothing steers the terminal"
    assert "at length" in errors["fail"].log
    assert errors["killed"].error.startswith("killed by signal 9")
    assert errors["exit"].error == "exit code 1: no more memory"
    for row in ("ok-1", "ok-2"):
        assert kinds(events, row)[-1] == "done" and (tmp_path / row).is_dir()


def test_a_job_that_another_process_holds_goes_to_the_end_of_the_line(fake, tmp_path):
    events, failed = executed(tmp_path, ["busy", "ok-1"], parallel=1)
    assert not failed
    assert kinds(events, "busy") == ["started", "busy", "started", "epoch", "done"]
    order = [(event.job.run.place.row, event.kind) for event in events]
    assert order.index(("ok-1", "done")) < order.index(("busy", "done")), "others go before"


def test_noise_on_standard_output_does_not_break_the_protocol(fake, tmp_path):
    events, failed = executed(tmp_path, ["noise"])
    assert not failed
    assert [event.record["epoch"] for event in events if event.kind == "epoch"] == [1, 2]
    assert events[-1].kind == "done"


def test_an_interrupt_ends_the_processes(fake, tmp_path):
    seen = []

    def interrupt(event):
        seen.append(event.kind)
        if seen.count("epoch") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executed(tmp_path, ["sleep-1", "sleep-2", "ok"], notify=interrupt)
    pids = [int(path.read_text().split()[0]) for path in tmp_path.glob("sleep*.[0-9]*")]
    assert len(pids) == 2 and not any(is_alive(pid) for pid in pids)
    assert not list(tmp_path.glob("ok*")), "none was begun after it"


def test_a_process_that_never_reads_its_job_is_one_that_failed(monkeypatch, tmp_path):
    """What could not be written to it is written again as its input is closed."""
    replace_child(monkeypatch, "/bin/false")
    for _ in range(20):
        _, failed = executed(tmp_path, ["gone-1", "gone-2"])
        assert [event.error for event in failed] == ["exit code 1: no message"] * 2


# The real child process, with its work replaced: what `main` promises is looked at.
REAL = """
import os, pathlib, sys, tempfile, time
from keras_cnn.runs import worker
def note(folder):
    left = pathlib.Path(tempfile.mkdtemp()) / "left.png"
    left.touch()
    (folder / "pid").write_text(f"{os.getpid()} {left}")
def work(run, folder, report, fresh, wait):
    note(folder.parent)
    print("a greeting from Python; plain:", os.environ["KERAS_CNN_PLAIN"], flush=True)
    os.write(1, b"a greeting from C\\n")
    report({"epoch": 1})
    if run.place.row == "sleep":
        time.sleep(60)
    if run.place.row == "interrupted":
        os.kill(os.getpid(), 2)
        time.sleep(0.1)
    if run.place.row == "fail":
        raise RuntimeError("first line\\nsecond line")
def fit(spec):
    note(pathlib.Path(spec.network.weights).parent)
    time.sleep(60)
worker.make, worker.fit_weights = work, fit
os._exit(worker.main())
"""


def test_the_real_process_reports_apart_from_what_libraries_print(tmp_path, monkeypatch):
    replace_child(monkeypatch, sys.executable, "-c", REAL)
    events, failed = executed(tmp_path, ["fail", "interrupted"])
    assert kinds(events, "interrupted") == [
        "started",
        "epoch",
        "spent",
        "done",
    ]  # the parent decides
    assert [event.error for event in failed] == ["RuntimeError: first line"]
    for words in ("greeting from Python; plain: 0", "greeting from C", "Traceback", "second line"):
        assert words in failed[0].log


def test_the_real_process_says_which_backend_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['jax'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (failed,) = locally([on_jax(a_job(tmp_path, "4"))], 1)
    assert failed.error == "backend jax is not installed: pip install jax"


def test_the_real_process_refuses_a_folder_that_is_not_the_runs_own(tmp_path):
    job = a_job(tmp_path, "4")
    failed = locally([job], 1)
    assert "start again" in failed[0].error and not job.folder.exists()


def test_the_real_process_waits_the_second_time_for_one_that_holds_the_run(tmp_path):
    job = a_job(tmp_path, "4")
    job.folder.mkdir()  # done by the time it is free
    holding = store.held(job.folder)
    holding.__enter__()
    released = []

    def release():
        released.append(time.monotonic())
        holding.__exit__(None, None, None)

    seen = []

    def note(event):
        seen.append((event.kind, time.monotonic()))
        if event.kind == "busy":
            threading.Timer(2.0, release).start()

    assert locally([job], 1, note) == []
    assert [kind for kind, _ in seen] == ["started", "busy", "started", "spent", "done"]
    assert seen[-1][1] > released[0]


class Elsewhere:
    """An executor whose jobs end as it is told, by row, one end after another."""

    def __init__(self, slots, **ends):
        self.slots, self.ends = slots, {row: list(kinds) for row, kinds in ends.items()}
        self.running, self.most, self.left = [], 0, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.left = True

    def submit(self, job):
        self.running.append(job)
        self.most = max(self.most, len(self.running))

    def next_event(self):
        job = self.running.pop()
        return Event(job, self.ends[job.run.place.row].pop(0), error="its node failed")


def test_a_lost_job_is_tried_again_twice_and_then_has_failed(tmp_path):
    executor = Elsewhere(2, a=["lost", "lost", "done"], b=["lost"] * 3, c=["done"], d=["failed"])
    events = []
    jobs = [a_job(tmp_path, row) for row in "abcd"]
    failed = engine.execute(jobs, executor, events.append)
    assert {event.job.run.place.row: event.error for event in failed} == {
        "b": "its node failed, 3 times",
        "d": "its node failed",
    }
    assert kinds(events, "a") == ["lost", "lost", "done"] and kinds(events, "c") == ["done"]
    assert kinds(events, "b") == ["lost", "lost", "failed"]
    assert executor.most == 2 and executor.left and not any(executor.ends.values())


def test_runs_are_shared_out_to_the_gpus_and_each_sees_one(tmp_path, monkeypatch):
    """A process that notes what it sees stands in for the devices."""
    code = (
        "import json, os, pathlib, sys, time; job = json.loads(sys.stdin.readline()); "
        "folder = pathlib.Path(job['folder']); began = time.monotonic(); time.sleep(0.3); "
        "note = folder.parent / f'{folder.name}.note'; "
        "note.write_text(f\"{os.environ['CUDA_VISIBLE_DEVICES']} {began} {time.monotonic()}\")"
    )
    replace_child(monkeypatch, sys.executable, "-c", code)
    jobs = [a_job(tmp_path, str(number)) for number in range(8)]
    devices = ["0", "GPU-5e9d"]
    assert not engine.execute(jobs, Local(jobs, 4, devices), lambda event: None)
    spans = {device: [] for device in devices}
    for path in tmp_path.glob("*.note"):
        device, *times = path.read_text().split()
        spans[device].append(tuple(map(float, times)))
    for found in spans.values():
        assert len(found) == 4
        assert max(sum(a <= begin < b for a, b in found) for begin, _ in found) == 2  # at a time


@pytest.mark.parametrize(
    ("visible", "found"),
    [(None, "0 1 2"), ("1", "1"), ("2,0", "2 0"), ("", ""), ("-1", ""), ("0,-1,2", "0")],
)
def test_gpus_are_those_that_cuda_will_see(tmp_path, monkeypatch, visible, found):
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia0-old", "nvidiactl"):
        (tmp_path / name).touch()
    monkeypatch.setattr(environment, "DEVICES", tmp_path)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert environment.gpus() == found.split()


@pytest.mark.parametrize(
    "task",
    [
        "jobs = [Job(run, out / 'run')]; engine.execute(jobs, Local(jobs, 1), print)",
        "preflight.check([run])",
    ],
)
def test_children_and_their_temporary_files_go_when_their_parent_is_killed(
    tmp_path, monkeypatch, task
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    parent = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from keras_cnn import recipe
        from keras_cnn.recipe import resolve
        from keras_cnn.runs import child, engine, preflight
        from keras_cnn.runs.executors.local import Local
        from keras_cnn.runs.jobs import Job
        child.COMMAND, out = (sys.executable, "-c", {REAL!r}), Path({str(tmp_path)!r})
        given = {{"data": "synthetic:20", "shots": 2, "test_shots": 2}}
        given["weights"] = str(out / "own.pth")
        plan = recipe.read("fewshot_convnext")
        run = resolve.runs(plan, "mini", ["4"], "corrected", 1, given)[0]
        place = run.place.model_copy(update={{"row": "sleep"}})
        run = run.model_copy(update={{"place": place}})
        {task}
    """)
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
        child, left = (tmp_path / "pid").read_text().split()
        assert is_alive(int(child)) and Path(left).is_relative_to(tmp_path / "temporary")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_until(lambda: not is_alive(int(child)), seconds=5.0)
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_command_that_is_ended_says_so_in_one_line_and_leaves_no_child(
    fake, tmp_path, number, code, word
):
    row = "sleep"
    (tmp_path / "mine.yaml").write_text(
        f"title: x\ncolumns: {{}}\nsettings: {{data: 'synthetic:20', weights: random}}\n"
        f"rows: [{{row: {row}}}]\n"
    )
    command = textwrap.dedent(f"""
        import signal, sys
        from keras_cnn.__main__ import main
        from keras_cnn.runs import child
        signal.signal(signal.SIGINT, signal.default_int_handler)
        child.COMMAND = {child.COMMAND!r}
        sys.argv[1:] = ["recipe", "mine.yaml", "--repeats=1"]
        sys.exit(main())
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    notes = tmp_path / "artifacts" / "mine"
    wait_until(lambda: any(note.read_text() for note in notes.glob(f"{row}*.[0-9]*")))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.splitlines() == [
        "mine: 1 run", f"keras_cnn: {word}; finished runs are kept"
    ]  # fmt: skip
    (pid,) = {int(note.read_text().split()[0]) for note in notes.glob(f"{row}*.[0-9]*")}
    assert not is_alive(pid)


def test_a_child_imports_nothing_of_the_current_folder(tmp_path, monkeypatch):
    for name in ("json", "fire", "pydantic", "keras", "numpy", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('from the current folder')")
    monkeypatch.chdir(tmp_path)
    (failed,) = locally([a_job(tmp_path, "4")], 1)
    assert "start again" in failed.error  # which is said after all is imported
    done = subprocess.run(
        [sys.executable, "-m", "keras_cnn", "recipes"],
        env={**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "") and "fewshot_convnext" in done.stdout


def test_a_method_of_ones_own_may_lie_in_the_current_folder(tmp_path, monkeypatch):
    """It is named by the user; what is installed goes before it."""
    code = "import keras_cnn.methods as m\nclass S(m.Method): pass\ndef f(): pass\nf.settings = S\n"
    (tmp_path / "a_method_beside.py").write_text(code)
    (tmp_path / "yaml.py").write_text("raise SystemExit('from the current folder')")
    (tmp_path / "mine.yaml").write_text(
        "title: x\ncolumns: {}\nsettings: {data: 'synthetic:20', method: a_method_beside.f, "
        "weights: random}\nrows: [{row: 1}]\n"
    )
    command = [sys.executable, "-m", "keras_cnn", "recipe", "mine.yaml", "--dry-run"]
    variables = {**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and "a_method_beside.f" in done.stdout, done.stderr


def test_a_child_gets_its_backend_and_threads_before_it_imports_anything(tmp_path, monkeypatch):
    code = (
        "import json, os, sys; sys.stdin.readline(); "
        "names = ('KERAS_BACKEND', 'OMP_NUM_THREADS');"
        "print(json.dumps({'error': ' '.join(os.environ[name] for name in names)})); sys.exit(1)"
    )
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", code))
    job = on_jax(a_job(tmp_path, "4"))
    job = dataclasses.replace(job, run=job.run.with_spec(threads=3))
    (failed,) = locally([job], 1)
    assert failed.error == "jax 3"


def test_another_terminal_is_told_how_far_a_recipe_is(fake, tmp_path, monkeypatch, capsys):
    """Runs that are done, under way, failed and not begun; the claim is of this process."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        "title: x\ncolumns: {}\nsettings: {data: 'synthetic:20', weights: random}\n"
        "repeats: 1\nrows: [{row: a}, {row: fail}, {row: b}, {row: c}]\n"
    )
    ask = ["recipe", "mine.yaml", "--status"]
    assert main(ask) == 0
    assert capsys.readouterr().out == "mine: 4 runs, 4 not begun\n"
    plan = study.plan("mine.yaml")
    jobs = {state.job.run.place.row: state.job for state in status.states(plan)}
    jobs["a"].folder.parent.mkdir(parents=True)
    assert not locally([jobs["a"]], 1)
    (event,) = locally([jobs["fail"]], 1)
    publish.keep_logs(study.Study(plan, [], [event]))
    with store.held(jobs["b"].folder) as claim:
        claim.tell({"epoch": 2, "train_accuracy": 0.5, "test_accuracy": None})
        assert main(ask) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "mine: 4 runs, 1 done, 1 under way, 1 failed, 1 not begun"
    assert [line.split()[1] for line in lines] == ["b", "fail"]
    assert f"epoch 2/20, train 50.0%, on {platform.node()}, process {os.getpid()}" in lines[0]
    assert lines[1].endswith(".txt") and Path(lines[1].split()[-1]).is_file()
