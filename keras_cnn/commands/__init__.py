"""The commands, one function each: thin, over the package's own functions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn import environment, files
from keras_cnn.commands.shell import chosen_backend, picture_path, say, tell
from keras_cnn.commands.teaching import teach  # noqa: F401 (a command like those below)
from keras_cnn.commands.trained import (  # noqa: F401 (commands like those below)
    embed,
    evaluate,
    export,
    predict,
    similar,
)
from keras_cnn.errors import UserError, nearest
from keras_cnn.home import DEFAULT_OUT

if TYPE_CHECKING:
    from keras_cnn.runs.jobs import Event
    from keras_cnn.runs.study import Plan, Study

WIDTH = 120  # of a table that goes to no terminal


def recipes() -> None:
    """List the recipes: slides, runs (rows in each variant they have, x repeats), title."""
    from keras_cnn import recipe as recipe_files
    from keras_cnn.results import grid

    rows = [("recipe", "slides", "runs", "title")]
    for one in map(recipe_files.read, recipe_files.names()):
        slides = ", ".join(map(str, one.slides)) or "-"
        in_variants = sum(len(one.variants_of(row)) for row in one.rows)
        runs = f"{len(one.rows)} rows, {in_variants} x {one.repeats} runs"
        rows.append((one.name, slides, runs, one.title))
    print("\n".join(grid.aligned(rows)))


def recipe(
    name: str,
    rows: list[str] | None = None,
    repeats: int | None = None,
    variant: str = "both",
    profile: str | None = None,
    data: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    shots: int | None = None,
    epochs: int | None = None,
    method: str | None = None,
    out: Path = DEFAULT_OUT,
    backend: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    set: dict[str, object] | None = None,
    on: str = "local",
    dry_run: bool = False,
    status: bool = False,
    fresh: bool = False,
) -> None:
    """Run what is not on disk yet of a recipe, then print and write its table.

    Args:
        name: One that `recipes` lists, the path of a recipe file, or all, which takes fewer flags.
        rows: Rows to run, as 1,4, or all; by default those of the profile.
        repeats: Runs of each row and variant.
        variant: as_run (as the deck's code did), corrected, or both.
        profile: mini (what every machine has), or deck, the default where it has been fetched.
        data: A source (cinic10, digits, …; a wrong name lists all) or a folder of images, all of
            whose test images are used.
        weights: bundled, pretrained, random, or a file: torch, safetensors, .keras or .weights.h5.
        image_size: Height and width in pixels the images are brought to.
        shots: Training images drawn from each class.
        epochs: Passes over the training images, or rounds of episodes or tasks.
        method: Another method for all rows, corrected: linear_probe, nearest_mean, prototypical, …
        out: Where results go: OUT/NAME/.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
        jobs: Runs at a time, at most one a processor core. By default as many, or one on each GPU.
        threads: Threads of each run. By default the cores that are free just now, shared out.
        set: Any setting, as --set momentum 0.9; may be given again; `settings NAME` lists them.
        on: Where: local, slurm[:partition=…,minutes=60,gigabytes=…,gpus=…,account=…] or
            ray[:ADDRESS,gpus=…]; --jobs bounds how many run there at a time.
        dry_run: Only print what would be run and how long; exit code 2 where something is missing.
        status: Only tell how far the runs are that a command makes, here or elsewhere.
        fresh: Run again what is on disk too.
    """
    flags = {"data": data, "weights": weights, "image_size": image_size}
    flags |= {"shots": shots, "epochs": epochs, "method": method}
    conduct = partial(
        _conduct,
        profile=profile,
        rows=rows,
        variant=variant,
        repeats=repeats,
        overrides=_overrides(set or {}, flags),
        backend=chosen_backend(backend),
        out=out,
        parallel=jobs,
        threads=threads,
        fresh=fresh,
        on=on,
        dry_run=dry_run,
        status=status,
    )
    if name == "all":
        _refuse_with_all(flags | {"rows": rows, "variant": variant != "both", "set": set})
    if code := _conduct_all(conduct) if name == "all" else conduct(name).code:
        raise SystemExit(code)


def _overrides(settings: Mapping[str, object], flags: Mapping[str, object]) -> dict[str, object]:
    """The settings that win over the file's; flags that were not given are None."""
    given = {key: value for key, value in flags.items() if value is not None}
    for key in given.keys() & settings.keys():
        flag = f"--{key.replace('_', '-')}"
        raise UserError(f"{flag} and --set {key} are one setting: give one of them")
    return {**settings, **given}


def _refuse_with_all(flags: Mapping[str, object]) -> None:
    for flag, value in flags.items():
        if value and flag not in ("data", "image_size"):
            raise UserError(f"recipe all takes no --{flag}: name the recipe it is meant for")


def settings(name: str) -> None:
    """List the settings of a recipe or a method: default, type, what each means.

    Args:
        name: A recipe, for whose methods it tells what its rows have too, or a method.
    """
    from keras_cnn import recipe as recipes
    from keras_cnn.recipe.spec import KNOWN_METHODS, Run
    from keras_cnn.runs import described, study

    by_method: dict[str, list[Run]] = {}
    if name in recipes.names() or name.endswith((".yaml", ".yml")):
        for run in study.plan(name, repeats=1).runs:
            by_method.setdefault(run.spec.method, []).append(run)
    elif name in KNOWN_METHODS or "." in name:
        by_method[name] = []
    else:
        choices = {*recipes.names(), *KNOWN_METHODS}
        raise UserError(f"no recipe or method {name!r}: {nearest(name, choices)}")
    print("\n\n".join(described.table(*one) for one in by_method.items()))


def fetch(name: str) -> None:
    """Download data or weights, or all that the deck's recipes need: deck.

    The only command that uses the network.

    Args:
        name: A data set, the network whose weights are wanted, or deck; a wrong name lists all.
    """
    from keras_cnn.downloads import fetch as downloads

    for path in downloads.fetch(name):
        tell(str(path))


def data(
    source: str,
    image_size: int = 32,
    fit: str = "crop",
    out: Path | None = None,
    augment: str | None = None,
) -> None:
    """Tell what a data source holds, its faults, and draw samples, or what augmentation makes.

    Args:
        source: A source (cinic10, digits, …; a wrong name lists all) or a folder of images.
        image_size: Height and width in pixels the images are brought to.
        fit: crop (the centre square), pad (the whole, with a grey border) or squash (the whole, its
            proportions lost).
        out: Where the picture goes; by default <source>-samples.png or <source>-<augment>.png here.
        augment: Only draw what becomes of samples by an augmentation (flip, cutmix, …; a wrong name
            lists all), or by all of them.
    """
    from keras_cnn import data as sources
    from keras_cnn.data import augment as augmentation
    from keras_cnn.data import inspect, pictures

    kinds = augmentation.kinds(augment) if augment else []
    name = f"{Path(os.path.realpath(source)).name}-{augment or 'samples'}.png"
    picture = picture_path(out or Path(name))
    if kinds:
        pictures.augmented(sources.load(source, image_size, fit=fit), kinds, picture)
        tell(f"augmented samples: {picture}")
        return
    print(inspect.render(inspect.describe(source, image_size, fit)))
    pictures.samples(sources.load(source, image_size, fit=fit), picture)
    tell(f"samples: {picture}")


def summary(
    model: str,
    format: str = "text",
    batch_size: int = 64,
    classes: int | None = None,
    image_size: int | None = None,
    hidden_units: int | None = None,
) -> None:
    """Layers, output shapes, parameters and mult-adds of a model by name or of a saved file.

    Args:
        model: A network's name (baseline, enhanced, resnet18, convnext_tiny, …), or a .keras file.
        format: text, markdown or json.
        batch_size: Images in a batch, for shapes and mult-adds.
        classes: Outputs of a network by name; 10 by default.
        image_size: Height and width of its input in pixels; by default as it is made for.
        hidden_units: Width of baseline and enhanced; 32 and 64 by default.
    """
    formats = ("text", "markdown", "json")
    if format not in formats:
        raise UserError(f"no format {format!r}: {nearest(format, formats)}")
    file = Path(model).expanduser()
    is_file = file.suffix.lower() == ".keras" or os.path.isfile(file)
    by_name = {"--classes": classes, "--image-size": image_size, "--hidden-units": hidden_units}
    for flag, value in by_name.items():
        if is_file and value is not None:
            raise UserError(f"{flag} is for a network by name: {file} is made as it is")
    environment.settle(chosen_backend())
    from keras_cnn import models
    from keras_cnn.models import saved
    from keras_cnn.models import summary as summaries

    if is_file:
        graph, _ = saved.load(file)
    else:
        graph = models.classifier(
            model,
            classes or 10,
            image_size,
            dropout=models.network(model).dropout,
            hidden_units=hidden_units,
        )
    print(summaries.render(summaries.summarise(graph, batch_size), format))


def backbone(model: Path, file: Path) -> None:
    """Write a saved model's backbone as a weights file of half the size, for --weights=FILE.

    Args:
        model: The .keras file of a run, of `recipe pretrain` for one.
        file: Ends in .weights.h5.
    """
    from keras_cnn.pretrained import keras_files, named

    if not file.name.endswith(".weights.h5"):
        raise UserError(f"{str(file)!r}: a weights file's name ends in .weights.h5")
    files.check_writable(file.parent)
    environment.settle(chosen_backend())
    keras_files.write_backbone(model, file)
    tell(f"{file}: {file.stat().st_size:,} bytes, SHA-256 {named.fingerprint(file)}")


def report(out: Path = DEFAULT_OUT, to: Path | None = None) -> None:
    """Write one page on all slides, report.md and report.html, from the results on disk.

    Args:
        out: Where results lie: OUT/RECIPE/.
        to: The folder the page goes to; OUT by default.
    """
    environment.settle(chosen_backend())
    from keras_cnn import report as reports

    reports.report(out, to or out)


def cache(clear: bool = False) -> None:
    """Tell what is kept between commands and its size, or remove what is made anew when needed.

    Args:
        clear: Remove decoded images, features of frozen networks and fine-tuned stages. What was
            fetched, and the states of runs that were stopped, stay.
    """
    from keras_cnn import home
    from keras_cnn.results import grid

    if clear:
        try:
            files, size = home.clear()
        except OSError as error:
            raise UserError(f"{error.filename} cannot be removed: {error.strerror}") from None
        print(f"removed: {files:,} files, {size / 1e6:,.1f} MB")
    tell(str(home.home()))
    rows = [
        (kind, f"{files:,} files", f"{size / 1e6:,.1f} MB")
        for kind, (files, size) in home.usage().items()
    ]
    print("\n".join(grid.aligned(rows, right=(1, 2))))


def bench(
    *names: str,
    rounds: int = 5,
    threads: int = 1,
    out: Path | None = None,
    only: list[str] | None = None,
    most: int | None = None,
) -> None:
    """Measure speed: training, loader, fewshot, repeats; peers, growth, neighbours; and others.

    Args:
        names: Which of them, or all; all by default. Asked for by name alone: peers, the same work
            in the field's own tools (fine-tuning, episodes, MAML, prediction, decoding, other
            backends); growth, what more images, runs and classes cost; neighbours, what a run
            loses to busy processes beside it; sweep, where the time of a sweep goes; and intervals,
            how often the tables' intervals hold the truth.
        rounds: How often each contender takes its turn, at least 5; one more warms up.
        threads: Threads of each contender's process; repeats has its own.
        out: A JSON file for the figures; pictures and CSV files of growth go beside it.
        only: Parts of peers, as maml,decoding; or of growth: images, runs, classes.
        most: The largest size of growth, as 50000 images.
    """
    from keras_cnn import bench as benches

    benches.bench(names, rounds, threads, out, only or (), most)


@dataclass(frozen=True)
class _End:
    """How a recipe's command ended: its line when all recipes have run, and its exit code."""

    line: str
    code: int = 0
    seconds_left: float | None = None


def _conduct(
    name: str, dry_run: bool, status: bool, overrides: dict[str, object], **asked: object
) -> _End:
    """Plans a recipe, runs what is missing, prints and writes its table; or tells what it would."""
    from keras_cnn import progress
    from keras_cnn.recipe import resources
    from keras_cnn.runs import estimate, executors, publish, study
    from keras_cnn.runs import status as states

    plan = study.plan(name, overrides=overrides, **asked)
    choice = "" if asked["profile"] else _choice(plan, overrides)
    is_here = isinstance(plan.resources, resources.Local)
    too_many = is_here and (asked["parallel"] or 0) > environment.cores()
    cores = ": no more than processor cores" if too_many else ""
    where = "" if is_here else f" on {resources.name_of(plan.resources)}"
    if dry_run:
        estimated = estimate.estimate(plan.runs, plan.out, plan.parallel, plan.fresh)
        say(choice)
        title = f"{name}: profile {plan.profile}, {plan.parallel} at a time{where}{cores}"
        print(estimate.listing(title, plan.runs, estimated))
        runs = zip(plan.runs, estimated.on_disk, strict=True)
        missing = [run.spec for run, is_there in runs if not is_there]
        if submitted := executors.submission(plan.resources, missing, plan.parallel):
            print(submitted)
        hindrance = f"; not yet: {estimated.hindrance}" if estimated.hindrance else ""
        line = f"{estimate.summary(estimated)}{hindrance}"
        return _End(line, 2 if hindrance else 0, estimated.seconds_left)
    if status:
        found = states.states(plan)
        print(states.text(plan, found))
        return _End(f"{sum(state.kind == 'done' for state in found)} of {len(found)} done")
    work = study.prepare(plan)
    say(choice)  # not before: a mistake is told alone
    for row, why in work.left_out.items():
        say(f"{plan.recipe.name}: row {row} is left out: {why}")
    if work.missing:
        done = len(work.jobs) - len(work.missing)
        on_disk = f", {done} on disk already" if done else ""
        at_a_time = f", {plan.parallel} at a time{where}{cores}" if cores or where else ""
        say(f"{plan.recipe.name}: {progress.runs(len(work.jobs))}{on_disk}{at_a_time}")
    if few := work.taken_whole:
        named = [f"{name} {count:,}" for name, count in few.items()]
        more = f" and {len(few) - 3:,} more classes" if len(few) > 3 else ""
        say(f"fewer training images than shots, all of them used: {', '.join(named[:3])}{more}")
    if work.shared_images:
        say(f"{work.shared_images} test images of the data have the pixels of training images")
    with progress.shown(work.missing) as show:
        made = study.execute(work, show)
    try:
        if made.results:
            _print_table(made, publish.publish(made))
    finally:  # whatever a table or a picture runs into
        _tell_failures(publish.keep_logs(made), made.damaged)
    failed = len(made.failed) + len(made.damaged)
    where = made.plan.folder / "table.md" if made.results else "no table"
    runs, took = progress.runs(len(work.jobs) - failed), progress.duration(made.seconds)
    return _End(f"{runs} done, {failed} failed, {took}: {where}", int(failed > 0))


def _conduct_all(conduct: Callable[[str], _End]) -> int:
    """Conducts the recipes that come with the package, then prints a line for each.

    A recipe whose input cannot be used is told in its line, and the others go on.

    Returns:
        The exit code: the lowest of theirs that is not 0.

    Raises:
        UserError: No recipe can use the input; nothing was run.
    """
    from keras_cnn import progress
    from keras_cnn import recipe as recipes
    from keras_cnn.results import grid

    ends: dict[str, _End] = {}
    errors: list[UserError] = []
    for name in recipes.names():
        if recipes.read(name).in_all:
            try:
                ends[name] = conduct(name)
            except UserError as error:
                errors.append(error)
                ends[name] = _End(f"not run: {error}", 1)
    if len(errors) == len(ends):
        raise errors[0]
    lines = [(name, end.line) for name, end in ends.items()]
    left = [end.seconds_left for end in ends.values() if end.seconds_left is not None]
    if left:
        lines.append(("all", f"about {progress.duration(sum(left))} for what is not on disk"))
    print("\n".join(["", *grid.aligned(lines)]))
    return min((end.code for end in ends.values() if end.code), default=0)


def _choice(plan: Plan, overrides: Mapping[str, object]) -> str:
    """One line: the profile nobody asked for, and what it means here."""
    from keras_cnn.data import sources
    from keras_cnn.downloads import registry
    from keras_cnn.pretrained import named

    if plan.profile not in ("deck", "mini"):
        return ""
    profile = plan.recipe.profiles[plan.profile]
    said = profile.stands_in or "the deck's own data, networks and settings"
    if overrides:
        specs = [run.spec for run in plan.runs]
        titles = dict.fromkeys(sources.title(spec.images.data) for spec in specs)
        starts = dict.fromkeys(
            f"{spec.network.model} from {named.weights_title(spec.network.weights)}"
            for spec in specs
        )
        said = f"data {', '.join(titles)}; {', '.join(starts)}"
        is_file = overrides.get("weights", "random") not in named.NAMED_WEIGHTS
        if is_file and "model" not in overrides:
            said += " (--set model NAME: another network)"
    if profile.length != 1:
        said += f", in {profile.length:g} times the epochs"
    if profile.rows:
        said += (
            f", {len(profile.rows)} of {len(plan.recipe.rows)} rows (--rows=all: the others too)"
        )
    if plan.profile == "mini":
        missing = plan.missing_downloads
        bundle = {download.name for download in registry.find("deck")}
        fetched = ["deck"] if {*missing} <= bundle else missing
        commands = " and ".join(f"`python -m keras_cnn fetch {name}`" for name in fetched)
        said += f" (the deck's own needs {commands}; not here yet: {' '.join(missing)})"
    elif "mini" in plan.recipe.profiles:
        said += " (--profile=mini is smaller)"
    return f"Profile {plan.profile}: {said}."


def _print_table(study: Study, kept: Path | None) -> None:
    from keras_cnn.results import terminal

    width = shutil.get_terminal_size(fallback=(WIDTH, 0)).columns
    print(terminal.text(study.table, width))
    folder = study.plan.folder
    tell(f"Tables and pictures are in {folder}, models in {folder}/<run>/model.keras.")
    if kept:
        say(f"The table that was there showed other runs: it is now in {kept}, with its pictures.")


def _tell_failures(failed: Sequence[tuple[Event, str]], damaged: Sequence[UserError]) -> None:
    from keras_cnn import progress

    if failed:
        say(f"\n{progress.runs(len(failed))} failed; the same command tries again:")
    for event, log in failed:
        say(f"  {progress.title(event.job)}: {event.error}\n    log: {log}")
    for error in damaged:
        say(f"keras_cnn: left out of the table: {error}")
