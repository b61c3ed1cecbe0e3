"""Recipe files: YAML to a validated recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from keras_cnn import files
from keras_cnn.errors import UserError, nearest
from keras_cnn.methods.settings import Group
from keras_cnn.recipe import grids, resolve, strict_yaml
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import (
    FIGURE_KINDS,
    Deck,
    Figure,
    FigureKind,
    Profile,
    Recipe,
    Row,
    Settings,
    Variant,
    matches,
)
from keras_cnn.recipe.spec import KNOWN_METHODS
from keras_cnn.recipe.strict_yaml import Document


def folder() -> Path:
    """The folder of the recipe files: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
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
    path = folder() / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        files.require(path, "; `python -m keras_cnn recipes` lists those that come along")
    elif name not in names():
        raise UserError(f"no recipe {name!r}: {nearest(name, names())}")
    document = strict_yaml.read(path)
    if not isinstance(document.content, dict):
        raise UserError(f"{path}: a recipe is a mapping with title, columns, variants, rows, …")
    document = grids.expanded(document)
    try:
        recipe = Recipe.model_validate(
            {**document.content, "name": path.stem, "document": document}
        )
    except ValidationError as error:
        raise UserError(_complaint(error, document)) from None
    _check_rows(recipe)
    settings = [
        [
            {**resolve.typed(merged)[1].settings, "row": str(row.row)}
            for row in recipe.rows
            if variant in recipe.variants_of(row)
            for merged in [resolve.merge(recipe, row, variant, profile)]
        ]
        for profile in recipe.profiles
        for variant in recipe.variants
    ]
    setting_names = {name for rows in settings for row in rows for name in row} - {"row"}
    setting_names |= {*resolve.setting_names()}
    _check_names(recipe, setting_names)
    for index, figure in enumerate(recipe.figures):
        _check_figure(recipe, index, figure, setting_names)
        _check_rows_of_figure(recipe, index, figure, settings)
    return recipe


def _complaint(error: ValidationError, document: Document) -> str:
    """One line for the first thing wrong with a recipe file's shape."""
    # A misspelt key is also a missing one: the misspelling is what helps.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    at = tuple(part for part in first["loc"] if part not in ("int", "str", "float", "[key]"))
    place, name = document.place(*at), ".".join(map(str, at))
    if first["type"] != "extra_forbidden":
        return f"{place}: {name}: {resolve.wanted(first)}"
    fields = _group_at(at).model_fields.keys() - {"name", "document"}
    return f"{place}: no key {name!r}: {nearest(str(at[-1]), fields)}"


def _group_at(at: Sequence[str | int]) -> type[Group]:
    """Which group has the last key of a path into a recipe file."""
    if at[0] == "rows" and "deck" in at[:-1]:
        return Deck
    inner = {"rows": Row, "profiles": Profile, "figures": Figure, "variants": Variant}
    return inner.get(str(at[0]), Recipe) if len(at) > 1 else Recipe


def _check_rows(recipe: Recipe) -> None:
    names = [str(row.row) for row in recipe.rows]
    for index, row in enumerate(recipe.rows):
        if names[index] in names[:index]:
            place = recipe.place("rows", index)
            raise UserError(f"{place}: row {row.row!r} is here a second time")
        for number, variant in enumerate(row.variants):
            at = ("rows", index, "variants", number)
            _check_name(recipe, at, "variant", variant, recipe.variants)
        for profile in row.profiles:
            at = ("rows", index, "profiles", profile)
            _check_name(recipe, at, "profile", profile, recipe.profiles)
    for name, profile in recipe.profiles.items():
        for number, row in enumerate(profile.rows or ()):
            _check_name(recipe, ("profiles", name, "rows", number), "row", str(row), names)
    _check_name(recipe, ("reference",), "row", recipe.reference_row, names)
    if "both" in recipe.variants:
        place = recipe.place("variants", "both")
        raise UserError(f"{place}: no variant can be called 'both', which means all of them")
    if recipe.slides and "deck" not in recipe.profiles:
        raise UserError(f"{recipe.path}: profiles needs 'deck', the slides' own measurement")


def _check_names(recipe: Recipe, settings: Iterable[str]) -> None:
    """Checks names that would do nothing if they were misspelt."""
    for name, variant in recipe.variants.items():
        for method in variant.methods:
            if "." not in method:
                at = ("variants", name, "methods", method)
                _check_name(recipe, at, "method", method, KNOWN_METHODS)
    for method in recipe.method_notes:
        _check_name(recipe, ("method_notes", method), "method", method, KNOWN_METHODS)
    for heading, setting in recipe.columns.items():
        _check_name(recipe, ("columns", heading), "setting", setting, settings)
    for index, measure in enumerate(recipe.measures):
        _check_name(recipe, ("measures", index), "measure", measure, MEASURES)


def _check_figure(recipe: Recipe, index: int, figure: Figure, settings: set[str]) -> None:
    """Checks the names in a figure, and that it has those its kind needs."""
    if figure.name in [other.name for other in recipe.figures[:index]]:
        place = recipe.place("figures", index, "name")
        raise UserError(f"{place}: figure {figure.name!r} is here a second time")
    at = ("figures", index)
    _check_name(recipe, (*at, "kind"), "kind of figure", figure.kind, FIGURE_KINDS)
    kind = FIGURE_KINDS[figure.kind]
    measured = [name for name in MEASURES if MEASURES[name].by_epoch or not kind.by_epoch]
    for number, quantity in enumerate(figure.quantities):
        _check_name(recipe, (*at, "quantities", number), "quantity", quantity, measured)
    for key in ("by", "across"):
        given = getattr(figure, key)
        if (given is not None) != (key in kind.settings):
            needed = "needs" if key in kind.settings else "takes no"
            raise UserError(
                f"{recipe.place(*at, key)}: figure {figure.name!r}: kind {figure.kind} {needed} "
                f"{key!r}"
            )
        if given is not None:
            choices = [*settings, "row"]
            choices += MEASURES if kind.point_per_row and key == "across" else []
            _check_name(recipe, (*at, key), "setting", given, choices)
    where = {key: value for key, value in figure.where.items() if key != "row"}
    resolve.typed(resolve.written(recipe, where, *at, "where"))


def _check_rows_of_figure(
    recipe: Recipe, index: int, figure: Figure, settings: Sequence[Sequence[Settings]]
) -> None:
    """Checks that a figure has rows, and that what it averages over is the repeats of one row.

    Args:
        recipe: The recipe.
        index: Which of its figures.
        figure: The figure.
        settings: For each profile and variant, the settings of every row.
    """
    kind, place = FIGURE_KINDS[figure.kind], recipe.place("figures", index, "where")
    chosen = [[row for row in rows if matches(figure.where, row)] for rows in settings]
    if not any(chosen):
        raise UserError(f"{place}: figure {figure.name!r}: no row has the settings of 'where'")
    if kind.numeric_across and figure.across not in MEASURES:
        for value in (row.get(figure.across) for rows in chosen for row in rows):
            if not isinstance(value, (int, float, type(None))) or isinstance(value, bool):
                raise UserError(
                    f"{recipe.place('figures', index, 'across')}: figure {figure.name!r}: kind "
                    f"{figure.kind} needs numbers along 'across', {figure.across} is {value!r}"
                )
    if not kind.point_per_row:
        _check_averages(figure, kind, chosen, place)


def _check_averages(
    figure: Figure, kind: FigureKind, chosen: Sequence[Sequence[Settings]], place: str
) -> None:
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


def _check_name(
    recipe: Recipe, at: strict_yaml.KeyPath, what: str, name: str, choices: Iterable[str]
) -> None:
    if name not in choices:
        raise UserError(f"{recipe.place(*at)}: no {what} {name!r}: {nearest(name, choices)}")
