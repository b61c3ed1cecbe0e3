"""Recipe files: YAML to validated, frozen runs. Never imports keras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from keras_cnn import settings, strict_yaml
from keras_cnn.errors import UserError, nearest
from keras_cnn.measures import MEASURES
from keras_cnn.settings import (
    METHODS,
    Compute,
    Data,
    Feeding,
    Group,
    Model,
    Positive,
    PositiveInt,
    Training,
)

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
        deck: What the slide prints.
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


class Run(Group):
    """One row, one variant, one repeat: everything `run_one` needs to know.

    Attributes:
        recipe: The recipe's name.
        row: The row's name.
        variant: The variant's name.
        repeat: Counted from 0.
        profile: The profile's name.
        backend: The Keras backend it runs on.
        comparable: Whether the settings are those behind the deck's own number (the variant
            apart), so that the two may stand side by side.
        data: Which images.
        model: Which network.
        feeding: How images reach the training step.
        training: Which method, and how.
    """

    recipe: str
    row: str
    variant: str
    repeat: Annotated[int, Field(ge=0)]
    profile: str
    backend: str
    comparable: bool
    data: Data
    model: Model
    feeding: Feeding
    training: Training

    @property
    def training_seed(self) -> int:
        """Seeds the new weights, the batches' order and dropout."""
        return self.data.seed + self.repeat

    @property
    def shots_seed(self) -> int:
        """Seeds the draw of images: one for all runs, or one a repeat."""
        return self.data.seed + (self.repeat if self.data.redraw_shots else 0)


@dataclass(frozen=True)
class Setting:
    """A value, where it was written, and whether the row's method has to know it.

    What a recipe sets for all its rows may concern the method of some of them alone.
    """

    value: object
    place: str
    of_row: bool = False


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
                groups = _groups(_merged(recipe, row, variant, profile, {}, lines))
                values = {key: value for group in groups for key, value in group}
                settings.setdefault((profile, variant), []).append({**values, "row": str(row.row)})
    _check_columns(recipe, lines)
    _check_measures(recipe, lines)
    for index in range(len(recipe.figures)):
        _check_figure(recipe, index, list(settings.values()), lines)
    return recipe


def runs(
    recipe: Recipe,
    profile: str,
    rows: Sequence[str] | None = None,
    variant: str = "both",
    repeats: int | None = None,
    overrides: Mapping[str, object] | None = None,
    backend: str = "torch",
) -> list[Run]:
    """The runs of a recipe, in the order they are made: repeat by repeat, row by row.

    Args:
        recipe: What `read` gave.
        profile: One of the recipe's profiles.
        rows: Names of the rows to run; None runs all.
        variant: One of the recipe's variants, or `both` for all of them.
        repeats: Runs of each row and variant; None takes the profile's or the recipe's number.
        overrides: Settings that win over the file's.
        backend: The Keras backend of rows that name none.

    Raises:
        UserError: A name or a value is not one of the right ones.
    """
    if profile not in recipe.profiles:
        raise UserError(f"no profile {profile!r}: {nearest(profile, recipe.profiles)}")
    if variant != "both" and variant not in recipe.variants:
        raise UserError(f"no variant {variant!r}: {nearest(variant, [*recipe.variants, 'both'])}")
    if repeats is not None and repeats < 1:
        raise UserError(f"repeats is {repeats}: at least 1 is needed")
    row_names = [str(row.row) for row in recipe.rows]
    for row in rows or ():
        if row not in row_names:
            raise UserError(f"no row {row!r} in {recipe.name}: {nearest(row, row_names)}")
    count = repeats or recipe.profiles[profile].repeats or recipe.repeats
    overrides = overrides or {}
    specs = [
        _resolve(recipe, row, name, profile, overrides, backend)
        for row in recipe.rows
        if rows is None or str(row.row) in rows
        for name in recipe.variants_of(row)
        if variant in (name, "both")
    ]
    if not specs:
        raise UserError(f"no row of {recipe.name} that was asked for is run {variant}")
    _check_overrides(overrides, specs)
    return [spec.model_copy(update={"repeat": repeat}) for repeat in range(count) for spec in specs]


def _check_overrides(overrides: Mapping[str, object], specs: Sequence[Run]) -> None:
    """Refuses a setting of the command line that no run has."""
    known = {name for spec in specs for name in settings.names(spec.training.method)}
    for key in overrides:
        if key not in known:
            methods = ", ".join(sorted({spec.training.method for spec in specs}))
            raise UserError(f"command line: {methods} has no {key!r}: {nearest(key, known)}")


def _resolve(
    recipe: Recipe,
    row: Row,
    variant: str,
    profile: str,
    overrides: Mapping[str, object],
    backend: str,
) -> Run:
    chosen = {"backend": backend}
    compute, *groups = _groups(_merged(recipe, row, variant, profile, overrides, {}, chosen))
    _, *presented = _groups(_merged(recipe, row, variant, "deck", {}, {}))
    data, model, feeding, training = groups
    return Run(
        recipe=recipe.name,
        row=str(row.row),
        variant=variant,
        repeat=0,
        profile=profile,
        backend=compute.backend,
        comparable=groups == presented,
        data=data,
        model=model,
        feeding=feeding,
        training=training,
    )


def _merged(
    recipe: Recipe,
    row: Row,
    variant: str,
    profile: str,
    overrides: Mapping[str, object],
    lines: Mapping[strict_yaml.KeyPath, int],
    defaults: Settings | None = None,
) -> dict[str, Setting]:
    """Each setting's last word: defaults < recipe < row < variant < profile < command line."""
    index = recipe.rows.index(row)
    layers: list[tuple[strict_yaml.KeyPath, Settings]] = [
        (("settings",), recipe.settings),
        (("rows", index, "settings"), row.settings),
        (("variants", variant), recipe.variants[variant]),
        (("profiles", profile, "settings"), recipe.profiles[profile].settings),
    ]
    merged = {key: Setting(value, "command line") for key, value in (defaults or {}).items()}
    for at, layer in layers:
        for key, value in layer.items():
            line = lines.get((*at, key))
            place = f"{recipe.path}:{line}" if line else recipe.path
            merged[key] = Setting(value, place, of_row=layer is row.settings)
    merged |= _stand_in(recipe, profile, merged.get("model"), lines)
    for key, value in overrides.items():
        merged[key] = Setting(value, "command line")
    return merged


def _stand_in(
    recipe: Recipe,
    profile: str,
    model: Setting | None,
    lines: Mapping[strict_yaml.KeyPath, int],
) -> dict[str, Setting]:
    """What stands in for a row's network in a profile, if anything does."""
    networks = recipe.profiles[profile].networks
    if model is None or model.value not in networks:
        return {}
    at = ("profiles", profile, "networks", model.value)
    return {
        key: Setting(value, _place(recipe, lines, (*at, key)))
        for key, value in networks[model.value].items()
    }


def _groups(merged: Mapping[str, Setting]) -> tuple[Compute, Data, Model, Feeding, Group]:
    """The merged settings in their groups, typed."""
    method = merged.get("method", Setting("supervised", ""))
    if method.value not in METHODS:
        raise UserError(
            f"{method.place}: no method {method.value!r}: {nearest(str(method.value), METHODS)}"
        )
    known = settings.names(str(method.value))
    for key, setting in merged.items():
        if key not in (known if setting.of_row else _setting_names()):
            raise UserError(
                f"{setting.place}: no setting {key!r} of {method.value}: {nearest(key, known)}"
            )
    groups = (Compute, Data, Model, Feeding, METHODS[str(method.value)])
    typed = tuple(_typed(group, merged) for group in groups)
    *_, feeding, training = typed
    if feeding.feed == "files" and getattr(training, "augment", "none") != "none":
        raise UserError(
            f"{merged['feed'].place}: feed is 'files': augment changes images in memory; set feed "
            "to memory, or augment to none"
        )
    return typed


def _typed(group: type[Group], merged: Mapping[str, Setting]) -> Group:
    values = {key: merged[key].value for key in group.model_fields if key in merged}
    try:
        return group.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise UserError(
            f"{merged[key].place}: {key} is {merged[key].value!r}: {_wanted(first)}"
        ) from None


def _wanted(error: Mapping[str, object]) -> str:
    """Pydantic's message as the end of a line."""
    message = str(error["msg"])
    return message[0].lower() + message[1:]


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
    return f"{place}: {name}: {_wanted(first)}"


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
        _require_known(recipe, lines, ("columns", heading), "setting", setting, _setting_names())


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
        place = _place(recipe, lines, (*at, "name"))
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
            place = _place(recipe, lines, (*at, key))
            needed = "needs" if key in kind.settings else "takes no"
            raise UserError(f"{place}: figure {figure.name!r}: kind {figure.kind} {needed} {key!r}")
        if given is not None:
            choices = [*_setting_names(), "row"]
            choices += MEASURES if (figure.kind, key) == ("scatter", "across") else []
            _require_known(recipe, lines, (*at, key), "setting", given, choices)
    _groups(
        {
            key: Setting(value, _place(recipe, lines, (*at, "where", key)))
            for key, value in figure.where.items()
            if key != "row"
        }
    )
    place = _place(recipe, lines, (*at, "where"))
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


def _setting_names() -> list[str]:
    groups = (Compute, Data, Model, Feeding, *METHODS.values())
    return [field for group in groups for field in group.model_fields]


def _require_known(
    recipe: Recipe,
    lines: Mapping[strict_yaml.KeyPath, int],
    at: strict_yaml.KeyPath,
    what: str,
    name: str,
    choices: Iterable[str],
) -> None:
    if name not in choices:
        raise UserError(
            f"{_place(recipe, lines, at)}: no {what} {name!r}: {nearest(name, choices)}"
        )


def _place(
    recipe: Recipe, lines: Mapping[strict_yaml.KeyPath, int], at: strict_yaml.KeyPath
) -> str:
    """File and line of an entry, or of the nearest one around it."""
    around = (at[:end] for end in range(len(at), 0, -1))
    return f"{recipe.path}:{next((lines[path] for path in around if path in lines), 1)}"
