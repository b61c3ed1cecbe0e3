"""Settings of the deck's own methods: the right method's, and what the deck did otherwise."""

from __future__ import annotations

from typing import Literal

from keras_cnn.data import Split
from keras_cnn.methods import settings
from keras_cnn.methods.settings import Descent, Method, PositiveInt, TrainedNetwork


class SupervisedAsRun(settings.Supervised):
    """How the deck's loop trained: `supervised`, with what went wrong in it.

    Attributes:
        eval_mode_sticks: Train in inference mode from the second epoch on, since the loop never
            called train() again after its first test pass.
        frozen_statistics_move: BatchNorm of frozen stages still updates its running statistics
            in training mode, as under torch's requires_grad=False.
        dropout_on_logits: Dropout acts on the logits, not before the dense layer.
        augment_once: Augmentation is drawn once, before the first epoch, and keeps each first
            image's label whole.
    """

    module = "keras_cnn.deck.supervised_as_run"
    uses = ("keras_cnn.methods.supervised",)
    eval_mode_sticks: bool = True
    frozen_statistics_move: bool = False
    dropout_on_logits: bool = False
    augment_once: bool = False

    @property
    def redraws(self) -> bool:
        """Whether each epoch draws its images anew."""
        return super().redraws and not self.augment_once


class PrototypicalSplitBatches(Descent):
    """How the deck's prototypical network learned: from batches split at random.

    Attributes:
        embedding: Outputs of a dense layer on the features; None embeds by the features alone.
        distance: Of a query image to a prototype, see `Prototypical`.
        normalised: Bring embeddings to length 1.
        batch_size: Images of a batch.
        support_images: How many of them are support images; the others are its queries.
    """

    module = "keras_cnn.deck.prototypical_split_batches"
    uses = ("keras_cnn.methods.embedding", "keras_cnn.data.sampling")
    network = TrainedNetwork
    embedding: PositiveInt | None = 128
    distance: Literal["squared_euclidean", "euclidean", "cosine"] = "euclidean"
    normalised: bool = True
    batch_size: PositiveInt = 128
    support_images: PositiveInt = 100

    def check_images(self, train: Split, test: Split) -> None:
        """As `Method.check_images`."""
        import numpy as np

        from keras_cnn.data import sampling

        super().check_images(train, test)
        settings.check_each_class(train)
        for split in (train, test):
            sizes = self.batch_size, self.support_images
            sampling.split_batches(split.labels, *sizes, np.random.default_rng(0))


class SiameseInverted(settings.Pairs):
    """How the deck's siamese network learned: random pairs, their targets the wrong way round."""

    module = "keras_cnn.deck.siamese_inverted"
    uses = ("keras_cnn.methods.siamese",)


class MamlDetached(Descent):
    """How the deck's MAML ran: copies are trained and thrown away.

    `optimizer` and `learning_rate` are those of the outer loop; they reach no weight.

    Attributes:
        inner_steps: Steps of a copy's Adam.
        copy_learning_rate: Its rate.
        batch_size: Images a copy is trained and tested on.
    """

    module = "keras_cnn.deck.maml_detached"
    inner_steps: PositiveInt = 5
    copy_learning_rate: settings.Positive = 0.001
    batch_size: PositiveInt = 128


METHODS: tuple[type[Method], ...] = (
    SupervisedAsRun,
    PrototypicalSplitBatches,
    SiameseInverted,
    MamlDetached,
)
