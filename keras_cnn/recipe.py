"""Recipe files: YAML to validated, frozen runs. Never imports keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from keras_cnn import strict_yaml
from keras_cnn.errors import UserError, nearest
from keras_cnn.settings import METHODS, Data, Group, Model, PositiveInt, Supervised

Settings = dict[str, object]


class Deck(Group):
    """What the slide prints for a row, in percent."""

    train_accuracy: Annotated[float, Field(ge=0, le=100)] | None = None
    test_accuracy: Annotated[float, Field(ge=0, le=100)] | None = None


class Row(Group):
    """One row of the slide's table: the settings in which it differs, and what the slide prints."""

    row: int | str
    settings: Settings = Field(default_factory=dict)
    deck: Deck = Deck()


class Profile(Group):
    """Where a recipe runs: on the deck's data and weights, or on what every machine has."""

    stands_in: str = ""
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
        needs: What `fetch` must have brought for the `deck` profile.
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
    needs: list[str] = Field(default_factory=list)
    settings: Settings = Field(default_factory=dict)
    variants: dict[str, Settings]
    profiles: dict[str, Profile]
    rows: Annotated[list[Row], Field(min_length=1)]


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
    training: Supervised

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
    """A value and where it was written, for error lines."""

    value: object
    place: str


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
    for profile in recipe.profiles:
        for variant in recipe.variants:
            for row in recipe.rows:
                _groups(_merged(recipe, row, variant, profile, {}, lines))
    _check_columns(recipe, lines)
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
        backend: The Keras backend.

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
    chosen = [row for row in recipe.rows if rows is None or str(row.row) in rows]
    variants = list(recipe.variants) if variant == "both" else [variant]
    specs = {
        (row.row, name): _resolve(recipe, row, name, profile, overrides or {}, backend)
        for row in chosen
        for name in variants
    }
    return [
        specs[row.row, name].model_copy(update={"repeat": repeat})
        for repeat in range(count)
        for row in chosen
        for name in variants
    ]


def _resolve(
    recipe: Recipe,
    row: Row,
    variant: str,
    profile: str,
    overrides: Mapping[str, object],
    backend: str,
) -> Run:
    merged = _merged(recipe, row, variant, profile, overrides, {})
    data, model, training = _groups(merged)
    presented = _groups(_merged(recipe, row, variant, "deck", {}, {}))
    return Run(
        recipe=recipe.name,
        row=str(row.row),
        variant=variant,
        repeat=0,
        profile=profile,
        backend=backend,
        comparable=(data, model, training) == presented,
        data=data,
        model=model,
        training=training,
    )


def _merged(
    recipe: Recipe,
    row: Row,
    variant: str,
    profile: str,
    overrides: Mapping[str, object],
    lines: Mapping[strict_yaml.KeyPath, int],
) -> dict[str, Setting]:
    """Each setting with its last word: recipe < row < variant < profile < command line."""
    index = recipe.rows.index(row)
    layers: list[tuple[strict_yaml.KeyPath, Settings]] = [
        (("settings",), recipe.settings),
        (("rows", index, "settings"), row.settings),
        (("variants", variant), recipe.variants[variant]),
        (("profiles", profile, "settings"), recipe.profiles[profile].settings),
    ]
    merged: dict[str, Setting] = {}
    for at, layer in layers:
        for key, value in layer.items():
            line = lines.get((*at, key))
            merged[key] = Setting(value, f"{recipe.path}:{line}" if line else recipe.path)
    for key, value in overrides.items():
        merged[key] = Setting(value, "command line")
    return merged


def _groups(merged: Mapping[str, Setting]) -> tuple[Data, Model, Supervised]:
    """The merged settings in their groups, typed."""
    method = merged.get("method", Setting("supervised", ""))
    if method.value not in METHODS:
        raise UserError(
            f"{method.place}: no method {method.value!r}: {nearest(str(method.value), METHODS)}"
        )
    groups = (Data, Model, METHODS[str(method.value)])
    known = [field for group in groups for field in group.model_fields]
    for key, setting in merged.items():
        if key not in known:
            raise UserError(f"{setting.place}: no setting {key!r}: {nearest(key, known)}")
    return tuple(_typed(group, merged) for group in groups)


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
        group = (
            {"rows": Row, "profiles": Profile}.get(str(at[0]), Recipe) if len(at) > 1 else Recipe
        )
        group = Deck if "deck" in at[:-1] else group
        fields = [field for field in group.model_fields if field not in ("name", "path")]
        return f"{place}: no key {name!r}: {nearest(str(at[-1]), fields)}"
    return f"{place}: {name}: {_wanted(first)}"


def _check_rows(recipe: Recipe, lines: Mapping[strict_yaml.KeyPath, int]) -> None:
    seen: set[str] = set()
    for index, row in enumerate(recipe.rows):
        if str(row.row) in seen:
            place = f"{recipe.path}:{lines[('rows', index)]}"
            raise UserError(f"{place}: row {row.row!r} is here a second time")
        seen.add(str(row.row))
    if "deck" not in recipe.profiles:
        raise UserError(f"{recipe.path}: profiles needs 'deck', the slide's own measurement")


def _check_columns(recipe: Recipe, lines: Mapping[strict_yaml.KeyPath, int]) -> None:
    for heading, setting in recipe.columns.items():
        groups = (Data, Model, *METHODS.values())
        known = [field for group in groups for field in group.model_fields]
        if setting not in known:
            place = f"{recipe.path}:{lines[('columns', heading)]}"
            raise UserError(f"{place}: no setting {setting!r}: {nearest(setting, known)}")
