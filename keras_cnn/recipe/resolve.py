"""A recipe's rows as frozen runs: every setting's last word, typed.

A setting's last word is the last of these that names it:

    the method's default < recipe < row < variant < profile < the row in that profile < command line

A profile's `settings` may not overwrite what a row sets: the row says what it has in the profile.
Its `length` shortens every number of epochs. What stands in for a method (in a variant) or a
network (in a profile) comes with settings of its own, which count as the variant's and the
profile's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import Field, ValidationError

from keras_cnn.errors import UserError, nearest
from keras_cnn.methods.settings import DEFAULT_SEED, Backend, Group, Method, idle
from keras_cnn.recipe.schema import Recipe, Row, Settings
from keras_cnn.recipe.spec import KNOWN_METHODS, Place, Run, Spec, method_settings


class Choice(Group):
    """What a recipe sets of its runs beside their images, network and method's own settings.

    Attributes:
        method: Which method.
        backend: The Keras backend.
        seed: Repeat r trains with seed + r.
        redraw_shots: Draw other images in each repeat; False shares one draw over all repeats.
    """

    method: str = "supervised"
    backend: Backend = "torch"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = DEFAULT_SEED
    redraw_shots: bool = True


COMMAND_LINE = "command line"
MOST_RUNS = 10_000
ALL = "all"  # rows, where no row has this name


@dataclass(frozen=True)
class Setting:
    """A value and where it was written.

    Attributes:
        value: The value.
        place: File and line.
        of_row: The row's method has to know it, unless the command line names another. What a
            recipe sets for all its rows may concern the method of some of them alone.
    """

    value: object
    place: str = COMMAND_LINE
    of_row: bool = False


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
        rows: Names of the rows to run, or `all`; None runs those of the profile.
        variant: One of the recipe's variants, or `both` for all of them.
        repeats: Runs of each row and variant; None takes the profile's or the recipe's number.
        overrides: Settings that win over the file's.
        backend: The Keras backend of rows that name none.

    Raises:
        UserError: A name or a value is not one of the right ones.
    """
    if profile not in recipe.profiles:
        raise UserError(f"no profile {profile!r}: {nearest(profile, recipe.profiles)}")
    chosen = _chosen(recipe, rows or recipe.profiles[profile].rows or [ALL], variant)
    resolved = [_resolved(recipe, *one, profile, overrides or {}, backend) for one in chosen]
    _check_overrides(overrides or {}, [spec for _, spec, _ in resolved])
    count = recipe.profiles[profile].repeats or recipe.repeats if repeats is None else repeats
    if not 1 <= count * len(chosen) <= MOST_RUNS:
        raise UserError(
            f"{count * len(chosen):,} runs ({len(chosen)} rows and variants, {count} repeats): "
            f"1 to {MOST_RUNS:,} can be asked for"
        )
    return [
        Run(
            spec=_of_repeat(choice, spec, repeat),
            place=Place(
                recipe=recipe.name,
                row=str(row.row),
                variant=name,
                repeat=repeat,
                profile=profile,
                comparable=comparable,
            ),
        )
        for repeat in range(count)
        for (row, name), (choice, spec, comparable) in zip(chosen, resolved, strict=True)
    ]


def _chosen(recipe: Recipe, rows: Sequence[str | int], variant: str) -> list[tuple[Row, str]]:
    """Rows with the variants they are to be run in."""
    if variant != "both" and variant not in recipe.variants:
        raise UserError(f"no variant {variant!r}: {nearest(variant, [*recipe.variants, 'both'])}")
    names = [str(row.row) for row in recipe.rows]
    wanted = names if [*rows] == [ALL] and ALL not in names else [str(row) for row in rows]
    for row in wanted:
        if row not in names:
            raise UserError(f"no row {row!r} in {recipe.name}: {nearest(row, names)}")
    chosen = [
        (row, name)
        for row in recipe.rows
        if str(row.row) in wanted
        for name in recipe.variants_of(row)
        if variant in (name, "both")
    ]
    if not chosen:
        raise UserError(f"no row of {recipe.name} that was asked for is run {variant}")
    return chosen


def _resolved(
    recipe: Recipe,
    row: Row,
    variant: str,
    profile: str,
    overrides: Settings,
    backend: str,
) -> tuple[Choice, Spec, bool]:
    """A row's settings, and whether they are those behind the deck's own number."""
    choice, spec = typed(merge(recipe, row, variant, profile, overrides, backend))
    comparable = "deck" in recipe.profiles
    if comparable and (profile != "deck" or overrides):
        # On another backend the figures stand for the same.
        presented = typed(merge(recipe, row, variant, "deck"))
        comparable = (choice, spec) == tuple(
            one.model_copy(update={"backend": choice.backend}) for one in presented
        )
    return choice, spec, comparable


def _of_repeat(choice: Choice, spec: Spec, repeat: int) -> Spec:
    drawn = spec.images.shots is not None or spec.images.test_shots is not None
    redrawn = drawn and choice.redraw_shots
    shots_seed = choice.seed + (repeat if redrawn else 0) if drawn else DEFAULT_SEED
    return spec.model_copy(update={"seed": choice.seed + repeat, "shots_seed": shots_seed})


def _check_overrides(overrides: Settings, specs: Sequence[Spec]) -> None:
    """Refuses a setting of the command line that no run has."""
    known = {name for spec in specs for name in defaults(type(spec.training))}
    for key in overrides:
        if key not in known:
            methods = sorted({spec.method for spec in specs})
            have = "has" if len(methods) == 1 else "have"
            who = f"{' and '.join(methods)} {have}"
            raise UserError(f"command line: {who} no {key!r}: {nearest(key, known)}")


def merge(
    recipe: Recipe,
    row: Row,
    variant: str,
    profile: str,
    overrides: Settings | None = None,
    backend: str | None = None,
) -> dict[str, Setting]:
    """Each setting's last word, in the order that the module's docstring tells.

    Args:
        recipe: The recipe.
        row: One of its rows.
        variant: One of its variants.
        profile: One of its profiles.
        overrides: Settings of the command line.
        backend: The Keras backend where none is written.

    Raises:
        UserError: The profile sets what the row sets otherwise; with file and line.
    """
    overrides = overrides or {}
    index, here = recipe.rows.index(row), recipe.profiles[profile]
    merged = {"backend": Setting(backend)} if backend else {}
    merged |= written(recipe, recipe.settings, "settings")
    merged |= written(recipe, row.settings, "rows", index, "settings", of_row=True)
    own = recipe.variants[variant]
    merged |= written(recipe, own.settings, "variants", variant, "settings")
    method = str(merged["method"].value) if "method" in merged else Choice().method
    instead = own.methods.get(method, {})
    merged |= written(recipe, instead, "variants", variant, "methods", method)
    row_here = row.profiles.get(profile, {})
    in_profile = written(recipe, here.settings, "profiles", profile, "settings")
    _refuse_overwriting(row, profile, row_here, in_profile)
    merged |= in_profile
    if here.length != 1:
        place = recipe.place("profiles", profile, "length")
        merged |= {
            key: Setting(value, place) for key, value in _lengths(here.length, merged).items()
        }
    model = str(merged["model"].value) if "model" in merged else ""
    network = written(recipe, here.networks.get(model, {}), "profiles", profile, "networks", model)
    if "model" in overrides:  # another network has no use for what the stand-in needs set
        network = {key: network[key] for key in ("model", "weights") if key in network}
    merged |= network
    merged |= written(recipe, row_here, "rows", index, "profiles", profile, of_row=True)
    return merged | {key: Setting(value) for key, value in overrides.items()}


def written(
    recipe: Recipe, values: Settings, *at: str | int, of_row: bool = False
) -> dict[str, Setting]:
    """Settings and where they stand in a recipe's file: under which keys and indices."""
    return {key: Setting(value, recipe.place(*at, key), of_row) for key, value in values.items()}


def _refuse_overwriting(
    row: Row, profile: str, row_here: Settings, in_profile: Mapping[str, Setting]
) -> None:
    for key, setting in in_profile.items():
        if key in row.settings and key not in row_here and row.settings[key] != setting.value:
            raise UserError(
                f"{setting.place}: profile {profile} sets {key} to {setting.value!r} and row "
                f"{row.row} to {row.settings[key]!r}: write what the row has in the profile (under "
                f"the row, profiles: {{{profile}: {{{key}: …}}}}); numbers of epochs can be "
                "shortened in all rows (under the profile, length: 0.5)"
            )


def _lengths(factor: float, merged: Mapping[str, Setting]) -> Settings:
    """Every number of epochs that decides something, those at their defaults too, by a factor."""
    values = defaults(_method(merged)) | {key: one.value for key, one in merged.items()}
    decides_nothing = idle(values)
    return {
        key: max(1, round(value * factor)) if isinstance(value, int) else value * factor
        for key, value in values.items()
        if key.endswith("epochs") and key not in decides_nothing
    }


def _method(merged: Mapping[str, Setting]) -> type[Method]:
    name = merged.get("method", Setting(Choice().method))
    try:
        return method_settings(str(name.value))
    except UserError as error:
        raise UserError(f"{name.place}: {error}") from None


def typed(merged: Mapping[str, Setting]) -> tuple[Choice, Spec]:
    """The merged settings in their classes.

    Args:
        merged: From `merge`.

    Returns:
        What the recipe chose, and the spec of the first repeat.

    Raises:
        UserError: A name or a value is not one of the right ones; with file and line.
    """
    method = _method(merged)
    known, name = defaults(method), merged.get("method", Setting(Choice().method, ""))
    for key, setting in merged.items():
        strict = setting.of_row and name.place != COMMAND_LINE
        if key not in known and (strict or key not in setting_names()):
            raise UserError(
                f"{setting.place}: no setting {key!r} of {name.value}: {nearest(key, known)}"
            )
    choice, images, network, training = (_filled(group, merged) for group in groups(method))
    if getattr(training, "feed", "memory") == "files" and training.augment != "none":
        raise UserError(
            f"{merged['feed'].place}: feed is 'files': augment changes images in memory; set feed "
            "to memory, or augment to none"
        )
    spec = Spec(
        method=choice.method,
        images=images,
        network=network,
        training=training,
        seed=choice.seed,
        backend=choice.backend,
    )
    return choice, spec


def _filled(group: type[Group], merged: Mapping[str, Setting]) -> Group:
    values = {key: merged[key].value for key in group.model_fields if key in merged}
    try:
        return group.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        value = f"{key} is {merged[key].value!r}"
        raise UserError(f"{merged[key].place}: {value}: {wanted(first)}") from None


def wanted(error: Mapping[str, object]) -> str:
    """Pydantic's message as the end of a line."""
    message = str(error["msg"])
    return message[0].lower() + message[1:]


def groups(method: type[Method]) -> tuple[type[Group], ...]:
    """The classes whose fields are the settings of a method's runs."""
    return Choice, method.images, method.network, method


@cache
def defaults(method: type[Method]) -> Settings:
    """The settings that a method's runs have, with their defaults."""
    return {
        key: field.default for group in groups(method) for key, field in group.model_fields.items()
    }


@cache
def setting_names() -> list[str]:
    """The names of the settings of all methods."""
    return list(dict.fromkeys(key for one in KNOWN_METHODS.values() for key in defaults(one)))
