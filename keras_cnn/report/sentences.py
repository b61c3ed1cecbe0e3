"""What each of the deck's defects changes, in words. Never imports keras.

Each function takes the results of one recipe and gives a sentence, or None where they do not hold
what it needs. The numbers are from `results.compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.results import compare
from keras_cnn.results.caption import way
from keras_cnn.results.collect import Collected
from keras_cnn.results.compare import SettingEffect
from keras_cnn.results.layout import count_text, variant_text
from keras_cnn.results.table import AS_RUN, Line


def best_of_n(collected: Collected) -> str | None:
    """Defect 1: how far the best of n is above the mean."""
    excess = compare.best_minus_mean(collected)
    if not excess:
        return None
    counts = {line.n for line in collected.lines if line.row in excess and line.variant == AS_RUN}
    text = (
        f"as run, the best of {' or '.join(map(str, sorted(counts)))} stands "
        f"{fmean(excess.values()):.1f} points of test accuracy above the mean of the same runs"
    )
    if len(excess) == 1:
        return f"{text} (row {next(iter(excess))})."
    most = max(excess, key=excess.__getitem__)
    return f"{text} on average over {len(excess)} rows, {excess[most]:.1f} in row {most}."


def as_run_and_corrected(collected: Collected) -> str | None:
    """Defects 2 and 3: what the corrected variant changes."""
    test = compare.variant_difference(collected, "test_accuracy")
    train = compare.variant_difference(collected, "train_accuracy")
    if not test:
        return None
    text = f"test accuracy {test.as_run:.1f} as run, {test.corrected:.1f} corrected"
    text += f" (over {len(test.by_row)} rows)" if len(test.by_row) > 1 else ""
    text += f": {test.mean:+z.1f} points"
    if test.standard_error is not None:
        text += f", standard error {test.standard_error:.1f}"
    elif test.one_draw:
        text += " (without a standard error: as run, all repeats share one draw of images)"
    if len(test.by_row) > 1:
        low, high = (pick(test.by_row, key=test.by_row.__getitem__) for pick in (min, max))
        text += (
            f"; from {test.by_row[low]:+z.1f} (row {low}) to {test.by_row[high]:+z.1f} (row {high})"
        )
    if train:
        text += f". Train accuracy {train.as_run:.1f} as run, {train.corrected:.1f} corrected"
    return f"{text}."


def setting_effect(setting: str, name: str, collected: Collected) -> str | None:
    """Defects 2 and 4: how far rows that differ in one setting alone lie apart, by variant."""
    if not collected.lines:
        return None
    effects = {
        f"{MEASURES[measure].label} {variant_text(variant)}": effect
        for measure in ("train_accuracy", "test_accuracy")
        for variant in collected.recipe.variants
        if (effect := compare.setting_effect(collected, setting, measure, variant))
    }
    if not effects:
        return f"no two of the rows at hand differ in {name} alone."
    clauses = "; ".join(f"{what} {_effect(effect)}" for what, effect in effects.items())
    text = f"compared where rows differ in {name} alone: {clauses}."
    if any(effect.left_out for effect in effects.values()):
        text += f" Left out are rows {_why_left_out(setting)}, and those then alone in their set."
    return text


def _effect(effect: SettingEffect) -> str:
    if effect.range is None:
        return f"cannot be compared ({effect.left_out} rows left out)"
    notes = [f"{effect.rows} rows in {effect.sets} {'sets' if effect.sets > 1 else 'set'}"]
    if effect.left_out:
        notes.append(f"{effect.left_out} left out")
    if effect.by_chance is not None:
        notes.append(f"by chance alone {effect.by_chance:.1f}")
    return f"{effect.range:.1f} points apart ({', '.join(notes)})"


def _why_left_out(setting: str) -> str:
    if setting in compare.MAY_FAIL:
        return "without a figure"
    times = {1.5: "one and a half times"}.get(compare.LEARNED, f"{compare.LEARNED:g} times")
    return f"that did not learn ({times} chance or less in training, or without a figure)"


def augmentation(collected: Collected) -> str | None:
    """Defect 5: what each augmentation adds or takes away, by variant."""
    texts = []
    for variant in collected.recipe.variants:
        means = compare.augmentation_means(collected, variant)
        if means:
            none = means.pop("none")
            each = ", ".join(f"{kind} {mean - none:+z.1f}" for kind, mean in means.items())
            texts.append(f"{variant_text(variant)} {each} points against {none:.1f} with none")
    return f"test accuracy {'; '.join(texts)}." if texts else None


def method(name: str, shown: Sequence[str], collected: Collected) -> str | None:
    """Defects 6 to 8: what a method's rows give in each variant."""
    lines = [
        line  # the deck's own method is called by the right one's name, and what is wrong with it
        for line in collected.lines
        if collected.runs(line)[0].settings["method"].startswith(name)
    ]
    if not lines:
        return None
    texts = [
        f"row {line.row} {variant_text(line.variant)} (n = {count_text(line)}): "
        f"{_means(line, shown)}"
        for line in lines
    ]
    runs = [run for line in lines for run in collected.runs(line)]
    classes = sorted({one for run in runs for one in (len(run.class_names), way(run))})
    chances = (f"of {count} classes is {100 / count:.1f} percent" for count in reversed(classes))
    return f"{'; '.join(texts)}. Chance {', '.join(chances)}."


def _means(line: Line, shown: Sequence[str]) -> str:
    measured = {name: line.measures[name] for name in shown if line.measures[name].mean is not None}
    texts = [
        f"{MEASURES[name].label} "
        f"{measures.written(one.mean, one.sd, measures.decimals(name, [one.mean]))}"
        for name, one in measured.items()
    ]
    return ", ".join(texts) or "none of what is needed"


# By the name that `slides.yaml` gives.
SENTENCES: dict[str, Callable[[Collected], str | None]] = {
    "best_of_n": best_of_n,
    "as_run_and_corrected": as_run_and_corrected,
    "augmentation": augmentation,
    "dropout": partial(setting_effect, "dropout", "dropout"),
    "l2": partial(setting_effect, "l2", "L2"),
    "siamese": partial(method, "siamese", ("pair_accuracy", "test_accuracy_over_images")),
    "maml": partial(
        method, "maml", ("weights_moved", "test_accuracy", "test_accuracy_over_images")
    ),
    "prototypical": partial(
        method,
        "prototypical",
        ("test_accuracy", "episode_accuracy", "test_accuracy_over_images"),
    ),
}
