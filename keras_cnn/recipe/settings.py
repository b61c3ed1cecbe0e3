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
        weights: `pretrained` (as fetched), `bundled` (as the package has it), `random`, or the path
            of a torch, safetensors or Keras file.
        unfrozen_stages: The last n stages train, with the head; None trains everything.
        head: `dense`, or `cosine` similarity to one learned weight a class.
        cosine_scale: What the similarities are multiplied by to make logits.
        dropout: Rate of the head's dropout.
        dropout_position: Before the dense layer, or (as the deck did) on the logits.
        stochastic_depth: Highest rate of dropped residual branches.
    """

    model: str = "convnext_tiny"
    hidden_units: PositiveInt | None = None
    weights: str = "pretrained"
    unfrozen_stages: Annotated[int, Field(ge=0, le=4)] | None = None
    head: Literal["dense", "cosine"] = "dense"
    cosine_scale: Positive = 1.0
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


class Descent(Group):
    """How a method that descends gradients does it.

    Attributes:
        optimizer: `adam` (epsilon 1e-8) or `sgd`, with torch's update rules.
        learning_rate: At the first epoch.
        momentum: Of SGD.
        l2: L2 penalty, added to the gradient as l2 * weight (not decoupled).
        schedule: `step` multiplies the rate by `schedule_factor` every `schedule_epochs`;
            `cosine` anneals to zero over `schedule_epochs` and climbs back after them.
        schedule_epochs: Period of the schedule in epochs.
        schedule_factor: Of the `step` schedule.
        epochs: Passes over the training images, or rounds of episodes or tasks.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Fraction = 0.0
    l2: NotNegative = 0.0
    schedule: Literal["constant", "step", "cosine"] = "constant"
    schedule_epochs: PositiveInt = 5
    schedule_factor: Positive = 0.5
    epochs: PositiveInt = 20


class Supervised(Descent):
    """How `fit` trains the network on labelled images.

    Attributes:
        method: Which method these settings belong to.
        batch_size: Images a step.
        eval_mode_sticks: Train in inference mode from the second epoch on, as the deck's loop did
            by never calling train() again.
        frozen_statistics_move: BatchNorm of frozen stages still updates its running statistics
            in training mode, as under torch's requires_grad=False.
        average_over: What reported loss and accuracy are means of: `images`, or (as the deck
            printed them) `batches`, where the smaller last batch weighs as much as any other.
        augment: How training images are changed, one of `data.augment.KINDS`; `none` leaves them.
        augment_share: Share of the training images that are changed, drawn anew each epoch; the
            others stay as they are.
        augment_once: Draw once, before the first epoch, and keep each first image's label whole,
            as the deck did; otherwise each epoch draws anew and labels are mixed by area.
    """

    method: Literal["supervised"] = "supervised"
    batch_size: PositiveInt = 16
    eval_mode_sticks: bool = False
    frozen_statistics_move: bool = False
    average_over: Literal["images", "batches"] = "images"
    augment: Literal["none", "flip", "rotation", "jitter", "mixed", "cutmix", "mixup", "cutout"] = (
        "none"
    )
    augment_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    augment_once: bool = False


class Prototypical(Descent):
    """How a prototypical network learns from episodes.

    Attributes:
        method: Which method these settings belong to.
        embedding: Outputs of a dense layer on the features; None embeds by the features alone.
        distance: Of a query image to a prototype: `squared_euclidean` (the paper's),
            `euclidean` (the deck's), or `cosine`.
        normalised: Bring embeddings to length 1.
        episodes: `disjoint` draws `way` classes with `support_shots` and `query_shots` other
            images of each; `split_batches` splits shuffled batches of `batch_size` images at
            random into `support_images` and a rest of queries, as the deck did, and drops absent
            classes, which shifts the labels behind them.
        way: Classes of an episode; None takes all.
        support_shots: Support images a class.
        query_shots: Query images a class.
        episodes_an_epoch: Training episodes an epoch.
        evaluation_episodes: Test episodes after the last epoch.
        batch_size: Images of a split batch.
        support_images: How many of them are support images.
    """

    method: Literal["prototypical"] = "prototypical"
    embedding: PositiveInt | None = 128
    distance: Literal["squared_euclidean", "euclidean", "cosine"] = "squared_euclidean"
    normalised: bool = False
    episodes: Literal["disjoint", "split_batches"] = "disjoint"
    way: Annotated[int, Field(ge=2)] | None = None
    support_shots: PositiveInt = 5
    query_shots: PositiveInt = 10
    episodes_an_epoch: PositiveInt = 20
    evaluation_episodes: Annotated[int, Field(ge=2)] = 600
    batch_size: PositiveInt = 128
    support_images: PositiveInt = 100


class Siamese(Descent):
    """How a siamese network learns from pairs.

    Attributes:
        method: Which method these settings belong to.
        embedding: Outputs of a dense layer on the features; None embeds by the features alone.
        margin: Distance from which on images of different classes are no longer pushed apart.
        pairs: `balanced` gives each image another one, in turns of its own class and of another;
            `random` takes any image and tosses a coin for the class of the other one: the deck
            says only that pairs were random, and its 49 and 51 percent mean that about half of
            them were of one class (of any two images of ten classes it would be a tenth).
        labels_inverted: Push images of one class apart and pull those of two together, as the
            deck did.
        threshold: Distance below which a pair is called the same: `fitted` to training pairs, or
            `half_margin`, a guess at what the deck calls near.
        test_on: What test accuracy counts: `classes`, by the nearest class mean of the training
            embeddings; or test `pairs`, as the deck did.
        batch_size: Pairs a step. An epoch has as many pairs as there are training images.
    """

    method: Literal["siamese"] = "siamese"
    embedding: PositiveInt | None = 128
    margin: Positive = 1.0
    pairs: Literal["balanced", "random"] = "balanced"
    labels_inverted: bool = False
    threshold: Literal["fitted", "half_margin"] = "fitted"
    test_on: Literal["classes", "pairs"] = "classes"
    batch_size: PositiveInt = 32


class Maml(Descent):
    """How model-agnostic meta-learning finds weights from which few steps suffice.

    `optimizer` and `learning_rate` are those of the outer loop.

    Attributes:
        method: Which method these settings belong to.
        inner_learning_rate: Rate of the inner loop's gradient descent. A pretrained ResNet-18 needs
            it ten times smaller than a small network from random weights, whose features are small.
        inner_steps: Steps of the inner loop.
        second_order: Differentiate through the inner steps; False takes their gradients as
            constants (first-order MAML), in a third of the time.
        way: Classes of a task, at most; None takes all.
        shared_head: Each inner loop begins with all outputs alike, the mean of the head's: labels
            are drawn anew for each task, and no output is any class's before (UNICORN-MAML, Ye and
            Chao 2022, arXiv:2106.16245). False begins with the head as it is.
        support_shots: Support images a class.
        query_shots: Query images a class.
        tasks_a_step: Tasks whose losses one outer step averages.
        steps_an_epoch: Outer steps an epoch.
        batch_norm: `task` normalises by the statistics of the images at hand; `stored` by the
            running statistics, which stand still.
        adaptation_steps: Inner steps, each on some of the shots in turn, that make the classifier
            of the weights found.
        detached_copy: Train a copy on each batch of `batch_size` images with Adam and throw it
            away, as the deck did: no gradient reaches the weights.
        copy_learning_rate: Rate of a detached copy's Adam.
        batch_size: Images a detached copy is trained and tested on.
    """

    method: Literal["maml"] = "maml"
    inner_learning_rate: Positive = 0.01
    inner_steps: PositiveInt = 5
    second_order: bool = False
    way: Annotated[int, Field(ge=2)] | None = 5
    shared_head: bool = True
    support_shots: PositiveInt = 5
    query_shots: PositiveInt = 5
    tasks_a_step: PositiveInt = 4
    steps_an_epoch: PositiveInt = 20
    batch_norm: Literal["task", "stored"] = "stored"
    adaptation_steps: PositiveInt = 300
    detached_copy: bool = False
    copy_learning_rate: Positive = 0.001
    batch_size: PositiveInt = 128


class Pretrain(Group):
    """How a backbone learns from many images, to be taught others from few later.

    AdamW under a rate that warms up, then falls to zero along a cosine; labels smoothed; crops,
    flips and colours drawn anew each epoch; evaluated and saved as the moving average of weights.

    Attributes:
        method: Which method these settings belong to.
        epochs: Passes over the training images.
        minutes: Train for as many epochs, one at least, as this machine makes in this time; None
            takes `epochs`.
        batch_size: Images a step.
        learning_rate: The highest.
        warm_up_epochs: In which it rises from zero.
        weight_decay: Decoupled; not of biases, norms and layer scales.
        label_smoothing: Share of each label spread over all classes.
        average_decay: Of the moving average of weights, a step.
        crop_from: Height and width in pixels at which training images are loaded, to be cropped.
        smallest_crop: Share of an image's area.
        colour: Brightness, contrast and saturation vary by factors of up to 1 -+ this.
        cutmix_share: Of the images that have a box of another pasted in, labels mixed by area
            (Yun et al. 2019, arXiv:1905.04899).
        mixed_precision: Multiply in bfloat16 while training, on torch; None where the device is
            made for it.
    """

    method: Literal["pretrain"] = "pretrain"
    epochs: PositiveInt = 40
    minutes: Positive | None = None
    batch_size: PositiveInt = 128
    learning_rate: Positive = 1e-3
    warm_up_epochs: NotNegative = 2.0
    weight_decay: NotNegative = 0.05
    label_smoothing: Fraction = 0.1
    average_decay: Fraction = 0.998
    crop_from: Annotated[int, Field(ge=8)] = 64
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.35
    colour: Fraction = 0.2
    cutmix_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    mixed_precision: bool | None = None


class LinearProbe(Group):
    """How logistic regression learns on a backbone's features, which stay as they are.

    Attributes:
        method: Which method these settings belong to.
        regularization_strength: Of the L2 penalty on the weights of the standardised features,
            as the inverse of scikit-learn's C; None chooses it by cross-validation on the shots.
    """

    method: Literal["linear_probe"] = "linear_probe"
    regularization_strength: Positive | None = None

    @property
    def epochs(self) -> int:
        """One: the features are seen whole."""
        return 1


class NearestMean(Group):
    """How the nearest class mean classifies a backbone's features, which stay as they are.

    Attributes:
        method: Which method these settings belong to.
        centered: Subtract the mean of all shots first.
        normalised: Bring features to length 1, after centering.
    """

    method: Literal["nearest_mean"] = "nearest_mean"
    centered: bool = True
    normalised: bool = True

    @property
    def epochs(self) -> int:
        """One: the features are seen whole."""
        return 1


Training = Annotated[
    Supervised | Prototypical | Siamese | Maml | Pretrain | LinearProbe | NearestMean,
    Field(discriminator="method"),
]

METHODS: dict[str, type[Group]] = {
    "supervised": Supervised,
    "prototypical": Prototypical,
    "siamese": Siamese,
    "maml": Maml,
    "pretrain": Pretrain,
    "linear_probe": LinearProbe,
    "nearest_mean": NearestMean,
}

# Raised by hand when a method's code changes what it computes: results of the older code are then
# run again, not mixed with new ones.
CODE_VERSIONS: dict[str, int] = {
    "supervised": 1,
    "prototypical": 1,
    "siamese": 1,
    # 2: the interval over test tasks is Student's; 3: test accuracy is always of tasks; 4: the
    # classes are mixed where BatchNorm's statistics are taken; 5: outputs begin alike
    "maml": 5,
    "pretrain": 1,
    "linear_probe": 2,  # 2: cross-validation chooses the penalty
    "nearest_mean": 1,
}

_HEAD = ("head", "cosine_scale", "dropout", "dropout_position")
_FEEDING = tuple(Feeding.model_fields)

# What the other groups have for other methods: a method has no use for these.
WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "supervised": (),
    "prototypical": (*_HEAD, *_FEEDING),
    "siamese": (*_HEAD, *_FEEDING),
    "maml": _FEEDING,
    "pretrain": _FEEDING,
    "linear_probe": (*_HEAD, *_FEEDING, "unfrozen_stages", "stochastic_depth"),
    "nearest_mean": (*_HEAD, *_FEEDING, "unfrozen_stages", "stochastic_depth"),
}


def names(method: str) -> list[str]:
    """The settings that a method's runs have, whatever their group."""
    groups = (Compute, Data, Model, Feeding, METHODS[method])
    fields = [field for group in groups for field in group.model_fields]
    return [field for field in fields if field not in WITHOUT_EFFECT[method]]
