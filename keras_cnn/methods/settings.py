"""What decides a run's result, typed: its images, its network, its method's settings.

A method's class of settings is its settings, and says of which kind its images and its network
are: the settings of a run are the fields of these classes and no others. The fields' names are
unique over the classes, so a recipe file, a table's columns and `--set` name a setting by its field
alone. A field that is at its default takes no part in a run's identity: one that is added leaves
the names of older results alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from keras_cnn.data import Split
from keras_cnn.data.augment import KINDS as AUGMENTATIONS
from keras_cnn.data.fit import Fit
from keras_cnn.errors import UserError
from keras_cnn.models import module_of

PositiveInt = Annotated[int, Field(ge=1)]
ImageSize = Annotated[int, Field(ge=8, le=1024)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Backend = Literal["torch", "tensorflow", "jax"]
DEFAULT_SEED = 213  # the deck's
# Settings of the methods here that decide nothing unless another one has one of these values.
DECIDES_WITH = {
    "momentum": ("optimizer", ("sgd",)),
    "schedule_epochs": ("schedule", ("step", "cosine")),
    "schedule_factor": ("schedule", ("step",)),
    "cosine_scale": ("head", ("cosine",)),
    "temperature": ("contrast", ("batch",)),
    "augment_share": ("augment", tuple(AUGMENTATIONS)),
    "augment_once": ("augment", tuple(AUGMENTATIONS)),
    **dict.fromkeys(
        ("workers", "pin_memory", "persistent_workers", "prefetch_batches", "drop_last"),
        ("feed", ("files",)),
    ),
}


def idle(settings: Mapping[str, object]) -> list[str]:
    """The settings that decide nothing beside the others, as a schedule's where there is none."""
    return [
        name for name, (other, values) in DECIDES_WITH.items() if settings.get(other) not in values
    ]


class Group(BaseModel):
    """A frozen, strictly typed group of settings; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Settings(Group):
    """Settings that decide a result, by the code that they call on.

    Attributes:
        uses: Dotted names of modules whose behaviour a class's settings call on, whatever they are;
            those of its bases come on top.
    """

    uses: ClassVar[tuple[str, ...]] = ()

    def code(self) -> Iterator[str]:
        """The modules whose behaviour these settings call on, by dotted name."""
        for group in type(self).__mro__:
            yield from vars(group).get("uses", ())


class Images(Settings):
    """Which images a run sees.

    Attributes:
        data: A source's name, or the path of a folder of images.
        image_size: Height and width in pixels that images are brought to.
        fit: How they are brought to a square: crop (the centre square), pad (the whole, with a grey
            border) or squash (the whole, its proportions lost).
        shots: Training images drawn from each class; None takes all.
        test_shots: Test images drawn from each class; None takes all.
    """

    data: str = "cinic10"
    image_size: ImageSize = 32
    fit: Fit = "crop"
    shots: PositiveInt | None = None
    test_shots: PositiveInt | None = None

    def code(self) -> Iterator[str]:
        """As `Settings.code`."""
        yield from super().code()
        if self.shots is not None or self.test_shots is not None:
            yield "keras_cnn.data.sampling"


class LargeImages(Images):
    """Training images larger than the network's input, to be cropped.

    Attributes:
        crop_from: Height and width in pixels at which training images are loaded.
    """

    crop_from: ImageSize = 64


class Network(Settings):
    """Which network a run begins with.

    Attributes:
        model: The network's name, or `module.function` of a network of one's own.
        hidden_units: Width of `baseline` and `enhanced`; None takes the deck's 32 and 64.
        weights: `pretrained` (as fetched), `bundled` (as the package has it), `random`, or the path
            of a torch, safetensors or Keras file.
    """

    uses = ("keras_cnn.models.initializers", "keras_cnn.models.heads")
    model: str = "convnext_tiny"
    hidden_units: Annotated[int, Field(ge=1, le=2048)] | None = None
    weights: str = "pretrained"

    def code(self) -> Iterator[str]:
        """As `Settings.code`."""
        yield from super().code()
        yield module_of(self.model)


class TrainedNetwork(Network):
    """A network whose weights train.

    Attributes:
        unfrozen_stages: The last n stages train, with the head; None trains everything.
        stochastic_depth: Highest rate of dropped residual branches.
    """

    unfrozen_stages: Annotated[int, Field(ge=0, le=4)] | None = None
    stochastic_depth: Fraction = 0.0

    def code(self) -> Iterator[str]:
        """As `Settings.code`."""
        yield from super().code()
        if self.unfrozen_stages is not None:
            yield "keras_cnn.models.freeze"


class Classifier(TrainedNetwork):
    """A network that trains with a head of logits.

    Attributes:
        head: `dense`, or `cosine` similarity to one learned weight a class.
        cosine_scale: What the similarities are multiplied by to make logits.
        dropout: Rate of the dropout before the head's dense layer.
    """

    head: Literal["dense", "cosine"] = "dense"
    cosine_scale: Positive = 1.0
    dropout: Fraction = 0.0


class Method(Settings):
    """Settings of a method: the keywords of its function, and what it is given.

    Attributes:
        module: The module whose `train` it is; its last part is the method's name. Empty for a
            method of one's own, whose class stands beside its function.
        images: Of which kind its images are.
        network: Of which kind its network is.
    """

    module: ClassVar[str] = ""
    images: ClassVar[type[Images]] = Images
    network: ClassVar[type[Network]] = Classifier

    @classmethod
    def name(cls) -> str:
        """What recipes call the method."""
        return cls.module.rpartition(".")[2] or cls.__name__

    def check_images(self, train: Split, test: Split) -> None:
        """Refuses images that the method cannot learn from, before anything is run.

        Args:
            train: With the names of all classes.
            test: Likewise.

        Raises:
            UserError: There is one class, or a class has too few images.
        """
        if len(train.class_names) < 2:
            raise UserError(f"there is one class: {self.name()} learns to tell two or more apart")

    def code(self) -> Iterator[str]:
        """As `Settings.code`."""
        yield from super().code()
        yield self.module or type(self).__module__


class Descent(Method):
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

    uses = ("keras_cnn.training.optimizers", "keras_cnn.training.schedule")
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Fraction = 0.0
    l2: NotNegative = 0.0
    schedule: Literal["constant", "step", "cosine"] = "constant"
    schedule_epochs: PositiveInt = 5
    schedule_factor: Positive = 0.5
    epochs: PositiveInt = 20


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
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    pin_memory: bool = False
    persistent_workers: bool = False
    prefetch_batches: PositiveInt | None = None
    drop_last: bool = False


class Supervised(Feeding, Descent):
    """How `fit` trains the network on labelled images.

    Attributes:
        batch_size: Images a step.
        augment: How training images are changed, one of `data.augment.KINDS`; `none` leaves them.
        augment_share: Share of the training images that are changed, drawn anew each epoch; the
            others stay as they are.
    """

    module = "keras_cnn.methods.supervised"
    batch_size: PositiveInt = 16
    augment: Literal["none", *AUGMENTATIONS] = "none"
    augment_share: Annotated[float, Field(gt=0, le=1)] = 0.5

    def code(self) -> Iterator[str]:
        """As `Settings.code`."""
        yield from super().code()
        if self.augment != "none":
            yield "keras_cnn.data.augment"

    @property
    def redraws(self) -> bool:
        """Whether each epoch draws its images anew."""
        return self.augment != "none"

    def check_images(self, train: Split, test: Split) -> None:
        """As `Method.check_images`."""
        super().check_images(train, test)
        count, size = len(train.labels), self.batch_size
        if self.feed == "files" and self.redraws:
            raise UserError("feed is 'files': images that change are fed from memory (feed memory)")
        if self.feed == "files" and self.drop_last and count < size:
            raise UserError(
                f"drop_last leaves no batch: {count} training images, batch_size is {size}"
            )


class Prototypical(Descent):
    """How a prototypical network learns from episodes.

    Attributes:
        embedding: Outputs of a dense layer on the features; None embeds by the features alone.
        distance: Of a query image to a prototype: `squared_euclidean` (the
            paper's), `euclidean`, or `cosine`.
        normalised: Bring embeddings to length 1.
        way: Classes of an episode; None takes all.
        support_shots: Support images a class.
        query_shots: Query images a class.
        episodes_an_epoch: Training episodes an epoch.
        evaluation_episodes: Test episodes after the last epoch.
    """

    module = "keras_cnn.methods.prototypical"
    uses = ("keras_cnn.methods.embedding", "keras_cnn.data.sampling")
    network = TrainedNetwork
    embedding: PositiveInt | None = 128
    distance: Literal["squared_euclidean", "euclidean", "cosine"] = "squared_euclidean"
    normalised: bool = False
    way: Annotated[int, Field(ge=2)] | None = None
    support_shots: PositiveInt = 5
    query_shots: PositiveInt = 10
    episodes_an_epoch: PositiveInt = 20
    evaluation_episodes: Annotated[int, Field(ge=2)] = 600

    def check_images(self, train: Split, test: Split) -> None:
        """As `Method.check_images`."""
        import numpy as np

        from keras_cnn.data import sampling

        super().check_images(train, test)
        shots, rng = (self.support_shots, self.query_shots), np.random.default_rng(0)
        sampling.draw_episodes(train.labels, 0, self.way, *shots, rng, train.class_names)


class Pairs(Descent):
    """How an embedding is learned from pairs of images.

    Attributes:
        embedding: Outputs of a dense layer on the features; None embeds by the features alone.
        margin: Distance from which on images of different classes are no longer pushed apart.
        batch_size: Pairs a step. An epoch has as many pairs as there are training images.
    """

    uses = ("keras_cnn.methods.embedding", "keras_cnn.data.sampling")
    network = TrainedNetwork
    embedding: PositiveInt | None = 128
    margin: Positive = 1.0
    batch_size: PositiveInt = 32

    def check_images(self, train: Split, test: Split) -> None:
        """As `Method.check_images`."""
        import numpy as np

        from keras_cnn.data import sampling

        super().check_images(train, test)
        sampling.balanced_pairs(train.labels, np.random.default_rng(0), train.class_names)


class Siamese(Pairs):
    """How a siamese network learns: the settings of `Pairs`, and with what an image is compared.

    Attributes:
        contrast: `pairs`: each image with another one; or `batch`: with all others of its batch at
            once, embeddings at length 1 (Khosla et al. 2020, arXiv:2004.11362), for a pretrained
            network. `batch_size` then counts images, and there is no margin.
        temperature: What the cosines of `batch` are divided by.
    """

    module = "keras_cnn.methods.siamese"
    uses = ("keras_cnn.methods.batch_contrast",)
    contrast: Literal["pairs", "batch"] = "pairs"
    temperature: Positive = 0.2

    def code(self) -> Iterator[str]:
        """As `Settings.code`."""
        yield from super().code()
        if self.contrast == "batch":
            yield "keras_cnn.methods.batch_contrast"


class Maml(Descent):
    """How model-agnostic meta-learning finds weights from which few steps suffice.

    `optimizer` and `learning_rate` are those of the outer loop.

    Attributes:
        inner_learning_rate: Rate of the inner loop's gradient descent. A pretrained ResNet-18 needs
            it ten times smaller than a small network from random weights, whose features are small.
        inner_steps: Steps of the inner loop.
        second_order: Differentiate through the inner steps; False takes their gradients as
            constants (first-order MAML), in a third of the time.
        way: Classes of a task, at most; None takes all.
        head_start: The head that each inner loop begins with: `alike`, each output the mean of
            those learned (UNICORN-MAML, arXiv:2106.16245); `prototypes`, the class means of the
            support (Proto-MAML, arXiv:1903.03096), for a pretrained network; or `learned`.
        support_shots: Support images a class.
        query_shots: Query images a class.
        tasks_a_step: Tasks whose losses one outer step averages.
        steps_an_epoch: Outer steps an epoch.
        batch_norm: `task` normalises by the statistics of the images at hand; `stored` by the
            running statistics, which stand still.
        adaptation_steps: Inner steps, each on some of the shots in turn, that make the classifier
            of the weights found.
    """

    module = "keras_cnn.methods.maml"
    uses = ("keras_cnn.methods.tasks", "keras_cnn.methods.head_start")
    inner_learning_rate: Positive = 0.01
    inner_steps: PositiveInt = 5
    second_order: bool = False
    way: Annotated[int, Field(ge=2)] | None = 5
    head_start: Literal["alike", "prototypes", "learned"] = "alike"
    support_shots: PositiveInt = 5
    query_shots: PositiveInt = 5
    tasks_a_step: PositiveInt = 4
    steps_an_epoch: PositiveInt = 20
    batch_norm: Literal["task", "stored"] = "stored"
    adaptation_steps: PositiveInt = 300

    def check_images(self, train: Split, test: Split) -> None:
        """As `Method.check_images`."""
        from keras_cnn.methods.tasks import Tasks

        super().check_images(train, test)
        Tasks(train, test, len(train.class_names), self.support_shots, self.query_shots)

    def code(self) -> Iterator[str]:
        """As `Settings.code`."""
        yield from super().code()
        if self.batch_norm == "task":
            yield "keras_cnn.training.batch_statistics"


class Pretrain(Method):
    """How a backbone learns from many images, to be taught others from few later.

    AdamW under a rate that warms up, then falls to zero along a cosine; labels smoothed; crops,
    flips and colours drawn anew each epoch; evaluated and saved as the moving average of weights.

    Attributes:
        epochs: Passes over the training images.
        minutes: Train for as many epochs, one at least, as this machine makes in this time; None
            takes `epochs`.
        batch_size: Images a step.
        learning_rate: The highest.
        warm_up_epochs: In which it rises from zero.
        weight_decay: Decoupled; not of biases, norms and layer scales.
        label_smoothing: Share of each label spread over all classes.
        average_decay: Of the moving average of weights, a step.
        smallest_crop: Share of an image's area.
        colour: Brightness, contrast and saturation vary by factors of up to 1 -+ this.
        cutmix_share: Of the images that have a box of another pasted in, labels mixed by area
            (Yun et al. 2019, arXiv:1905.04899).
        mixed_precision: Multiply in bfloat16 while training, on torch; None where the device is
            made for it.
    """

    module = "keras_cnn.methods.pretrain"
    uses = ("keras_cnn.training.optimizers", "keras_cnn.data.augment", "keras_cnn.data.crops")
    images = LargeImages
    epochs: PositiveInt = 40
    minutes: Positive | None = None
    batch_size: PositiveInt = 128
    learning_rate: Positive = 1e-3
    warm_up_epochs: NotNegative = 2.0
    weight_decay: NotNegative = 0.05
    label_smoothing: Fraction = 0.1
    average_decay: Fraction = 0.998
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.35
    colour: Fraction = 0.2
    cutmix_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    mixed_precision: bool | None = None


class OnFeatures(Method):
    """What methods share that look once at a backbone's features, which stay as they are."""

    uses = ("keras_cnn.methods.on_features",)
    network = Network

    @property
    def epochs(self) -> int:
        """One: the features are seen whole."""
        return 1

    def check_images(self, train: Split, test: Split) -> None:
        """As `Method.check_images`."""
        super().check_images(train, test)
        check_each_class(train)


class LinearProbe(OnFeatures):
    """How logistic regression learns on a backbone's features, which stay as they are.

    Attributes:
        regularization_strength: Of the L2 penalty on the weights of the standardised features,
            as the inverse of scikit-learn's C; None chooses it by cross-validation on the shots.
        balanced: Weigh images so that every class counts alike, however many it has.
    """

    module = "keras_cnn.methods.linear_probe"
    regularization_strength: Positive | None = None
    balanced: bool = False


class NearestMean(OnFeatures):
    """How the nearest class mean classifies a backbone's features, which stay as they are.

    Attributes:
        centered: Subtract the mean of all shots first.
        normalised: Bring features to length 1, after centering.
    """

    module = "keras_cnn.methods.nearest_mean"
    centered: bool = True
    normalised: bool = True


class LinearDiscriminant(OnFeatures):
    """How linear discriminant analysis classifies a backbone's features, which stay as they are.

    Attributes:
        shrinkage: How far the covariance of the features round their class means is drawn to a
            multiple of the identity, in (0, 1]: the fewer images, the farther.
        normalised: Bring features to length 1 first, after subtracting the mean of all shots.
    """

    module = "keras_cnn.methods.linear_discriminant"
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.5
    normalised: bool = False


def check_each_class(train: Split) -> None:
    """Refuses training images without one of each class: there is no mean of it to be had.

    Raises:
        UserError: A class has none.
    """
    for label, name in enumerate(train.class_names):
        if label not in train.labels:
            raise UserError(f"class {name!r} has no training image: each class needs one")


METHODS: tuple[type[Method], ...] = (
    Supervised,
    Prototypical,
    Siamese,
    Maml,
    Pretrain,
    LinearProbe,
    LinearDiscriminant,
    NearestMean,
)
