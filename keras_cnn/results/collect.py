"""The results of a recipe that are on disk and belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_cnn.data import sources
from keras_cnn.errors import UserError, shell_line
from keras_cnn.home import DEFAULT_OUT
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results import store, table
from keras_cnn.results.store import Result
from keras_cnn.results.table import Line, Table


@dataclass(frozen=True)
class Collected:
    """The results of one recipe.

    Attributes:
        recipe: The recipe.
        folder: Where its results are, or would be.
        results: The runs in the last command's table, which share data, weights and settings.
            Other runs in the folder may be of anything.
        table: Made from them; None where there are none.
        problems: What is wrong with the folder, one line each.
    """

    recipe: Recipe
    folder: Path
    results: Sequence[Result]
    table: Table | None
    problems: Sequence[str]

    @property
    def command(self) -> str:
        """The command line that makes the results."""
        words = ["python", "-m", "keras_cnn", "recipe", self.recipe.name]
        out = self.folder.parent
        return shell_line(words if out == DEFAULT_OUT else [*words, f"--out={out}"])

    @property
    def source(self) -> str:
        """Profile and data of the results, of which there must be some, in a few words."""
        names = sorted({sources.title(result.settings["data"]) for result in self.results})
        profiles = sorted({result.place.profile for result in self.results})
        words = f"profile {', '.join(profiles)}, data {', '.join(names)}"
        return words if self.table.comparable else f"{words}; not the deck's measurement"

    @property
    def lines(self) -> Sequence[Line]:
        """The table's lines; none where there is no table."""
        return self.table.lines if self.table else ()

    def line(self, row: str, variant: str) -> Line | None:
        """One row and variant; None where it has no runs."""
        named = (line for line in self.lines if (line.row, line.variant) == (row, variant))
        return next(named, None)

    def runs(self, line: Line) -> list[Result]:
        """The runs of one line."""
        return [result for result in self.results if result.folder.name in line.runs]


def collect(recipe: Recipe, out: Path) -> Collected:
    """Reads the runs in the table of the last `recipe` command with this `--out`.

    What cannot be read is left out and named among the problems.
    """
    folder = out / recipe.name
    store.recover(folder)
    problems: list[str] = []
    command, names = _last_table(folder, problems)
    rows = {(str(row.row), name) for row in recipe.rows for name in recipe.variants_of(row)}
    results = []
    for name in names:
        try:
            result = store.read(folder / name)
        except UserError as error:
            problems.append(str(error) if (folder / name).is_dir() else f"{folder / name}: gone")
        else:
            if (result.place.row, result.place.variant) in rows:
                results.append(result)
            else:
                problems.append(f"{folder / name}: of a row or variant the recipe has no longer")
    made = table.build(recipe, results, command) if results else None
    return Collected(recipe, folder, results, made, problems)


def _last_table(folder: Path, problems: list[str]) -> tuple[str, list[str]]:
    """The last command, and the names of the run folders in its table."""
    path = folder / "table.json"
    try:
        written = table.read(path)
        return written.command, written.runs
    except FileNotFoundError:
        if next(folder.glob("*/run.json"), None):
            problems.append(
                f"{folder}: runs without a table.json, which tells what belongs together"
            )
    except (OSError, ValueError):
        problems.append(f"{path}: damaged; the recipe's command writes it again")
    return "", []
