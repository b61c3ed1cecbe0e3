"""What can be tried: a backbone, how images are brought to a square, a method and its settings."""

from __future__ import annotations

from dataclasses import dataclass

from keras_cnn.methods.settings import Method, Supervised


@dataclass(frozen=True)
class Candidate:
    """A way to classify photographs.

    Attributes:
        backbone: A network's name.
        weights: Which weights it starts from, as of `models.classifier`.
        image_size: Height and width that images are brought to, in pixels.
        fit: How they are: `crop`, `squash` or `pad`.
        settings: The method's, whose name is `settings.name()`.
    """

    backbone: str
    weights: str
    image_size: int
    fit: str
    settings: Method

    @property
    def start(self) -> tuple[str, str]:
        """The backbone's name and its weights."""
        return self.backbone, self.weights

    @property
    def method(self) -> str:
        """The method's name."""
        return "fine_tuning" if isinstance(self.settings, Supervised) else self.settings.name()

    @property
    def own_settings(self) -> str:
        """The method's settings that are not at their defaults."""
        own = self.settings.model_dump(exclude_defaults=True)
        return " ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in own.items()
        )

    @property
    def title(self) -> str:
        """What people call it, in a few words."""
        words = (self.method, self.own_settings, self.backbone, self.fit)
        return " ".join(filter(None, words))
