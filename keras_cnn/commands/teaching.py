"""The command that teaches a folder of photographs."""

from __future__ import annotations

from pathlib import Path

from keras_cnn import environment, files
from keras_cnn.commands.shell import chosen_backend, tell
from keras_cnn.errors import UserError, shell_line
from keras_cnn.home import DEFAULT_OUT


def teach(
    folder: str,
    minutes: int = 10,
    backbone: str = "auto",
    method: str = "auto",
    fit: str = "auto",
    shots: int | None = None,
    balance: bool = False,
    out: Path | None = None,
    error_percent: int = 5,
    backend: str | None = None,
    on: str = "local",
) -> None:
    """Teach a model the classes of a folder of photographs, and tell how far it can be trusted.

    Backbones and methods are compared on held-out training images; the best is tested once on the
    images set aside. What was stopped goes on where it was.

    Args:
        folder: FOLDER/<class>/*, or FOLDER/train/<class>/* and FOLDER/test/<class>/*.
        minutes: What it may take; the most promising is tried first.
        backbone: efficientnet_lite0, convnext_tiny, …; those at hand by default, the best first.
        method: nearest_mean, linear_discriminant, linear_probe or fine_tuning; all by default.
        fit: crop, squash or pad; all are tried by default.
        shots: Training images of each class, at most; all by default.
        balance: Let every class count alike, however many images it has.
        out: Where the page and the model go; OUT/index.html. By default artifacts/teach/<folder>.
        error_percent: Below which share of wrong answers the model is to stay, by saying unsure.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
        on: Where: local, slurm[:partition=…,minutes=60,cores=2,…] or ray[:ADDRESS,cores=2,…].
    """
    if minutes < 1:
        raise UserError(f"--minutes is {minutes}: at least 1")
    backend = chosen_backend(backend)
    from keras_cnn import progress
    from keras_cnn.data import sources

    out = out or DEFAULT_OUT / "teach" / sources.title(folder)
    words = ["python", "-m", "keras_cnn", "teach", folder, f"--out={out}"]
    flags = {"minutes": minutes, "backbone": backbone, "method": method, "fit": fit}
    flags |= {"shots": shots, "error-percent": error_percent, "backend": backend}
    usual = {"minutes": 10, "error-percent": 5, "backend": "torch"}
    words += ["--balance"] * balance
    words += [
        f"--{name}={value}"
        for name, value in flags.items()
        if value not in ("auto", None, usual.get(name))
    ]
    if on != "local":
        # There, another backend may be the usual one.
        named = ["--backend=torch"] if backend == "torch" else []
        return _elsewhere(on, [*words[3:], *named], out)
    environment.settle(backend)
    from keras_cnn import teach as teaching
    from keras_cnn.teach import terminal

    request = teaching.Request(
        folder,
        out,
        backbone,
        method,
        fit,
        shots,
        balance,
        minutes=minutes,
        error_rate=error_percent / 100,
        command=shell_line(words),
    )
    with progress.steps() as notify:
        taught = teaching.teach(request, notify)
    for line in terminal.lines(taught):
        tell(line)
    tell(f"model: {taught.model_file}")
    tell(f"page: {out / 'index.html'}")


def _elsewhere(on: str, words: list[str], out: Path) -> None:
    """The same command on a machine of a cluster."""
    from keras_cnn.recipe import resources
    from keras_cnn.runs import executors
    from keras_cnn.runs.executors import command

    files.check_writable(out)
    cluster = executors.cluster_of(resources.read(on), parallel=1)
    if cluster and (code := command.run(cluster, words, out)):
        raise SystemExit(code)
