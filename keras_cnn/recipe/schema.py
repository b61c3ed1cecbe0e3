"""What a recipe file can say: rows, variants, profiles, columns, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, SkipValidation

from keras_cnn.methods.settings import Group, Positive, PositiveInt
from keras_cnn.recipe.resources import Slurm
from keras_cnn.recipe.strict_yaml import Document

Settings = dict[str, object]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]  # becomes part of a folder's name
Percent = Annotated[float, Field(ge=0, le=100)]


class Deck(Group):
    """What the slide shows for a row: accuracies in percent, seconds of all epochs or of one."""

    train_accuracy: Percent | None = None
    test_accuracy: Percent | None = None
    seconds: Positive | None = None
    seconds_an_epoch: Positive | None = None


@dataclass(frozen=True)
class FigureKind:
    """What a kind of figure is told.

    Attributes:
        settings: Which of `by` and `across` it needs.
        quantities: What it shows where the figure names none.
        by_epoch: It shows quantities epoch by epoch, not after the last one.
        numeric_across: `across` must have numbers.
        point_per_row: Each row is a point of its own, along a setting or a measure. Elsewhere rows
            that agree in `settings` would be averaged, which is refused.
        shows_deck: The deck's numbers are drawn beside ours.
    """

    settings: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ("test_accuracy",)
    by_epoch: bool = False
    numeric_across: bool = False
    point_per_row: bool = False
    shows_deck: bool = False


BOTH_SPLITS = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
FIGURE_KINDS: dict[str, FigureKind] = {
    "curves": FigureKind(quantities=BOTH_SPLITS, by_epoch=True),
    "runs": FigureKind(quantities=BOTH_SPLITS, by_epoch=True),
    "lines": FigureKind(("by",), by_epoch=True),
    "bars": FigureKind(("by",), shows_deck=True),
    "scatter": FigureKind(
        ("by", "across"), numeric_across=True, point_per_row=True, shows_deck=True
    ),
    "trend": FigureKind(("by", "across"), numeric_across=True),
    "heat_map": FigureKind(("by", "across")),
    "interval": FigureKind(),
    "rows": FigureKind(quantities=("test_accuracy_over_images",), point_per_row=True),
}


class Figure(Group):
    """A picture drawn from the results, a column of panels for each variant.

    Attributes:
        name: The picture's file name without its ending.
        kind: One of `FIGURE_KINDS`, drawn by the function of that name in `plots`.
        title: Above the picture; empty takes the recipe's.
        where: Only runs with these settings; `row` names a row.
        by: The setting, or `row`, that tells lines, bars, colours or a heat map's rows apart.
        across: The setting of a heat map's columns; what a scatter's points lie along, a setting
            or a measure.
        quantities: From `measures.MEASURES`; empty takes the kind's.
        band: Draw lines once more below, with one sample standard deviation on each side.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    kind: str
    title: str = ""
    where: Settings = Field(default_factory=dict)
    by: str | None = None
    across: str | None = None
    quantities: list[str] = Field(default_factory=list)
    band: bool = True

    @property
    def shown(self) -> Sequence[str]:
        """The quantities, its own or its kind's."""
        return self.quantities or FIGURE_KINDS[self.kind].quantities


class Row(Group):
    """One row of the slide's table.

    Attributes:
        row: Its name.
        settings: Those in which it differs; they must be its method's.
        profiles: By a profile's name, those in which it differs there.
        deck: What the slide or its notebook gives.
        variants: Those it is run in; empty takes all.
    """

    row: int | Name
    settings: Settings = Field(default_factory=dict)
    profiles: dict[str, Settings] = Field(default_factory=dict)
    deck: Deck = Deck()
    variants: list[str] = Field(default_factory=list)


class Grid(Group):
    """Rows that are the product of some settings' values.

    Attributes:
        name: The rows' names, with settings in braces, as `{method}-{shots}`; empty counts them.
        settings: What all its rows share.
        across: The settings that vary, the last one fastest: each a list of values, or of settings
            that go together.
        deck: As a row's, but a list for all rows in their order.
        profiles: As a row's.
        variants: As a row's.
    """

    name: str = ""
    settings: Settings = Field(default_factory=dict)
    across: dict[str, Annotated[list[object], Field(min_length=1)]]
    deck: dict[str, list[float]] = Field(default_factory=dict)
    profiles: dict[str, Settings] = Field(default_factory=dict)
    variants: list[str] = Field(default_factory=list)


class Variant(Group):
    """One way to run all rows: as the deck did, or corrected.

    Attributes:
        settings: Those in which it differs.
        methods: What takes a method's place: another, and what it needs set.
    """

    settings: Settings = Field(default_factory=dict)
    methods: dict[str, Settings] = Field(default_factory=dict)


class Profile(Group):
    """Where a recipe runs: on the deck's data and weights, or on what every machine has.

    Attributes:
        stands_in: What stands in for what, in words.
        networks: What stands in for a network: another, the weights it starts from, and what it
            needs set otherwise.
        repeats: Runs of each row and variant; None takes the recipe's.
        settings: Those in which it differs. What a row sets otherwise is not overwritten in
            silence: the row says what it has in this profile.
        length: What every number of epochs is multiplied by, a schedule's included, so that a
            shorter run passes through the same rates. Whole ones stay whole, from 1 on.
        rows: Names of the rows it is run with; None takes all. Others are run where the command
            names them.
    """

    stands_in: str = ""
    networks: dict[str, Settings] = Field(default_factory=dict)
    repeats: PositiveInt | None = None
    settings: Settings = Field(default_factory=dict)
    length: Positive = 1.0
    rows: Annotated[list[int | Name], Field(min_length=1)] | None = None


class Recipe(Group):
    """A slide's experiment.

    Attributes:
        name: The file's name without its ending.
        document: The file.
        title: One line.
        slides: The slides whose numbers it gives.
        columns: The table's columns: heading to the setting shown under it.
        repeats: Runs of each row and variant.
        alone: Make one run at a time, since its seconds are what is measured.
        in_all: `recipe all` runs it too.
        slurm: What each run is given where they go to Slurm, as `resources.Slurm`.
        needs: What `fetch` must have brought for the `deck` profile.
        note: What a reader of the table should know; may be empty.
        method_notes: By a method's name, what is told where it, or what the deck had in its place,
            is in the table.
        deck_figures: How the deck's numbers were made, as `best of five runs`.
        measures: What the table shows of each row, from `measures.MEASURES`.
        reference: The row that the others are compared with; None takes the first.
        figures: The pictures; empty draws each row's curves and confusion matrices.
        settings: What all rows share.
        variants: By name; a single one, `corrected`, where none is named.
        profiles: By name; `deck` is the slide's own measurement. A single one, `own`, that changes
            nothing where none is named.
        rows: The table's rows, those of a `grid` included.
    """

    name: str
    document: SkipValidation[Document] = Field(repr=False)
    title: str
    slides: list[int] = Field(default_factory=list)
    columns: dict[str, str]
    repeats: PositiveInt = 5
    alone: bool = False
    in_all: bool = True
    slurm: Slurm | None = None
    needs: list[str] = Field(default_factory=list)
    note: str = ""
    method_notes: dict[str, str] = Field(default_factory=dict)
    deck_figures: str = "best of five runs"
    measures: list[str] = Field(default_factory=lambda: ["train_accuracy", "test_accuracy"])
    reference: int | Name | None = None
    figures: list[Figure] = Field(default_factory=list)
    settings: Settings = Field(default_factory=dict)
    variants: dict[Name, Variant] = Field(default_factory=lambda: {"corrected": Variant()})
    profiles: dict[Name, Profile] = Field(default_factory=lambda: {"own": Profile()})
    rows: Annotated[list[Row], Field(min_length=1)]

    @property
    def path(self) -> str:
        """The file."""
        return self.document.path

    @property
    def reference_row(self) -> str:
        """The name of the row that the others are compared with."""
        return str(self.rows[0].row if self.reference is None else self.reference)

    @property
    def shows_accuracy(self) -> bool:
        """Whether the accuracy on test images is among what is measured."""
        return not {"test_accuracy", "test_accuracy_over_images"}.isdisjoint(self.measures)

    def place(self, *at: str | int) -> str:
        """File and line of an entry, by its keys and indices."""
        return self.document.place(*at)

    def variants_of(self, row: Row) -> list[str]:
        """The variants a row is run in."""
        return [name for name in self.variants if not row.variants or name in row.variants]


def matches(where: Settings, settings: Settings) -> bool:
    """Whether settings (with the row's name under `row`) are those a figure is drawn from."""
    wanted = where | ({"row": str(where["row"])} if "row" in where else {})
    return all(key in settings and settings[key] == value for key, value in wanted.items())
