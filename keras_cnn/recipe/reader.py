"""Recipe files: YAML to a validated recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

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
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no recipe {name!r}: {nearest(name, names())}")
    document, lines = strict_yaml.read(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: a recipe is a mapping with title, columns, variants, rows, …")
    document = grids.expanded(document, path, lines)
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
                merged = resolve.merge(recipe, row, variant, profile, {}, lines)
                _, spec = resolve.typed(merged)
                values = spec.settings
                settings.setdefault((profile, variant), []).append({**values, "row": str(row.row)})
    known = {name for rows in settings.values() for row in rows for name in row} - {"row"}
    known |= {*resolve.setting_names()}  # those of methods of one's own are in the rows alone
    _check_stand_ins(recipe, known, lines)
    _check_columns(recipe, known, lines)
    _check_measures(recipe, lines)
    for index in range(len(recipe.figures)):
        _check_figure(recipe, index, list(settings.values()), known, lines)
    return recipe


def _complaint(error: ValidationError, path: Path, lines: Mapping[strict_yaml.KeyPath, int]) -> str:
    """One line for the first thing wrong with a recipe file's shape."""
    # A misspelt key is also a missing one: the misspelling is what helps.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    at = tuple(part for part in first["loc"] if part not in ("int", "str", "float", "[key]"))
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
    inner = {"rows": Row, "profiles": Profile, "figures": Figure, "variants": Variant}
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
        for profile in row.profiles:
            key = ("rows", index, "profiles", profile)
            _require_known(recipe, lines, key, "profile", profile, recipe.profiles)
    if "both" in recipe.variants:
        place = strict_yaml.place(recipe.path, lines, ("variants", "both"))
        raise UserError(f"{place}: no variant can be called 'both', which means all of them")
    if recipe.slides and "deck" not in recipe.profiles:
        raise UserError(f"{recipe.path}: profiles needs 'deck', the slides' own measurement")


def _check_stand_ins(
    recipe: Recipe, known: set[str], lines: Mapping[strict_yaml.KeyPath, int]
) -> None:
    """Checks what variants replace and profiles scale: a misspelt name would do nothing."""
    for name, variant in recipe.variants.items():
        for method in variant.methods:
            at = ("variants", name, "methods", method)
            if "." not in method:
                _require_known(recipe, lines, at, "method", method, KNOWN_METHODS)
    for name, profile in recipe.profiles.items():
        for setting in profile.scale:
            at = ("profiles", name, "scale", setting)
            _require_known(recipe, lines, at, "setting", setting, known)


def _check_columns(
    recipe: Recipe, known: set[str], lines: Mapping[strict_yaml.KeyPath, int]
) -> None:
    for heading, setting in recipe.columns.items():
        _require_known(recipe, lines, ("columns", heading), "setting", setting, known)


def _check_measures(recipe: Recipe, lines: Mapping[strict_yaml.KeyPath, int]) -> None:
    for index, measure in enumerate(recipe.measures):
        _require_known(recipe, lines, ("measures", index), "measure", measure, MEASURES)


def _check_figure(
    recipe: Recipe,
    index: int,
    settings: Sequence[Sequence[Settings]],
    known: set[str],
    lines: Mapping[strict_yaml.KeyPath, int],
) -> None:
    """Checks one figure's names, and that what it averages over is the repeats of one row.

    Args:
        recipe: The recipe.
        index: Which of its figures.
        settings: For each profile and variant, the resolved settings of every row.
        known: The settings that a figure can name.
        lines: Line numbers of the file's entries.
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
            choices = [*known, "row"]
            choices += MEASURES if kind.point_per_row and key == "across" else []
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
    if kind.numeric_across and figure.across not in MEASURES:
        for value in (row.get(figure.across) for rows in chosen for row in rows):
            if not isinstance(value, (int, float, type(None))) or isinstance(value, bool):
                place = strict_yaml.place(recipe.path, lines, (*at, "across"))
                raise UserError(
                    f"{place}: figure {figure.name!r}: kind {figure.kind} needs numbers along "
                    f"'across', {figure.across} is {value!r}"
                )
    if not kind.point_per_row:
        _check_averages(figure, kind, chosen, place)


def _check_averages(
    figure: Figure, kind: FigureKind, chosen: Sequence[Sequence[Settings]], place: str
) -> None:
    """Refuses a figure that would average over more than the repeats of one row."""
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
