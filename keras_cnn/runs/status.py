"""How far a recipe's runs are, whoever makes them: asked from another terminal or machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from keras_cnn import files, progress
from keras_cnn.results import claims, grid, identity
from keras_cnn.runs import publish
from keras_cnn.runs.executors import cluster
from keras_cnn.runs.jobs import Job
from keras_cnn.runs.study import Plan

ORDER = ("done", "under way", "waiting", "failed", "not begun")


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        job: The run and its folder.
        kind: One of `ORDER`.
        text: More of it: where it is made and its last epoch, or why it failed.
    """

    job: Job
    kind: str
    text: str = ""


def states(plan: Plan) -> list[State]:
    """How far each run of a plan is.

    Raises:
        UserError: The data or the weights are not on this machine.
    """
    runs = [identity.as_on_disk(run, plan.out) for run in plan.runs]
    return [_state(Job(run, identity.run_folder(run, plan.out))) for run in runs]


def text(plan: Plan, found: list[State]) -> str:
    """Counts, and a line for each run that is neither done nor still to come."""
    counts = Counter(state.kind for state in found)
    counted = [f"{counts[kind]} {kind}" for kind in ORDER if counts[kind]]
    lines = [f"{plan.recipe.name}: {progress.runs(len(found))}, {', '.join(counted)}"]
    told = [state for state in found if state.kind not in ("done", "not begun")]
    told.sort(key=lambda state: ORDER.index(state.kind))
    cells = [(progress.title(state.job), state.kind, state.text) for state in told]
    return "\n".join([*lines, *grid.aligned(cells)])


def _state(job: Job) -> State:
    if files.is_there(job.folder):
        return State(job, "done")
    if (told := claims.holder(job.folder)) is not None:
        return State(job, "under way", _how_far(job, told))
    if ticket := cluster.ticket_of(job):
        return State(job, "waiting", f"{ticket['on']} has it as {ticket['name']}")
    log = publish.log_of(job.folder)
    return State(job, "failed", f"log: {log}") if log.exists() else State(job, "not begun")


def _how_far(job: Job, told: dict) -> str:
    where = f"on {told['host']}, process {told['process']}" if "host" in told else ""
    if "epoch" not in told:
        return where
    epochs = told.get("epochs", getattr(job.run.spec.training, "epochs", 1))
    figures = [
        f"{part} {told[f'{part}_accuracy']:.1%}"
        for part in ("train", "test")
        if isinstance(told.get(f"{part}_accuracy"), float)
    ]
    return ", ".join([f"epoch {told['epoch']}/{epochs}", *figures, where])
