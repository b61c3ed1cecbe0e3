"""Recipe files: YAML to a validated recipe. Never imports keras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from keras_cnn import resolve, strict_yaml
from keras_cnn.errors import UserError, nearest
from keras_cnn.measures import MEASURES
from keras_cnn.settings import Group, Positive, PositiveInt

Settings = dict[str, object]
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
    """

    settings: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ("test_accuracy",)
    by_epoch: bool = False


BOTH_SPLITS = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
FIGURE_KINDS: dict[str, FigureKind] = {
    "curves": FigureKind(quantities=BOTH_SPLITS, by_epoch=True),
    "runs": FigureKind(quantities=BOTH_SPLITS, by_epoch=True),
    "lines": FigureKind(("by",), by_epoch=True),
    "bars": FigureKind(("by",)),
    "scatter": FigureKind(("by", "across")),
    "trend": FigureKind(("by", "across")),
    "heat_map": FigureKind(("by", "across")),
    "interval": FigureKind(),
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
        deck: What the slide or its notebook gives.
        variants: Those it is run in; empty takes all.
    """

    row: int | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    settings: Settings = Field(default_factory=dict)
    deck: Deck = Deck()
    variants: list[str] = Field(default_factory=list)


class Profile(Group):
    """Where a recipe runs: on the deck's data and weights, or on what every machine has.

    Attributes:
        stands_in: What stands in for what, in words.
        networks: What stands in for a network: another, and the weights it starts from.
        repeats: Runs of each row and variant; None takes the recipe's.
        settings: Those in which it differs.
    """

    stands_in: str = ""
    networks: dict[str, Settings] = Field(default_factory=dict)
    repeats: PositiveInt | None = None
    settings: Settings = Field(default_factory=dict)


class Recipe(Group):
    """A slide's experiment.

    Attributes:
        name: The file's name without its ending.
        path: The file.
        title: One line.
        slides: The slides whose numbers it gives.
        columns: The table's columns: heading to the setting shown under it.
        repeats: Runs of each row and variant.
        alone: Make one run at a time, since its seconds are what is measured.
        in_all: `recipe all` runs it too.
        needs: What `fetch` must have brought for the `deck` profile.
        note: What a reader of the table should know; may be empty.
        deck_figures: How the deck's numbers were made, as `best of five runs`.
        measures: What the table shows of each row, from `measures.MEASURES`.
        figures: The pictures; empty draws each row's curves and confusion matrices.
        settings: What all rows share.
        variants: By name, the settings in which a variant differs.
        profiles: By name; `deck` is the slide's own measurement.
        rows: The table's rows.
    """

    name: str
    path: str
    title: str
    slides: list[int] = Field(default_factory=list)
    columns: dict[str, str]
    repeats: PositiveInt = 5
    alone: bool = False
    in_all: bool = True
    needs: list[str] = Field(default_factory=list)
    note: str = ""
    deck_figures: str = "best of five runs"
    measures: list[str] = Field(default_factory=lambda: ["train_accuracy", "test_accuracy"])
    figures: list[Figure] = Field(default_factory=list)
    settings: Settings = Field(default_factory=dict)
    variants: dict[str, Settings]
    profiles: dict[str, Profile]
    rows: Annotated[list[Row], Field(min_length=1)]

    def variants_of(self, row: Row) -> list[str]:
        """The variants a row is run in."""
        return [name for name in self.variants if not row.variants or name in row.variants]


def folder() -> Path:
    """The folder of the recipe files: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def read(name: str) -> Recipe:
    """Reads and validates one recipe, all its rows, variants and profiles.

    Args:
        name: A recipe's name, or the path of a `.yaml` file.

    Raises:
        UserError: No such recipe, or something in it is wrong; with file and line.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no recipe {name!r}: {nearest(name, names())}")
    document, lines = strict_yaml.read(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: a recipe is a mapping with title, columns, variants, rows, …")
    try:
        recipe = Recipe.model_validate({**document, "name": path.stem, "path": str(path)})
    except ValidationError as error:
        raise UserError(_complaint(error, path, lines)) from None
    _check_rows(recipe, lines)
    settings: dict[tuple[str, str], list[Settings]] = {}
    for profile in recipe.profiles:
        for variant in recipe.variants:
            for row in recipe.rows:
                if variant not in recipe.variants_of(row):
                    continue
                groups = resolve.typed(resolve.merge(recipe, row, variant, profile, {}, lines))
                values = {key: value for group in groups for key, value in group}
                settings.setdefault((profile, variant), []).append({**values, "row": str(row.row)})
    _check_columns(recipe, lines)
    _check_measures(recipe, lines)
    for index in range(len(recipe.figures)):
        _check_figure(recipe, index, list(settings.values()), lines)
    return recipe


def _complaint(error: ValidationError, path: Path, lines: Mapping[strict_yaml.KeyPath, int]) -> str:
    """One line for the first thing wrong with a recipe file's shape."""
    # A misspelt key is also a missing one: the misspelling is what helps.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    at = tuple(part for part in first["loc"] if part not in ("int", "str", "float"))
    known = next((at[:end] for end in range(len(at), -1, -1) if at[:end] in lines), ())
    place = f"{path}:{lines.get(known, 1)}"
    name = ".".join(str(part) for part in at)
    if first["type"] == "extra_forbidden":
        group = _group_at(at)
        fields = [
            field
            for field in group.model_fields
            if group is not Recipe or field not in ("name", "path")
        ]
        return f"{place}: no key {name!r}: {nearest(str(at[-1]), fields)}"
    return f"{place}: {name}: {resolve.wanted(first)}"


def _group_at(at: Sequence[str | int]) -> type[Group]:
    """Which group has the last key of a path into a recipe file."""
    if at[0] == "rows" and "deck" in at[:-1]:
        return Deck
    inner = {"rows": Row, "profiles": Profile, "figures": Figure}
    return inner.get(str(at[0]), Recipe) if len(at) > 1 else Recipe


def _check_rows(recipe: Recipe, lines: Mapping[strict_yaml.KeyPath, int]) -> None:
    seen: set[str] = set()
    for index, row in enumerate(recipe.rows):
        if str(row.row) in seen:
            place = f"{recipe.path}:{lines[('rows', index)]}"
            raise UserError(f"{place}: row {row.row!r} is here a second time")
        seen.add(str(row.row))
        for number, variant in enumerate(row.variants):
            key = ("rows", index, "variants", number)
            _require_known(recipe, lines, key, "variant", variant, recipe.variants)
    if "deck" not in recipe.profiles:
        raise UserError(f"{recipe.path}: profiles needs 'deck', the slide's own measurement")


def _check_columns(recipe: Recipe, lines: Mapping[strict_yaml.KeyPath, int]) -> None:
    for heading, setting in recipe.columns.items():
        _require_known(
            recipe, lines, ("columns", heading), "setting", setting, resolve.setting_names()
        )


def _check_measures(recipe: Recipe, lines: Mapping[strict_yaml.KeyPath, int]) -> None:
    for index, measure in enumerate(recipe.measures):
        _require_known(recipe, lines, ("measures", index), "measure", measure, MEASURES)


def _check_figure(
    recipe: Recipe,
    index: int,
    settings: Sequence[Sequence[Settings]],
    lines: Mapping[strict_yaml.KeyPath, int],
) -> None:
    """Checks one figure's names, and that what it averages over is the repeats of one row.

    Args:
        recipe: The recipe.
        index: Of the figure.
        settings: For each profile and variant, the resolved settings of every row.
        lines: Of the file's entries.
    """
    figure, at = recipe.figures[index], ("figures", index)
    names = [other.name for other in recipe.figures[:index]]
    if figure.name in names:
        place = strict_yaml.place(recipe.path, lines, (*at, "name"))
        raise UserError(f"{place}: figure {figure.name!r} is here a second time")
    _require_known(recipe, lines, (*at, "kind"), "kind of figure", figure.kind, FIGURE_KINDS)
    kind = FIGURE_KINDS[figure.kind]
    measured = [name for name in MEASURES if MEASURES[name].by_epoch or not kind.by_epoch]
    for number, quantity in enumerate(figure.quantities):
        key = (*at, "quantities", number)
        _require_known(recipe, lines, key, "quantity", quantity, measured)
    for key in ("by", "across"):
        given = getattr(figure, key)
        if (given is not None) != (key in kind.settings):
            place = strict_yaml.place(recipe.path, lines, (*at, key))
            needed = "needs" if key in kind.settings else "takes no"
            raise UserError(f"{place}: figure {figure.name!r}: kind {figure.kind} {needed} {key!r}")
        if given is not None:
            choices = [*resolve.setting_names(), "row"]
            choices += MEASURES if (figure.kind, key) == ("scatter", "across") else []
            _require_known(recipe, lines, (*at, key), "setting", given, choices)
    resolve.typed(
        {
            key: resolve.Setting(value, strict_yaml.place(recipe.path, lines, (*at, "where", key)))
            for key, value in figure.where.items()
            if key != "row"
        }
    )
    place = strict_yaml.place(recipe.path, lines, (*at, "where"))
    chosen = [[row for row in rows if matches(figure.where, row)] for rows in settings]
    if not any(chosen):
        raise UserError(f"{place}: figure {figure.name!r}: no row has the settings of 'where'")
    if figure.kind == "scatter":
        return  # a point for each row, whatever its settings
    for rows in chosen:
        seen: dict[tuple[object, ...], object] = {}
        for row in rows:
            key = tuple(row.get(getattr(figure, name)) for name in kind.settings)
            if key in seen:
                raise UserError(
                    f"{place}: figure {figure.name!r} would average over rows {seen[key]} and "
                    f"{row['row']}: name in 'where' what tells them apart"
                )
            seen[key] = row["row"]


def matches(where: Settings, settings: Settings) -> bool:
    """Whether settings (with the row's name under `row`) are those a figure is drawn from."""
    wanted = where | ({"row": str(where["row"])} if "row" in where else {})
    return all(key in settings and settings[key] == value for key, value in wanted.items())


def _require_known(
    recipe: Recipe,
    lines: Mapping[strict_yaml.KeyPath, int],
    at: strict_yaml.KeyPath,
    what: str,
    name: str,
    choices: Iterable[str],
) -> None:
    if name not in choices:
        place = strict_yaml.place(recipe.path, lines, at)
        raise UserError(f"{place}: no {what} {name!r}: {nearest(name, choices)}")
