"""A recipe in Python: plan it, run what is missing, read its results. Prints nothing.

from keras_cnn import study

done = study.run("fewshot_convnext", rows=["4"], variant="corrected")
done.results[0].history      # one dict an epoch; .metrics, .settings, .place, .model()
done.frame()                 # a pandas DataFrame, a line for each run
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn import environment, files, models, recipe, torch_fast
from keras_cnn.data import sources
from keras_cnn.downloads import registry
from keras_cnn.errors import UserError, shell_line
from keras_cnn.home import DEFAULT_OUT
from keras_cnn.pretrained import named
from keras_cnn.recipe import resolve, resources
from keras_cnn.recipe.resources import Resources
from keras_cnn.recipe.schema import Recipe
from keras_cnn.recipe.spec import Run
from keras_cnn.results import identity, store, table
from keras_cnn.results.store import Result
from keras_cnn.results.table import Table
from keras_cnn.runs import described, engine, executors, preflight
from keras_cnn.runs.jobs import Event, Job

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Plan:
    """The runs of a recipe that were asked for; none has been made.

    Attributes:
        recipe: The recipe.
        profile: The profile's name.
        missing_downloads: What the recipe's own profile needs and is not on this machine.
        runs: The runs, in the order they are made.
        out: Results go to `out/<recipe>/`.
        parallel: Runs at a time.
        fresh: Run again what is on disk too.
        command: The command line that gives the same table again.
        resources: Where the runs are made.
    """

    recipe: Recipe
    profile: str
    missing_downloads: list[str]
    runs: list[Run]
    out: Path
    parallel: int
    fresh: bool
    command: str
    resources: Resources

    def __repr__(self) -> str:
        return f"Plan({self.recipe.name}, profile {self.profile}, {len(self.runs)} runs)"

    @property
    def folder(self) -> Path:
        """Where the results, tables and pictures go."""
        return self.out / self.recipe.name


@dataclass(frozen=True, repr=False)
class Work:
    """A plan's runs where they can be made on this machine.

    Attributes:
        plan: What was asked for.
        jobs: The runs and their folders, in the order they are made.
        left_out: By row, or row and variant, why it cannot be run here: its backend is not
            installed, or its method cannot learn from so few images.
        shared_images: How many test images have the pixels of training images.
        taken_whole: Classes of a user's folder with fewer training images than were asked for, and
            how many.
    """

    plan: Plan
    jobs: list[Job]
    left_out: dict[str, str]
    shared_images: int = 0
    taken_whole: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> list[Job]:
        """The jobs that are to be run."""
        return [job for job in self.jobs if job.fresh or not files.is_there(job.folder)]


@dataclass(frozen=True, repr=False)
class Study:
    """What is on disk of a plan's runs.

    Attributes:
        plan: What was asked for.
        results: The finished runs.
        failed: The runs that failed, each with its error and log.
        damaged: What is wrong with results that cannot be read.
        seconds: What running them took.
    """

    plan: Plan
    results: list[Result]
    failed: list[Event] = field(default_factory=list)
    damaged: list[UserError] = field(default_factory=list)
    seconds: float = 0.0

    def __repr__(self) -> str:
        return (
            f"Study({self.plan.recipe.name}, {len(self.results)} results, "
            f"{len(self.failed) + len(self.damaged)} failed)"
        )

    @property
    def table(self) -> Table | None:
        """Rows and variants over their repeats; None where there is no result."""
        if not self.results:
            return None
        return table.build(self.plan.recipe, self.results, self.plan.command)

    def frame(self) -> pandas.DataFrame:
        """A line for each run: where it stands, its settings, its metrics.

        Raises:
            UserError: pandas, which nothing else here needs, is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("a frame needs pandas: pip install pandas") from None

        return pandas.DataFrame(
            [
                {**result.place.model_dump(), **result.settings, **result.metrics}
                for result in self.results
            ]
        )


def run(name: str, notify: Callable[[Event], None] | None = None, **asked: object) -> Study:
    """Runs what is not on disk yet of a recipe and gives all of its results.

    Args:
        name: A recipe's name, or the path of a recipe file.
        notify: Called with each `jobs.Event` as it happens.
        **asked: As for `plan`: profile, rows, variant, repeats, overrides, backend and others.

    Raises:
        UserError: Something of the input cannot be used; nothing was run.
    """
    return execute(prepare(plan(name, **asked)), notify)


def plan(
    name: str,
    profile: str | None = None,
    rows: Sequence[str] | None = None,
    variant: str = "both",
    repeats: int | None = None,
    overrides: Mapping[str, object] | None = None,
    backend: str = "torch",
    out: str | Path = DEFAULT_OUT,
    parallel: int | None = None,
    fresh: bool = False,
    threads: int | None = None,
    on: str = "local",
) -> Plan:
    """The runs that are asked for, checked as far as that takes no framework.

    Args:
        name: A recipe's name, or the path of a recipe file.
        profile: None takes `deck` when what it needs has been fetched or given, else `mini`; the
            only one where there is one.
        rows: Names of rows, or `all`; None runs those of the profile.
        variant: A variant's name, or `both`, which is `corrected` where `overrides` has a method.
        repeats: Runs of each row and variant; None takes the recipe's number.
        overrides: Settings that win over the file's. Where `data` is a user's folder, all its
            test images are used unless `test_shots` is given too.
        backend: The Keras backend.
        out: Results go to `out/<recipe>/`.
        parallel: Runs at a time, at most one a processor core; None takes as many, or one on a GPU
            and where the recipe measures time. On several GPUs, that many on each. Elsewhere than
            on this machine, None sets no bound.
        fresh: Run again what is on disk too.
        threads: Of each run, which are part of its identity; None shares out the cores that are
            free just now, or is 1 elsewhere than on this machine. A result on disk is taken
            whatever number made it.
        on: Where: `local`, `slurm` or `ray`, with settings as `resources.read` takes them.

    Raises:
        UserError: Something of the input cannot be used.
    """
    out, overrides = Path(out).expanduser(), overrides or {}
    read = recipe.read(name)
    missing = _missing_downloads(read, overrides)
    profile = profile or _profile(read, missing)
    if "method" in overrides and variant == "both" and "corrected" in read.variants:
        variant = "corrected"  # as run, another method stands for nothing
    with_images = _with_test_images(overrides)
    runs = resolve.runs(read, profile, rows, variant, repeats, with_images, backend)
    where = resources.read(on, read.slurm)
    is_here = isinstance(where, resources.Local)
    parallel = min(_parallel(parallel, read.alone) if is_here else parallel or len(runs), len(runs))
    flags = {"profile": profile, "rows": ",".join(rows or ())}
    flags |= {"variant": variant if variant != "both" else "", "repeats": repeats}
    flags |= {"backend": backend, "out": out if out != DEFAULT_OUT else ""}
    flags |= {"threads": threads}
    threads = threads or (_threads(parallel) if is_here else 1)
    command, runs = _command(name, flags, overrides), _checked(runs, threads)
    return Plan(read, profile, missing, runs, out, parallel, fresh, command, where)


def _parallel(asked: int | None, alone: bool) -> int:
    """How many runs at a time this machine makes."""
    devices = len(environment.gpus())
    if alone:
        return min(asked or 1, environment.cores())
    return min((asked or 1) * devices if devices else asked or math.inf, environment.cores())


def _threads(parallel: int) -> int:
    """How many threads each of so many runs at a time has."""
    most = environment.cores() // parallel
    return max(1, min(most, environment.free_cores() // parallel)) if most > 1 else 1


def _checked(runs: Sequence[Run], threads: int) -> list[Run]:
    """The runs as this machine computes them; refuses what networks have not."""
    plain = torch_fast.is_off()
    for run in runs:
        network = run.spec.network.model_dump(include={"hidden_units", "stochastic_depth"})
        models.check(run.spec.network.model, run.spec.images.image_size, **network)
    return [
        run.with_spec(threads=threads, plain=plain and run.spec.backend == "torch") for run in runs
    ]


def prepare(plan: Plan) -> Work:
    """Finds each run's folder, and all that can be found out before any run.

    Raises:
        UserError: Data, weights or the folder for results cannot be used; nothing was run.
    """
    store.recover(plan.folder)
    jobs, left_out = [], {}
    for asked in plan.runs:
        run = identity.as_on_disk(asked, plan.out)
        job = Job(run, identity.run_folder(run, plan.out), plan.fresh)
        try:
            if plan.fresh or not files.is_there(job.folder):
                environment.require(run.spec.backend)
            else:  # a kill may have come between the result and this
                identity.checkpoint_file(run.spec).unlink(missing_ok=True)
            jobs.append(job)
        except UserError as error:
            left_out[run.place.row] = str(error)
    if not jobs:
        raise UserError(next(iter(left_out.values())))
    work = Work(plan, jobs, left_out)
    runs = [job.run for job in work.missing]
    unfit = preflight.check(runs)
    jobs = [job for job in jobs if preflight.row_and_variant(job.run) not in unfit]
    if not jobs:
        preflight.refuse(unfit)
    files.check_writable(plan.folder)
    shared = preflight.count_shared(runs)
    few = preflight.taken_whole(runs)
    work = replace(work, jobs=jobs, left_out=left_out | unfit)
    return replace(work, shared_images=shared, taken_whole=few)


def execute(work: Work, notify: Callable[[Event], None] | None = None) -> Study:
    """Runs what is missing, and reads what is on disk then.

    Args:
        work: From `prepare`.
        notify: Called with each `jobs.Event` as it happens.
    """
    began = time.monotonic()
    jobs, plan = work.missing, work.plan
    failed = []
    if jobs:
        executor = executors.executor(plan.resources, jobs, plan.parallel)
        failed = engine.execute(jobs, executor, notify or (lambda event: None))
    results, damaged = _read([job for job in work.jobs if files.is_there(job.folder)])
    return Study(work.plan, results, failed, damaged, time.monotonic() - began)


def _read(jobs: Sequence[Job]) -> tuple[list[Result], list[UserError]]:
    """The results of jobs under the names of this command, and what is wrong with the others."""
    results: list[Result] = []
    damaged: list[UserError] = []
    for job in jobs:
        try:
            results.append(store.read_as(job.folder, job.run))
        except UserError as error:
            damaged.append(error)
    return results, damaged


def _profile(recipe: Recipe, missing_downloads: Sequence[str]) -> str:
    """The profile of a command that names none."""
    wanted = "mini" if missing_downloads else "deck"
    return wanted if wanted in recipe.profiles else next(iter(recipe.profiles))


def _with_test_images(overrides: Mapping[str, object]) -> Mapping[str, object]:
    """The settings given, and all test images of a user's folder, however many the deck drew."""
    source = overrides.get("data")
    is_own = isinstance(source, str) and not sources.is_named(source)
    return {"test_shots": None, **overrides} if is_own else overrides


def _missing_downloads(recipe: Recipe, overrides: Mapping[str, object]) -> list[str]:
    """What the deck's profile needs and is neither here nor given.

    A file of weights that Keras wrote is of a run made here, so not of the deck's network unless
    the model is named.
    """
    weights = str(overrides.get("weights", "pretrained"))
    fits = "model" in overrides or not weights.endswith((".keras", ".h5"))
    given = {"archive": "data" in overrides}
    given["weights"] = weights not in named.NAMED_WEIGHTS and fits
    return [
        download.name
        for name in recipe.needs
        for download in registry.find(name)
        if not given[download.kind] and not download.is_here()
    ]


def _command(name: str, flags: Mapping[str, object], overrides: Mapping[str, object]) -> str:
    """The command line that gives the same table again."""
    words = ["python", "-m", "keras_cnn", "recipe", name]
    words += [f"--{flag}={value}" for flag, value in flags.items() if value]
    for key, value in overrides.items():
        flag = f"--{key}" if key in ("data", "weights") else f"--set={key}"
        words.append(f"{flag}={described.written(value)}")
    return shell_line(words)
