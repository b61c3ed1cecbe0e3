"""What a table says of itself: what was measured on what, and how to read its figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from keras_cnn.data import sources
from keras_cnn.pretrained import named
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results import differences
from keras_cnn.results.store import Result

if TYPE_CHECKING:
    from keras_cnn.results.table import Line

NAMED = 10  # runs in one sentence
LOOP_OF_THE_DECK = "supervised_as_run"
BATCH_MEANS = (
    "As run, accuracy and loss are means over batches, of which a smaller last one counts as much "
    "as any; the saved models' accuracy is over images."
)
SECONDS = {"seconds", "seconds_an_epoch", "images_a_second", "processor_use"}


def text(
    recipe: Recipe, results: Sequence[Result], lines: Sequence[Line], beside_deck: bool
) -> str:
    """What was measured on what, by which software and machine, and how to read the figures.

    Args:
        recipe: The recipe.
        results: The table's runs.
        lines: Its lines.
        beside_deck: Whether the deck's figures are shown.
    """
    sentences = [
        _measured_on(results),
        "Accuracies in percent, after the last epoch; ± is the sample standard deviation over the "
        "repeats, on these test images.",
        *_of_intervals(results, lines),
    ]
    if shared := max(r.metrics.get("shared_images", 0) for r in results):
        sentences.append(f"{shared:,} test images of the data have the pixels of training images.")
    if not {"train_accuracy", "test_accuracy"}.isdisjoint(recipe.measures):
        sentences.append(
            "Best of n is the repeat with the best test accuracy, chosen on the test images."
        )
    if beside_deck and any(row.deck.model_fields_set for row in recipe.rows):
        sentences.append(f"The deck's figures: {recipe.deck_figures}.")
    sentences += _of_seconds(recipe, results)
    sentences += [*_diverged(results), *_names_one_class(results), recipe.note]
    return " ".join([*sentences, *of_methods(recipe, results)]).strip()


def of_methods(recipe: Recipe, results: Sequence[Result]) -> list[str]:
    """What the train and test accuracy of some methods are of; the rest's are of all images."""
    methods = {r.settings["method"] for r in results}
    notes = [
        note  # the deck's own methods are called by the right one's name, and what is wrong
        for name, note in recipe.method_notes.items()
        if any(method.startswith(name) for method in methods)
    ]
    return [*notes, *([BATCH_MEANS] if LOOP_OF_THE_DECK in methods else [])]


def _measured_on(results: Sequence[Result]) -> str:
    """Data, networks, software and machines."""
    versions: dict[str, set[str]] = {}
    for result in results:
        for name, version in result.environment["versions"].items():
            versions.setdefault(name, set()).add(version)
    machines = {f"{r.environment['device']} ({r.environment['processor']})" for r in results}
    models = {
        f"{r.settings['model']} from {named.weights_title(r.settings['weights'])}" for r in results
    }
    epochs = [len(r.history) for r in results]
    backends = {r.environment["backend"] for r in results}
    plural = "s" if len(backends) > 1 else ""
    return (
        f"Profile {_listed({r.place.profile for r in results})}: "
        f"data {_listed({sources.title(r.settings['data']) for r in results})}, "
        f"{_range(r.metrics['train_images'] for r in results)} training and "
        f"{_range(r.metrics['test_images'] for r in results)} test images of "
        f"{_range(len(r.class_names) for r in results)} classes{_tasks(results)}, "
        f"{_range(r.settings['image_size'] for r in results)} pixels{_fits(results)}, "
        f"{_range(epochs)} epoch{'s' if max(epochs) > 1 else ''}; {_listed(models)}; "
        f"backend{plural} {_listed(backends)} "
        f"({', '.join(f'{name} {_listed(found)}' for name, found in versions.items())}), "
        f"device {_listed(machines)}."
    )


def _of_seconds(recipe: Recipe, results: Sequence[Result]) -> list[str]:
    """A sentence where seconds are shown of runs that were not made on the same machine."""
    if SECONDS.isdisjoint(recipe.measures):
        return []
    hosts = {r.environment.get("host") for r in results} - {None}  # older results have none
    groups: dict[str, set[str]] = {}
    for result in results:
        made = result.environment
        on = f"{made['device']} ({made['processor']}, threads {result.spec.get('threads', 1)})"
        name = f"{on} of {made.get('host', 'unknown')}" if len(hosts) > 1 else on
        groups.setdefault(name, set()).add(result.place.row)
    if len(groups) < 2:
        return []
    of_each = [f"{name}: rows {_listed(rows)}" for name, rows in sorted(groups.items())]
    more = f"; and {len(of_each) - NAMED:,} more" if len(of_each) > NAMED else ""
    listed = "; ".join(of_each[:NAMED])
    return [f"Seconds are of different machines, between which none compares: {listed}{more}."]


def _fits(results: Sequence[Result]) -> str:
    """How images became squares, where it is not by their centre alone."""
    fits = {r.settings.get("fit", "crop") for r in results}  # older results were all cropped
    return "" if fits == {"crop"} else f" (fit {_listed(fits)})"


def _of_intervals(results: Sequence[Result], lines: Sequence[Line]) -> list[str]:
    """What the intervals cover; nothing where there are none."""
    sentences = []
    with_interval = [line for line in lines if line.on_new_images]
    if with_interval:
        repeats = "other repeats (their seeds and shots) and other test images"
        one = "other test images alone" if any(line.n == 1 for line in with_interval) else ""
        several = repeats if any(line.n > 1 for line in with_interval) else ""
        covers = "; of a single run, ".join(filter(None, (several, one)))
        sentences.append(
            "The 95 percent interval is of the saved models' mean accuracy on new images, and "
            f"covers {covers}."
        )
    if any(line.n == 2 for line in with_interval):
        sentences.append("Two runs hardly tell how far runs lie apart: their interval is wide.")
    if with_interval and any(line.n and not line.on_new_images for line in lines):
        sentences.append(
            "There is none where an earlier version made a run (--fresh makes it again)."
        )
    once = _drawn_once(results, with_interval)
    if once:
        sentences.append(
            f"{once}, all repeats share one draw of images: these intervals are for that draw."
        )
    if any(line.measures["episode_interval"].mean is not None for line in lines):
        sentences.append(
            "That of test episodes covers other episodes drawn with replacement from the same test "
            "images, not new images (arXiv:2409.02850)."
        )
    return sentences


def _drawn_once(results: Sequence[Result], lines: Sequence[Line]) -> str:
    """The variants whose repeats share one draw of images."""
    variants = {
        line.variant
        for line in lines
        if differences.drawn_once([r for r in results if r.folder.name in line.runs])
    }
    return _listed(variants).replace("_", " ").capitalize()


def way(result: Result) -> int:
    """Of how many classes a run's test accuracy is: of its tasks or episodes, or of all."""
    classes = len(result.class_names)
    return min(result.settings.get("way") or classes, classes)


def _tasks(results: Sequence[Result]) -> str:
    ways = {
        f"row {r.place.row}: in tasks of {way(r)}, chance {100 / way(r):.1f}"
        for r in results
        if way(r) < len(r.class_names)
    }
    return f" ({'; '.join(sorted(ways))})" if ways else ""


def _diverged(results: Sequence[Result]) -> list[str]:
    """A sentence that names the runs that diverged; none where none did."""
    named = [
        f"row {r.place.row} {r.place.variant} repeat {r.place.repeat + 1} at epoch {r.diverged_at}"
        for r in results
        if r.diverged_at
    ]
    more = f" and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    listed = f"{', '.join(named[:NAMED])}{more}"
    return [f"Diverged, to what is no number, and in no figure: {listed}."] if named else []


def _names_one_class(results: Sequence[Result]) -> list[str]:
    """A sentence that counts the runs that learnt nothing; none where all did."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        name = f"row {result.place.row} {result.place.variant}"
        groups.setdefault(name, []).append(result.names_one_class)
    counts = [f"{sum(them)} of {len(them)} ({name})" for name, them in groups.items() if any(them)]
    more = f" and {len(counts) - NAMED:,} more" if len(counts) > NAMED else ""
    listed = f"{', '.join(counts[:NAMED])}{more}"
    return [f"Runs that name one class for every test image: {listed}."] if counts else []


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _range(counts: Iterable[int]) -> str:
    """`1,000`, or `10 to 1,000`."""
    found = sorted(set(counts))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"
