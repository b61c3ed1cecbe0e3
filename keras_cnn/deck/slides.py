"""The words about the deck, from `slides.yaml`, typed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from keras_cnn.methods.settings import Group
from keras_cnn.recipe import strict_yaml

FILE = Path(__file__).with_name("slides.yaml")


class Network(Group):
    """A network whose summary a slide shows.

    Attributes:
        model: Its name.
        hidden_units: Its width.
        deck: What the slide prints, by the names of `models.summary.Summary`.
    """

    model: str
    hidden_units: int
    deck: dict[str, float | int]


class Slide(Group):
    """One slide, or several that show one thing.

    Attributes:
        slides: Their numbers.
        heading: A few words.
        text: What they show; text in backticks is code.
        networks: Those whose summaries they show.
        table: Show the table of the recipes that name the slide.
        pictures: Patterns of file names of pictures; None takes those the recipe itself names.
    """

    slides: list[int]
    heading: str
    text: str
    networks: list[Network] = Field(default_factory=list)
    table: bool = True
    pictures: list[str] | None = None

    @property
    def anchor(self) -> str:
        """What a link to it names."""
        return f"slide-{self.slides[0]}"


class Defect(Group):
    """Something that makes the deck's numbers other than they seem.

    Attributes:
        number: Counted from 1.
        heading: A few words.
        slides: Those it bears on.
        text: What the deck did; text in backticks is code.
        deck: Its effect in the deck's own figures; may be empty.
        measured: By recipe, the name in `report.sentences.SENTENCES` of what tells its effect.
    """

    number: int
    heading: str
    slides: list[int]
    text: str
    deck: str = ""
    measured: dict[str, str]


class Deck(Group):
    """All slides in order, and all defects."""

    slides: list[Slide]
    defects: list[Defect]


def read() -> Deck:
    """Reads the package's own file."""
    document = strict_yaml.read(FILE).content
    return Deck.model_validate(document)
