"""What the engine and its executors speak of: a job, and what happens to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from keras_cnn.recipe.spec import Run

REPORTS = ("epoch", "note", "spent")  # of a run under way, each a record with its name in it
ENDS = ("done", "busy", "lost", "failed")


@dataclass(frozen=True)
class Job:
    """A run and the folder its result goes to.

    Attributes:
        run: What to do.
        folder: Where the result goes.
        fresh: Make it anew where it is there.
        wait: Wait while another process holds the run.
    """

    run: Run
    folder: Path
    fresh: bool = False
    wait: bool = False

    def __repr__(self) -> str:
        return f"Job({self.folder.name})"

    def task(self) -> dict[str, object]:
        """What `worker.main` reads, as JSON has it."""
        folder = str(self.folder.absolute())
        return {"run": self.run.model_dump(), "folder": folder, "fresh": self.fresh} | {
            "wait": self.wait
        }


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Attributes:
        job: The job it happened to.
        kind: `started`, `epoch`, `note` (a line worth telling), `spent` (seconds by part of the
            work, by the clock and of the processor), or one of `ENDS`: `done`, `busy` (another
            process holds it), `lost` (its machine or its time ended: worth another try) or
            `failed`.
        record: The epoch's record, or `note`, or `spent`.
        error: One line that says why it failed, or was lost.
        log: What the process wrote to standard error, where it failed.
    """

    job: Job
    kind: str
    record: dict | None = None
    error: str = ""
    log: str = field(default="", repr=False)
