"""What decides a run's result, typed: one frozen group of settings for each part of a run.

The field names are unique over the groups, so a recipe file, a table's columns and `--set` name
a setting by its field alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Group(BaseModel):
    """A frozen, strictly typed group of settings; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Group):
    """Which images a run sees.

    Attributes:
        data: A source's name, or the path of a folder of images.
        image_size: Height and width in pixels that images are brought to.
        shots: Training images drawn from each class; None takes all.
        test_shots: Test images drawn from each class; None takes all.
        redraw_shots: Draw other images in each repeat; False shares one draw over all runs.
        seed: Seeds the draw; repeat r trains with seed + r.
    """

    data: str = "cinic10"
    image_size: Annotated[int, Field(ge=8)] = 32
    shots: PositiveInt | None = None
    test_shots: PositiveInt | None = None
    redraw_shots: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 213


class Model(Group):
    """Which network a run trains, and which part of it.

    Attributes:
        model: The network's name.
        hidden_units: Width of `baseline` and `enhanced`; None takes the deck's 32 and 64.
        weights: `pretrained` (as fetched), `random`, or the path of a torch or safetensors file.
        unfrozen_stages: The last n stages train, with the head; None trains everything.
        head: `dense`, or `cosine` similarity to one learned weight a class.
        dropout: Rate of the head's dropout.
        dropout_position: Before the dense layer, or (as the deck did) on the logits.
        stochastic_depth: Highest rate of dropped residual branches.
    """

    model: str = "convnext_tiny"
    hidden_units: PositiveInt | None = None
    weights: str = "pretrained"
    unfrozen_stages: Annotated[int, Field(ge=0, le=4)] | None = None
    head: Literal["dense", "cosine"] = "dense"
    dropout: Fraction = 0.0
    dropout_position: Literal["before_dense", "after_logits"] = "before_dense"
    stochastic_depth: Fraction = 0.0


class Compute(Group):
    """What a run computes on.

    Attributes:
        backend: The Keras backend.
    """

    backend: Literal["torch", "tensorflow", "jax"] = "torch"


class Feeding(Group):
    """How images reach the training step.

    Attributes:
        feed: `memory` holds all images on the device; `files` decodes PNG files batch by batch in
            torch's DataLoader, as the deck did. The following are the DataLoader's.
        workers: Processes that decode; 0 decodes in the training process.
        pin_memory: Put batches into memory a GPU can read without a copy.
        persistent_workers: Keep the processes from one epoch to the next.
        prefetch_batches: Batches each process prepares ahead; None takes torch's 2.
        drop_last: Leave out a last, smaller batch of training images.
    """

    feed: Literal["memory", "files"] = "memory"
    workers: Annotated[int, Field(ge=0)] = 0
    pin_memory: bool = False
    persistent_workers: bool = False
    prefetch_batches: PositiveInt | None = None
    drop_last: bool = False


class Supervised(Group):
    """How `fit` trains the network on labelled images.

    Attributes:
        method: Which method these settings belong to.
        optimizer: `adam` (epsilon 1e-8) or `sgd`, with torch's update rules.
        learning_rate: At the first epoch.
        momentum: Of SGD.
        l2: L2 penalty, added to the gradient as l2 * weight (not decoupled).
        schedule: `step` multiplies the rate by `schedule_factor` every `schedule_epochs`;
            `cosine` anneals to zero over `schedule_epochs` and climbs back after them.
        schedule_epochs: Period of the schedule in epochs.
        schedule_factor: Of the `step` schedule.
        epochs: Passes over the training images.
        batch_size: Images a step.
        eval_mode_sticks: Train in inference mode from the second epoch on, as the deck's loop did
            by never calling train() again.
        frozen_statistics_move: BatchNorm of frozen stages still updates its running statistics
            in training mode, as under torch's requires_grad=False.
        average_over: What reported loss and accuracy are means of: `images`, or (as the deck
            printed them) `batches`, where the smaller last batch weighs as much as any other.
    """

    method: Literal["supervised"] = "supervised"
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Fraction = 0.0
    l2: NotNegative = 0.0
    schedule: Literal["constant", "step", "cosine"] = "constant"
    schedule_epochs: PositiveInt = 5
    schedule_factor: Positive = 0.5
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 16
    eval_mode_sticks: bool = False
    frozen_statistics_move: bool = False
    average_over: Literal["images", "batches"] = "images"


METHODS: dict[str, type[Group]] = {"supervised": Supervised}

# Raised by hand when a method's code changes what it computes: results of the older code are then
# run again, not mixed with new ones.
CODE_VERSIONS: dict[str, int] = {"supervised": 1}
