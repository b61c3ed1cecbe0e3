"""A recipe's rows as frozen runs: every setting's last word, typed. Never imports keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationError

from keras_cnn.errors import UserError, nearest
from keras_cnn.recipe import settings, strict_yaml
from keras_cnn.recipe.schema import Recipe, Row, Settings
from keras_cnn.recipe.settings import METHODS, Compute, Data, Feeding, Group, Model, Training


class Place(Group):
    """Where a run stands in a table; nothing of it decides what the run gives.

    Attributes:
        recipe: The recipe's name.
        row: The row's name.
        variant: The variant's name.
        repeat: Counted from 0.
        profile: The profile's name.
        comparable: Whether the settings are those behind the deck's own number (the variant
            apart), so that the two may stand side by side.
    """

    recipe: str
    row: str
    variant: str
    repeat: Annotated[int, Field(ge=0)]
    profile: str
    comparable: bool


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

    @property
    def settings(self) -> dict[str, object]:
        """All settings by name, whatever their group."""
        groups = (self.data, self.model, self.feeding, self.training)
        return {"backend": self.backend} | {key: value for group in groups for key, value in group}


@dataclass(frozen=True)
class Setting:
    """A value, where it was written, and whether the row's method has to know it.

    What a recipe sets for all its rows may concern the method of some of them alone.
    """

    value: object
    place: str
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
    compute, *groups = typed(merge(recipe, row, variant, profile, overrides, {}, chosen))
    _, *presented = typed(merge(recipe, row, variant, "deck", {}, {}))
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


def merge(
    recipe: Recipe,
    row: Row,
    variant: str,
    profile: str,
    overrides: Mapping[str, object],
    lines: Mapping[strict_yaml.KeyPath, int],
    defaults: Settings | None = None,
) -> dict[str, Setting]:
    """Each setting's last word: defaults < recipe < row < variant < profile < command line.

    Args:
        recipe: The recipe.
        row: One of its rows.
        variant: One of its variants.
        profile: One of its profiles.
        overrides: Settings of the command line.
        lines: Line numbers of the file's entries, to name in a complaint.
        defaults: What holds where nothing is written.
    """
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
    stand_in = _stand_in(recipe, profile, merged.get("model"), lines)
    if "model" in overrides:  # another network has no use for what the stand-in needs set
        stand_in = {key: stand_in[key] for key in ("model", "weights") if key in stand_in}
    merged |= stand_in
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
    if model is None or str(model.value) not in networks:
        return {}
    at = ("profiles", profile, "networks", model.value)
    return {
        key: Setting(value, strict_yaml.place(recipe.path, lines, (*at, key)))
        for key, value in networks[model.value].items()
    }


def typed(merged: Mapping[str, Setting]) -> tuple[Compute, Data, Model, Feeding, Group]:
    """The merged settings in their groups.

    Args:
        merged: From `merge`.

    Returns:
        What computes, which images, which network, how images are fed, which method.

    Raises:
        UserError: A name or a value is not one of the right ones; with file and line.
    """
    method = merged.get("method", Setting("supervised", ""))
    if str(method.value) not in METHODS:
        raise UserError(
            f"{method.place}: no method {method.value!r}: {nearest(str(method.value), METHODS)}"
        )
    known = settings.names(str(method.value))
    for key, setting in merged.items():
        if key not in (known if setting.of_row else setting_names()):
            raise UserError(
                f"{setting.place}: no setting {key!r} of {method.value}: {nearest(key, known)}"
            )
    groups = (Compute, Data, Model, Feeding, METHODS[str(method.value)])
    filled = tuple(_filled(group, merged) for group in groups)
    *_, feeding, training = filled
    if feeding.feed == "files" and getattr(training, "augment", "none") != "none":
        raise UserError(
            f"{merged['feed'].place}: feed is 'files': augment changes images in memory; set feed "
            "to memory, or augment to none"
        )
    return filled


def _filled(group: type[Group], merged: Mapping[str, Setting]) -> Group:
    values = {key: merged[key].value for key in group.model_fields if key in merged}
    try:
        return group.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise UserError(
            f"{merged[key].place}: {key} is {merged[key].value!r}: {wanted(first)}"
        ) from None


def wanted(error: Mapping[str, object]) -> str:
    """Pydantic's message as the end of a line."""
    message = str(error["msg"])
    return message[0].lower() + message[1:]


def setting_names() -> list[str]:
    """The names of the settings of all methods."""
    groups = (Compute, Data, Model, Feeding, *METHODS.values())
    return [field for group in groups for field in group.model_fields]
