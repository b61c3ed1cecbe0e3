"""A recipe from its name to its table: resolve, run what is missing, gather, write."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_cnn import environment, files, models, progress, recipe
from keras_cnn.data import sources
from keras_cnn.downloads import registry
from keras_cnn.errors import UserError
from keras_cnn.home import DEFAULT_OUT
from keras_cnn.recipe import resolve
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results import store, table
from keras_cnn.results.store import Result
from keras_cnn.results.table import Table
from keras_cnn.runs import engine, estimate, worker
from keras_cnn.runs.estimate import Estimate

TABLE_FORMS = {"md": table.markdown, "csv": table.comma_separated, "json": table.as_json}


@dataclass(frozen=True)
class Conducted:
    """What became of a recipe's runs.

    Attributes:
        done: How many are on disk now.
        failed: How many failed, or have damaged results.
        seconds: What the command took.
        table: The table; None where there is nothing to show.
        estimated: What a dry run estimates; it does nothing else.
    """

    done: int
    failed: int
    seconds: float
    table: Path | None
    estimated: Estimate | None = None


def conduct(
    name: str,
    profile: str | None = None,
    rows: Sequence[str] | None = None,
    variant: str = "both",
    repeats: int | None = None,
    overrides: Mapping[str, object] | None = None,
    backend: str = "torch",
    out: Path = DEFAULT_OUT,
    parallel: int | None = None,
    fresh: bool = False,
    dry_run: bool = False,
) -> Conducted:
    """Runs what is not on disk yet of a recipe, then prints and writes its table and pictures.

    Args:
        name: A recipe's name, or the path of a recipe file.
        profile: None takes `deck` when what it needs has been fetched or given, else `mini`, and
            says so.
        rows: Names of rows; None runs all.
        variant: A variant's name, or `both`.
        repeats: Runs of each row and variant; None takes the recipe's number.
        overrides: Settings that win over the file's. Where `data` is a user's folder, all its
            test images are used unless `test_shots` is given too.
        backend: The Keras backend.
        out: Results go to `out/<recipe>/`.
        parallel: Runs at a time; None takes one a processor core, or one on a GPU and where the
            recipe measures time.
        fresh: Run again what is on disk too.
        dry_run: Print the runs and an estimate of the time; run nothing.

    Returns:
        What became of it: some runs may have failed, the others are done and in the table.

    Raises:
        UserError: Something of the input cannot be used; nothing was run.
    """
    began = time.monotonic()
    overrides = overrides or {}
    plan = recipe.read(name)
    missing_downloads = _missing_downloads(plan, overrides)
    chosen = profile or ("mini" if "mini" in plan.profiles and missing_downloads else "deck")
    specs = resolve.runs(
        plan, chosen, rows, variant, repeats, _with_test_images(overrides), backend
    )
    for spec in specs:
        network = spec.model
        models.check(
            network.model, spec.data.image_size, network.hidden_units, network.stochastic_depth
        )
    said = "" if profile else _choice(plan, chosen, missing_downloads, overrides, specs)
    gpu = environment.has_gpu()
    parallel = parallel or (1 if gpu or plan.alone else environment.cores())
    parallel = min(parallel, len(specs))  # so that few runs have all threads
    if dry_run:
        estimated = estimate.estimate(specs, out, parallel, fresh)
        _say(said)
        title = f"{plan.name}: profile {chosen}, {parallel} at a time"
        print(estimate.listing(title, specs, estimated))
        return Conducted(sum(estimated.on_disk), 0, time.monotonic() - began, None, estimated)
    jobs = [engine.Job(spec, store.run_folder(spec, out), fresh) for spec in specs]
    missing = [job for job in jobs if fresh or not job.folder.exists()]
    lacking = _lacking_backends(missing)
    if lacking and all(job.run.backend in lacking for job in jobs):
        raise UserError(next(iter(lacking.values())))
    left_out = [job for job in missing if job.run.backend in lacking]
    jobs = [job for job in jobs if job not in left_out]
    missing = [job for job in missing if job not in left_out]
    worker.check([job.run for job in missing])
    files.check_writable(out / plan.name)
    _say(said)  # not before: a mistake is told alone
    for row, why in dict.fromkeys((job.run.row, lacking[job.run.backend]) for job in left_out):
        _say(f"{plan.name}: row {row} is left out: {why}")
    failed: list[engine.Event] = []
    if missing:
        done = f", {len(jobs) - len(missing)} on disk already" if len(missing) < len(jobs) else ""
        _say(f"{plan.name}: {progress.runs(len(jobs))}{done}")
        threads = None if gpu else max(1, environment.cores() // parallel)
        with progress.shown(missing) as show:
            failed = engine.execute(missing, parallel, threads, show)
    command = _command(name, chosen, rows, variant, repeats, overrides, backend, out)
    without, written = _gather(plan, jobs, failed, command, out / plan.name)
    return Conducted(len(jobs) - without, without, time.monotonic() - began, written)


def _lacking_backends(jobs: Sequence[engine.Job]) -> dict[str, str]:
    """The backends of jobs that are not installed, and what to do about each."""
    lacking: dict[str, str] = {}
    for backend in dict.fromkeys(job.run.backend for job in jobs):
        try:
            environment.require(backend)
        except UserError as error:
            lacking[backend] = str(error)
    return lacking


def conduct_all(one: Callable[[str], Conducted]) -> bool:
    """Conducts the recipes that come with the package, then prints a line for each.

    Args:
        one: Conducts the recipe of a name.

    Returns:
        Whether all went well. A recipe whose input cannot be used is told in its line, and the
        others go on.

    Raises:
        UserError: No recipe can use the input; nothing was run.
    """
    ends: dict[str, Conducted | UserError] = {}
    for name in recipe.names():
        if not recipe.read(name).in_all:
            continue
        try:
            ends[name] = one(name)
        except UserError as error:
            ends[name] = error
    conducted = [end for end in ends.values() if isinstance(end, Conducted)]
    if not conducted:
        raise next(iter(ends.values()))
    width = max(map(len, ends))
    print("\n".join(["", *(f"{name.ljust(width)}  {_end(end)}" for name, end in ends.items())]))
    estimates = [end.estimated for end in conducted if end.estimated]
    if estimates:
        left = progress.duration(sum(estimated.seconds_left for estimated in estimates))
        print(f"{'all'.ljust(width)}  about {left} for what is not on disk")
    return len(conducted) == len(ends) and not any(end.failed for end in conducted)


def _end(end: Conducted | UserError) -> str:
    """How a recipe ended, in one line."""
    if isinstance(end, UserError):
        return f"not run: {end}"
    if end.estimated:
        hindrance = end.estimated.hindrance
        return estimate.summary(end.estimated) + (f"; not yet: {hindrance}" if hindrance else "")
    where = end.table or "no table"
    took = progress.duration(end.seconds)
    return f"{progress.runs(end.done)} done, {end.failed} failed, {took}: {where}"


def _gather(
    plan: Recipe,
    jobs: Sequence[engine.Job],
    failed: Sequence[engine.Event],
    command: str,
    folder: Path,
) -> tuple[int, Path | None]:
    """Writes the table of what is on disk, and tells what is not.

    Returns:
        How many runs failed or are damaged, and the table, where there is something to show.
    """
    failed_folders = {event.job.folder for event in failed}
    results, damaged = _read([job for job in jobs if job.folder.exists()])
    try:
        if results:
            _publish(plan, results, command, folder)
    finally:  # whatever a table or a picture runs into
        for result in results:
            if result.folder not in failed_folders:
                _failure_log(result.folder).unlink(missing_ok=True)  # of an earlier attempt
        if failed:
            _list_failures(failed)
        for error in damaged:
            _say(f"keras_cnn: left out of the table: {error}")
    return len(failed) + len(damaged), folder / "table.md" if results else None


def _read(jobs: Sequence[engine.Job]) -> tuple[list[Result], list[UserError]]:
    """The results of jobs under the names of this command, and what is wrong with the others."""
    results: list[Result] = []
    damaged: list[UserError] = []
    for job in jobs:
        try:
            results.append(store.relabelled(job.folder, job.run))
        except UserError as error:
            damaged.append(error)
    return results, damaged


def _publish(plan: Recipe, results: Sequence[Result], command: str, folder: Path) -> None:
    """Writes the table in its three forms, draws what changed, prints the table."""
    from keras_cnn.plots import draw

    made = table.build(plan, results, command)
    kept = _keep_former(made, folder, draw.drawn(folder))
    for ending, render in TABLE_FORMS.items():
        files.write_text(folder / f"table.{ending}", render(made))
    draw.recipe_plots(plan, results, folder)
    print(table.markdown(made))
    # A method's own test accuracy may be of pairs or episodes.
    best = max(results, key=lambda result: result.metrics["test_accuracy_over_images"])
    print(
        f"Tables and pictures are in {folder}, models in {folder}/<run>/model.keras.\n"
        f"Best on the test images: {best.folder / 'model.keras'}"
    )
    if kept:
        _say(f"The table that was there showed other runs: it is now in {kept}, with its pictures.")


def _keep_former(made: Table, folder: Path, pictures: Sequence[Path]) -> Path | None:
    """Moves the table on disk away where it shows runs that the new one lacks.

    Other data, weights or settings are other runs; more repeats of the same are not.

    Args:
        made: The new table.
        folder: Where it goes.
        pictures: Drawn with the one on disk.

    Returns:
        Where that one is now; None when it may be replaced, or there is none.
    """
    try:
        text = (folder / "table.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        former = json.loads(text)
        runs = sorted(run for line in former["lines"] for run in line["runs"])
        source = re.sub(r"[^\w.-]+", "_", str(former.get("data", "table")))
    except (ValueError, KeyError, TypeError, AttributeError):  # not written by this package
        runs, source = [text], "unknown"
    if {*runs} <= {run for line in made.lines for run in line.runs}:
        return None
    name = f"{source}-{hashlib.sha256(' '.join(runs).encode()).hexdigest()[:8]}"
    kept = folder / "earlier" / name
    kept.mkdir(parents=True, exist_ok=True)
    for path in (*(folder / f"table.{ending}" for ending in TABLE_FORMS), *pictures):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, kept / path.name)
    return kept


def _with_test_images(overrides: Mapping[str, object]) -> Mapping[str, object]:
    """The settings given, and all test images of a user's folder, however many the deck drew."""
    source = overrides.get("data")
    is_own = isinstance(source, str) and not sources.is_named(source)
    return {"test_shots": None, **overrides} if is_own else overrides


def _missing_downloads(plan: Recipe, overrides: Mapping[str, object]) -> list[str]:
    """What the deck's profile needs and is neither here nor given."""
    given = {"archive": "data" in overrides}
    given["weights"] = overrides.get("weights", "pretrained") not in registry.NAMED_WEIGHTS
    return [
        download.name
        for name in plan.needs
        for download in registry.find(name)
        if not given[download.kind] and not download.is_here()
    ]


def _choice(
    plan: Recipe,
    profile: str,
    missing: Sequence[str],
    overrides: Mapping[str, object],
    specs: Sequence[Run],
) -> str:
    """One line: the profile nobody asked for, and what it means here."""
    said = plan.profiles[profile].stands_in or "the deck's own data, networks and settings"
    if overrides:
        data = _listed(sources.title(spec.data.data) for spec in specs)
        said = f"data {data}; {_listed(_start(spec) for spec in specs)}"
        if (
            overrides.get("weights", "random") not in registry.NAMED_WEIGHTS
            and "model" not in overrides
        ):
            said += " (--set model NAME: another network)"
    if profile == "mini":
        bundle = {download.name for download in registry.find("deck")}
        fetched = ["deck"] if {*missing} <= bundle else missing
        commands = " and ".join(f"`python -m keras_cnn fetch {name}`" for name in fetched)
        said += f" (the deck's own needs {commands}; not here yet: {' '.join(missing)})"
    elif "mini" in plan.profiles:
        said += " (--profile=mini is smaller)"
    return f"Profile {profile}: {said}."


def _start(spec: Run) -> str:
    """A run's network, and the weights it starts from."""
    return f"{spec.model.model} from {registry.weights_title(spec.model.weights)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _command(
    name: str,
    profile: str,
    rows: Sequence[str] | None,
    variant: str,
    repeats: int | None,
    overrides: Mapping[str, object],
    backend: str,
    out: Path,
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
    words += [f"--out={out}"] if out != DEFAULT_OUT else []
    return shlex.join(words)


def _say(line: str) -> None:
    if line:
        print(line, file=sys.stderr, flush=True)


def _failure_log(folder: Path) -> Path:
    """Where the output of a run that failed is kept."""
    return folder.parent / "failed" / f"{folder.name}.txt"


def _list_failures(failed: Sequence[engine.Event]) -> None:
    """Names each failed run with its error, and keeps what its process wrote."""
    print(f"\n{progress.runs(len(failed))} failed; the same command tries again:", file=sys.stderr)
    for event in failed:
        log = _failure_log(event.job.folder)
        files.write_text(log, event.log or f"{event.error}\n")
        print(f"  {progress.title(event.job)}: {event.error}\n    log: {log}", file=sys.stderr)
