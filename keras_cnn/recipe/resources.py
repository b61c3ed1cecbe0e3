"""What `--on` and a recipe's `slurm:` part say: where runs go, and what each is given there."""

from __future__ import annotations

from pydantic import ValidationError

from keras_cnn.errors import UserError, nearest
from keras_cnn.methods.settings import Group, NotNegative, Positive, PositiveInt


class Local(Group):
    """Processes of this machine."""


class Slurm(Group):
    """An array of Slurm jobs, each of one run.

    Attributes:
        partition: Where they wait; None takes the site's own.
        account: Who is charged; None takes the user's own.
        minutes: The time limit of a run; one that hits it goes on, or is run again, twice.
        gigabytes: Memory of a run; None takes the site's own.
        gpus: GPUs of a run.
        cores: Processor cores of `teach`; a run has one for each of its threads.
        constraint: What a node has to have, as Slurm writes it.
    """

    partition: str | None = None
    account: str | None = None
    minutes: PositiveInt = 60
    gigabytes: Positive | None = None
    gpus: PositiveInt | None = None
    cores: PositiveInt = 2
    constraint: str | None = None


class Ray(Group):
    """Tasks of a Ray cluster, each of one run.

    Attributes:
        address: HOST:PORT of the cluster's head; `auto` finds one on this machine.
        gpus: GPUs of a run; a part of one lets several runs share it.
        gigabytes: Memory that is set aside for a run.
        cores: Processor cores of `teach`; a run has one for each of its threads.
    """

    address: str = "auto"
    gpus: NotNegative = 0.0
    gigabytes: Positive | None = None
    cores: PositiveInt = 2


Resources = Local | Slurm | Ray
KINDS: dict[str, type[Group]] = {"local": Local, "slurm": Slurm, "ray": Ray}


def name_of(resources: Resources) -> str:
    """`local`, `slurm` or `ray`."""
    return type(resources).__name__.lower()


def read(on: str, of_recipe: Slurm | None = None) -> Resources:
    """What `--on` asks for.

    Args:
        on: `local`, `slurm`, `ray`, each with settings after a colon where it has some:
            `slurm:partition=gpu,minutes=30`, `ray:10.0.0.1:6379` or `ray:address=…,gpus=0.5`.
        of_recipe: The recipe's `slurm` part, which the settings given here win over.

    Raises:
        UserError: It is none of these, or a setting is unknown or has a wrong value.

    Example:
        >>> read("slurm:minutes=30").minutes
        30
    """
    name, _, rest = on.partition(":")
    if name not in KINDS:
        raise UserError(f"--on={on}: there is no {name!r}: {nearest(name, KINDS)}")
    kind = KINDS[name]
    given: dict[str, object] = of_recipe.model_dump() if of_recipe and kind is Slurm else {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals and "address" in kind.model_fields:
            key, value = "address", item
        if key not in kind.model_fields:
            raise UserError(f"--on={on}: {name} has no {key!r}: {nearest(key, kind.model_fields)}")
        given[key] = value
    try:
        return kind.model_validate(given, strict=False)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(f"--on={on}: {wrong['loc'][0]}: {wrong['msg'].lower()}") from None
