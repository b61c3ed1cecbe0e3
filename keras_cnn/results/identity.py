"""What makes two runs the same: settings that are not at their defaults, content, code versions.

A run's identity is made of

- the settings of its spec that differ from their defaults, so that a new setting with a default
  leaves the identities of older runs alone; not those that decide nothing (`settings.idle`);
- the fingerprints of the data and of the weights, not where these lie;
- the `VERSION` of each module whose behaviour decides the result (`Spec.code` names them) that is
  beyond 1. Whoever changes what a module computes raises the number at its top, and exactly the
  runs that use the module get other names. Whoever changes a default does the same.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from functools import lru_cache
from pathlib import Path

from keras_cnn import data, environment
from keras_cnn.data.fit import Fit
from keras_cnn.home import home
from keras_cnn.methods.settings import idle
from keras_cnn.pretrained import named
from keras_cnn.recipe.spec import Run, Spec


def identity(spec: Spec) -> str:
    """The ten hexadecimal digits that stand for a spec.

    Args:
        spec: What decides a result.

    Raises:
        UserError: The data or the weights are not on this machine.
    """
    decisive = spec.model_dump(exclude_defaults=True)
    for name in _idle(spec):
        for group in ("network", "training"):
            decisive[group].pop(name, None)
    content = fingerprints(spec)
    decisive["images"]["data"] = content["data"]
    decisive["network"]["weights"] = content["weights"]
    decisive["versions"] = {name: n for name in spec.code() if (n := version(name)) > 1}
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _idle(spec: Spec) -> list[str]:
    """Settings that decide nothing; of a method of one's own, none is known to."""
    return idle(spec.settings) if spec.training.module else []


def run_folder(run: Run, out: Path) -> Path:
    """Where a run's result lies, or will: `OUT/<recipe>/<row>-<variant>-<repeat>-<identity>`."""
    place = run.place
    name = f"{place.row}-{place.variant}-{place.repeat}-{identity(run.spec)}"
    return out / place.recipe / name


def as_on_disk(run: Run, out: Path) -> Run:
    """The run with the number of threads that a finished result of it was made with.

    Where there is none, or one with the run's own number: the run as it is.

    Raises:
        UserError: The data or the weights are not on this machine.
    """
    folder = run_folder(run, out)
    if folder.exists():
        return run
    for path in sorted(folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*/run.json")):
        try:
            threads = json.loads(path.read_text(encoding="utf-8"))["spec"].get("threads", 1)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # damaged, or not a run of ours
        if type(threads) is int and run_folder(run.with_spec(threads=threads), out) == path.parent:
            return run.with_spec(threads=threads)
    return run


def checkpoint_file(spec: Spec) -> Path:
    """Where a run that takes hours keeps its state, whatever folder its result goes to."""
    return home() / "checkpoints" / f"{identity(spec)}.h5"


def fingerprints(spec: Spec) -> dict[str, str]:
    """Of the `data` and the `weights` a run starts from, by their content.

    Raises:
        UserError: They are not on this machine.
    """
    return {
        "data": data_fingerprint(spec.images.data, spec.images.image_size, spec.images.fit),
        "weights": weights_fingerprint(spec.network.model, spec.network.weights),
    }


@lru_cache
def data_fingerprint(name: str, image_size: int, fit: Fit = "crop") -> str:
    """The fingerprint of a data source's decoded content."""
    return data.fingerprint(name, image_size, fit=fit)


@lru_cache
def weights_fingerprint(model: str, weights: str) -> str:
    """The fingerprint of the weights a run starts from; `random` has itself."""
    path = named.weights_file(model, weights)
    return "random" if path is None else named.fingerprint(path)


@lru_cache
def version(module: str) -> int:
    """The `VERSION` at the top of a module, read without importing it; 1 where there is none."""
    environment.find_own_modules()
    found = importlib.util.find_spec(module)
    source = found.loader.get_source(module) if found and found.loader else None
    for node in ast.parse(source or "").body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VERSION":
            return int(ast.literal_eval(node.value))
    return 1
