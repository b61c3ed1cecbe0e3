"""A recipe from its name to its table: resolve, run what is missing, gather, write."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_cnn import engine, environment, estimate, models, progress, recipe, run, store, table
from keras_cnn.pretrained import registry
from keras_cnn.recipe import Recipe


def conduct(
    name: str,
    profile: str | None = None,
    rows: Sequence[str] | None = None,
    variant: str = "both",
    repeats: int | None = None,
    overrides: Mapping[str, object] | None = None,
    backend: str = "torch",
    out: Path = Path("artifacts"),
    parallel: int | None = None,
    fresh: bool = False,
    dry_run: bool = False,
) -> None:
    """Runs what is not on disk yet of a recipe, then prints and writes its table and pictures.

    Args:
        name: A recipe's name, or the path of a recipe file.
        profile: None takes `deck` when what it needs has been fetched, else `mini`.
        rows: Names of rows; None runs all.
        variant: A variant's name, or `both`.
        repeats: Runs of each row and variant; None takes the recipe's number.
        overrides: Settings that win over the file's.
        backend: The Keras backend.
        out: Results go to `out/<recipe>/`.
        parallel: Runs at a time; None takes one a processor core, or one on a GPU and where the
            recipe measures time.
        fresh: Run again what is on disk too.
        dry_run: Print the resolved runs and an estimate of the time; run nothing.

    Raises:
        UserError: Something of the input cannot be used; nothing was run.
        SystemExit: Code 1: some runs failed; the others are done and in the table.
    """
    overrides = overrides or {}
    plan = recipe.read(name)
    if profile is None:
        profile = _default_profile(plan, overrides)
    specs = recipe.runs(plan, profile, rows, variant, repeats, overrides, backend)
    for spec in specs:
        models.check(spec.model.model, spec.data.image_size)
    gpu = environment.has_gpu()
    parallel = parallel or (1 if gpu or plan.alone else environment.cores())
    threads = None if gpu else max(1, environment.cores() // parallel)
    if dry_run:
        print(estimate.listing(specs, out, parallel))
        return
    jobs = [engine.Job(spec, store.run_folder(spec, out), fresh) for spec in specs]
    missing = [job for job in jobs if fresh or not job.folder.exists()]
    run.check([job.run for job in missing])
    store.check_writable(out / plan.name)
    failed: list[engine.Event] = []
    if missing:
        with progress.shown(missing) as show:
            failed = engine.execute(missing, parallel, threads, show)
    folders = [job.folder for job in jobs if job.folder.exists()]
    command = _command(name, profile, rows, variant, repeats, overrides, backend)
    if folders:
        _publish(plan, folders, command, out / plan.name)
    failed_folders = {event.job.folder for event in failed}
    for folder in set(folders) - failed_folders:
        _failure_log(folder).unlink(missing_ok=True)  # of an earlier attempt
    if failed:
        _list_failures(failed)
        raise SystemExit(1)


def _publish(plan: Recipe, folders: Sequence[Path], command: str, folder: Path) -> None:
    """Writes the table in its three forms, draws what changed, prints the table."""
    results = [store.read(path) for path in folders]
    made = table.build(plan, results, command)
    for ending, render in (
        ("md", table.markdown),
        ("csv", table.comma_separated),
        ("json", table.as_json),
    ):
        store.write_text(folder / f"table.{ending}", render(made))
    from keras_cnn import figures  # matplotlib takes a second to import

    figures.draw(plan, results, folder)
    print(table.markdown(made))
    best = max(results, key=lambda result: result.metrics["test_accuracy"])
    print(
        f"Tables and pictures are in {folder}, models in {folder}/<run>/model.keras.\n"
        f"Best on the test images: {best.folder / 'model.keras'}"
    )


def _default_profile(plan: Recipe, overrides: Mapping[str, object]) -> str:
    """The deck's own where what it needs is here or given, else `mini`, said in one line."""
    given = {"archive": "data" in overrides}
    given["weights"] = overrides.get("weights", "pretrained") not in ("pretrained", "random")
    missing = [
        download.name
        for name in plan.needs
        for download in registry.find(name)
        if not given[download.kind] and not download.is_here()
    ]
    if "mini" not in plan.profiles or not missing:
        return "deck"
    said = plan.profiles["mini"].stands_in
    if overrides.keys() & {"data", "model", "weights"}:
        said = f"but for what is given here, {said}"
    print(
        f"Profile mini: {said} (the deck's own needs `python -m keras_cnn fetch deck`; "
        f"not here yet: {' '.join(missing)}).",
        file=sys.stderr,
    )
    return "mini"


def _command(
    name: str,
    profile: str,
    rows: Sequence[str] | None,
    variant: str,
    repeats: int | None,
    overrides: Mapping[str, object],
    backend: str,
) -> str:
    """The command line that gives the same table again."""
    words = ["python", "-m", "keras_cnn", "recipe", name, f"--profile={profile}"]
    words += [f"--rows={','.join(rows)}"] if rows else []
    words += [f"--variant={variant}"] if variant != "both" else []
    words += [f"--repeats={repeats}"] if repeats else []
    for key, value in overrides.items():
        text = json.dumps(value) if not isinstance(value, str) else value
        words += [f"--{key}={text}"] if key in ("data", "weights") else [f"--set={key}={text}"]
    words += [f"--backend={backend}"]
    return shlex.join(words)


def _failure_log(folder: Path) -> Path:
    """Where the output of a run that failed is kept."""
    return folder.parent / "failed" / f"{folder.name}.txt"


def _list_failures(failed: Sequence[engine.Event]) -> None:
    """Names each failed run with its error, and keeps what its process wrote."""
    count = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
    print(f"\n{count} failed; the same command tries again:", file=sys.stderr)
    for event in failed:
        log = _failure_log(event.job.folder)
        store.write_text(log, event.log or f"{event.error}\n")
        print(f"  {progress.title(event.job)}: {event.error}\n    log: {log}", file=sys.stderr)
