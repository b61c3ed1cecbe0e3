"""One run to one result folder, in a process of its own: `python -m keras_cnn.runs.worker`."""

from __future__ import annotations

import inspect
import json
import logging
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn import environment, files, timing, torch_fast
from keras_cnn.data import Split
from keras_cnn.errors import UserError, printable, system_words
from keras_cnn.models import saved
from keras_cnn.recipe.spec import Run, Spec
from keras_cnn.results import identity, predictions, store
from keras_cnn.results.scores import scores
from keras_cnn.runs import images
from keras_cnn.timing import timed
from keras_cnn.torch_fast import memory, waiting

if TYPE_CHECKING:
    from keras_cnn.methods import Trained

EXIT_FAILED = 1
EXIT_ORPHANED = 3
EXIT_BUSY = 75


def make(
    run: Run, folder: Path, report: Callable[[dict], None], fresh: bool = False, wait: bool = False
) -> None:
    """Makes a run's result folder, unless it is there.

    Args:
        run: What to do.
        folder: `identity.run_folder(run, out)`.
        report: Called with one record an epoch.
        fresh: Make it anew, from its beginning, and replace the older result.
        wait: Wait while another process is making it.

    Raises:
        store.Busy: Another process is making it.
        UserError: The data or the weights cannot be used.
    """
    spec = run.spec
    with store.held(folder, wait) as claim:
        if files.is_there(folder) and not fresh:
            return
        if identity.identity(spec) != folder.name.rpartition("-")[2]:
            raise UserError("the data or the weights changed after the command began: start again")
        checkpoint = identity.checkpoint_file(spec)
        if fresh:
            checkpoint.unlink(missing_ok=True)
        with timed("data"):
            train, test = images.sample(spec)
        environment.seed_everything(spec.seed)  # keras from here on
        if spec.backend == "torch":
            waiting.sleep_beside_others()
        began, busy = time.perf_counter(), _processor_seconds()
        claim.tell({})

        def tell(record: dict) -> None:
            claim.tell(record)
            report(record)

        trained = _trained(spec, train, test, tell, checkpoint)
        spent = _processor_seconds() - busy + trained.measures.get("worker_seconds", 0.0)
        metrics = {
            **_metrics(trained, train, test),
            "processor_use": spent / (time.perf_counter() - began),
            "shared_images": images.count_shared(spec),
        }
        with timed("saving"):
            store.write(
                folder,
                run,
                environment.describe()
                | {"host": platform.node(), "fingerprints": identity.fingerprints(spec)},
                trained.history,
                metrics,
                test.class_names,
                saved.confusion(test.labels, trained.probabilities).tolist(),
                lambda path: saved.save(trained.model, path, _card(run, test.class_names, metrics)),
                predictions.of(test.labels, trained.probabilities, *images.test_images(spec)),
            )
        checkpoint.unlink(missing_ok=True)  # the result is on disk
        files.forget_oldest(checkpoint.parent, "*.h5")  # of runs that nobody went on with


def _trained(
    spec: Spec, train: Split, test: Split, report: Callable[[dict], None], checkpoint: Path
) -> Trained:
    """What the spec's method makes of its network."""
    from keras_cnn import methods, models

    with timed("network"):
        network = models.classifier(
            spec.network.model,
            len(test.class_names),
            spec.images.image_size,
            seed=spec.seed,
            **spec.network.model_dump(exclude={"model"}),
        )
    method = methods.find(spec.method, type(spec.training))
    settings = spec.training.model_dump()
    if "checkpoint" in inspect.signature(method).parameters:
        settings["checkpoint"] = checkpoint
    return method(network, train, test, seed=spec.seed, report=report, **settings)


def _metrics(trained: Trained, train: Split, test: Split) -> dict[str, float | None]:
    """The final figures; seconds are of the epochs, without starting and loading."""
    from keras_cnn.models import summary

    last = trained.history[-1]
    seconds = [record["seconds"] for record in trained.history]
    return {
        **{key: last[key] for key in store.HISTORY_COLUMNS if key.startswith(("train", "test"))},
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "parameters": summary.count_parameters(trained.model),
        "seconds": sum(seconds),
        "seconds_an_epoch": statistics.median(seconds),
        "images_a_second": len(train.labels) / statistics.median(seconds),
        "epochs": len(trained.history),
        "peak_memory_megabytes": environment.peak_memory_megabytes(),
        **scores(test.labels, trained.probabilities),
        **trained.measures,
    }


def _processor_seconds() -> float:
    """Of this process and those it started and has seen end; not of a loader's workers."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _card(run: Run, class_names: Sequence[str], metrics: dict[str, float]) -> dict[str, object]:
    from keras_cnn import __version__

    return {
        "class_names": list(class_names),
        "image_size": run.spec.images.image_size,
        "fit": run.spec.images.fit,
        "input": "RGB images (n, height, width, 3), values 0 to 255",
        "output": "probabilities (n, classes)",
        "test_accuracy": metrics["test_accuracy_over_images"],
        "run": run.model_dump(),
        "fingerprints": identity.fingerprints(run.spec),
        "keras_cnn": __version__,
    }


def fit_weights(spec: Spec) -> None:
    """Fits the weights a run starts from to its network.

    Raises:
        UserError: They cannot be used.
    """
    from keras_cnn import models, pretrained

    network = spec.network
    graph = models.backbone(
        network.model, spec.images.image_size, hidden_units=network.hidden_units
    )
    pretrained.load(graph, network.weights)


def _die_with_parent(scratch: str) -> None:
    """Ends this process when the parent is gone: its end of standard input closes then.

    The folder for temporary files goes with it, to which this process may be writing.
    """
    sys.stdin.buffer.read()
    for _ in range(10):
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(EXIT_ORPHANED)


class _Notes(logging.Handler):
    """Reports the package's warnings, a line each."""

    def __init__(self, report: Callable[[dict], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report({"note": printable(record.getMessage())})


def main() -> int:
    """Does the task named by one line of JSON on standard input; reports by lines of JSON.

    The task is a run to make, or one whose weights are to be fitted to its network. Standard
    output carries the reports alone: what libraries print goes to standard error.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)  # the parent decides
    began = time.perf_counter()
    reports = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def report(record: dict) -> None:
        print(files.json_text(record, indent=None), file=reports)

    logging.getLogger("keras_cnn").addHandler(_Notes(report))
    task = json.loads(sys.stdin.buffer.readline())
    os.environ["TMPDIR"] = tempfile.tempdir = task["scratch"]
    memory.keep_freed_memory()
    environment.spare_wrapped(os.environ.get("KERAS_BACKEND", ""))
    threading.Thread(target=_die_with_parent, args=(task["scratch"],), daemon=True).start()
    try:
        if "weights_of" in task:
            fit_weights(Spec.model_validate(task["weights_of"]))
            return 0
        run = Run.model_validate(task["run"])
        environment.require(run.spec.backend)
        os.environ[torch_fast.SWITCH] = str(int(run.spec.plain))
        with timing.adding_up() as spent:
            make(run, Path(task["folder"]), report, task["fresh"], task["wait"])
        report({"spent": {**spent, "in all": (time.perf_counter() - began, time.process_time())}})
    except store.Busy:
        return EXIT_BUSY
    except UserError as error:
        report({"error": str(error)})
        return EXIT_FAILED
    except Exception as error:  # whatever it was, the other runs go on
        traceback.print_exc()
        text = system_words(error) if isinstance(error, OSError) else str(error).strip()
        first, *_ = text.splitlines() or ["no message"]
        report({"error": f"{type(error).__name__}: {first}"})
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # frameworks' threads are not waited for
