"""The commands, one function each: thin, over the package's own functions."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from keras_cnn import environment
from keras_cnn.errors import UserError, nearest
from keras_cnn.home import DEFAULT_OUT


def recipes() -> None:
    """List the recipes: slides, runs (rows in each variant they have, x repeats), title."""
    from keras_cnn import recipe as recipe_files
    from keras_cnn.results import grid

    rows = [("recipe", "slides", "runs", "title")]
    for one in map(recipe_files.read, recipe_files.names()):
        slides = ", ".join(map(str, one.slides)) or "-"
        in_variants = sum(len(one.variants_of(row)) for row in one.rows)
        runs = f"{len(one.rows)} rows, {in_variants} x {one.repeats} runs"
        rows.append((one.name, slides, runs, one.title))
    print("\n".join(grid.aligned(rows)))


def recipe(
    name: str,
    rows: list[str] | None = None,
    repeats: int | None = None,
    variant: str = "both",
    profile: str | None = None,
    data: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    out: Path = DEFAULT_OUT,
    backend: str | None = None,
    jobs: int | None = None,
    set: dict[str, object] | None = None,
    dry_run: bool = False,
    fresh: bool = False,
) -> None:
    """Run what is not on disk yet of a recipe, then print and write its table.

    Args:
        name: One of `python -m keras_cnn recipes`, the path of a recipe file, or all: each of
            them with the same flags, of which --rows, --variant, --weights and --set are refused.
        rows: Rows to run, as 1,4. All by default.
        repeats: Runs of each row and variant.
        variant: as_run (as the deck's code did), corrected, or both.
        profile: deck (CINIC-10 and the deck's weights, once fetched) or mini (what every machine
            has). By default deck when it has been fetched.
        data: A source (cinic10, cifar10, digits, synthetic) or a folder of images, all of whose
            test images are used.
        weights: bundled, pretrained, random, or a file: torch, safetensors, .keras or .weights.h5.
        image_size: Height and width in pixels the images are brought to.
        out: Where results go: OUT/NAME/.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
        jobs: Runs at a time. By default one a processor core, or one on a GPU.
        set: Any setting, as --set epochs 3 or --set epochs=3; may be given again.
        dry_run: Print what would be run and an estimate of the time; run nothing.
        fresh: Run again what is on disk too.
    """
    from keras_cnn.runs import study

    overrides = {"data": data, "weights": weights, "image_size": image_size}
    conduct = partial(
        study.conduct,
        profile=profile,
        rows=rows,
        variant=variant,
        repeats=repeats,
        overrides=(set or {}) | {k: v for k, v in overrides.items() if v is not None},
        backend=_backend(backend),
        out=out,
        parallel=jobs,
        fresh=fresh,
        dry_run=dry_run,
    )
    if name == "all":
        _refuse_with_all(rows=rows, variant=variant != "both", weights=weights, set=set)
        failed = not study.conduct_all(conduct)
    else:
        failed = conduct(name).failed
    if failed:
        raise SystemExit(1)


def _refuse_with_all(**given: object) -> None:
    for flag, value in given.items():
        if value:
            raise UserError(f"recipe all takes no --{flag}: name the recipe it is meant for")


def fetch(name: str) -> None:
    """Download data or weights: cinic10, cifar10, tiny_imagenet, convnext_tiny, resnet18, or deck.

    The only command that uses the network.

    Args:
        name: What to fetch; deck is all that the deck's recipes need.
    """
    from keras_cnn.downloads import fetch as downloads

    for path in downloads.fetch(name):
        print(path)


def data(
    source: str, image_size: int = 32, out: Path | None = None, augment: str | None = None
) -> None:
    """Tell what a data source holds, its faults, and draw samples, or what augmentation makes.

    Args:
        source: cinic10, cifar10, tiny_imagenet, digits, synthetic, or a folder of images.
        image_size: Height and width in pixels the images are brought to.
        out: Where the picture goes; by default <source>-samples.png or <source>-<augment>.png here.
        augment: Only draw what becomes of samples by flip, rotation, jitter, mixed, cutmix, mixup,
            cutout, or by all of them.
    """
    from keras_cnn import data as sources
    from keras_cnn.data import augment_grid, inspect

    shown = augment_grid.kinds(augment) if augment else []
    name = f"{Path(source).resolve().name}-{augment or 'samples'}.png"
    picture = _picture(out or Path(name))
    if shown:
        augment_grid.draw(sources.load(source, image_size), shown, picture)
        print(f"augmented samples: {picture}")
        return
    print(inspect.render(inspect.describe(source, image_size)))
    inspect.picture_grid(sources.load(source, image_size), picture)
    print(f"samples: {picture}")


def predict(
    model: Path, *images: str, top: int = 3, json: bool = False, backend: str | None = None
) -> None:
    """Classify images, or all images of a folder, with a saved model.

    Args:
        model: A .keras file, as <run folder>/model.keras.
        images: Image files or folders.
        top: How many classes to name for each image.
        json: Print JSON.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
    """
    from keras_cnn import prediction

    if not images:
        raise UserError("predict needs IMAGES; see: python -m keras_cnn predict --help")
    os.environ["KERAS_BACKEND"] = _backend(backend)
    prediction.predict(model, [Path(image) for image in images], top, json)


def evaluate(
    model: Path,
    data: str | None = None,
    split: str = "test",
    out: Path | None = None,
    backend: str | None = None,
) -> None:
    """Accuracy, precision, recall, F1 and confusion matrix of a saved model on a data source.

    Args:
        model: A .keras file, as <run folder>/model.keras.
        data: cinic10, cifar10, tiny_imagenet, digits, synthetic, or a folder of images.
        split: train, valid or test.
        out: Where the picture goes; by default <model>-confusion.png beside the model.
        backend: torch, tensorflow or jax; KERAS_BACKEND by default.
    """
    from keras_cnn import prediction

    if not data:
        raise UserError("evaluate needs --data=SOURCE_OR_FOLDER")
    os.environ["KERAS_BACKEND"] = _backend(backend)
    prediction.evaluate(model, data, split, _picture(out) if out else None)


def summary(
    model: str,
    format: str = "text",
    batch_size: int = 64,
    classes: int = 10,
    image_size: int = 32,
    hidden_units: int | None = None,
) -> None:
    """Layers, output shapes, parameters and mult-adds of a model by name or of a saved file.

    Args:
        model: A network's name (baseline, enhanced, resnet18, convnext_tiny, …), or a .keras file.
        format: text, markdown or json.
        batch_size: Images in a batch, for shapes and mult-adds.
        classes: Outputs of a network by name.
        image_size: Height and width of its input in pixels.
        hidden_units: Width of baseline and enhanced; 32 and 64 by default.
    """
    formats = ("text", "markdown", "json")
    if format not in formats:
        raise UserError(f"no format {format!r}: {nearest(format, formats)}")
    os.environ["KERAS_BACKEND"] = _backend()
    from keras_cnn import models
    from keras_cnn.models import saved
    from keras_cnn.models import summary as summaries

    if model.endswith(".keras"):
        graph, _ = saved.load(Path(model))
    else:
        graph = models.classifier(
            model,
            classes,
            image_size,
            dropout=models.DROPOUT.get(model, 0.0),
            hidden_units=hidden_units,
        )
    print(summaries.render(summaries.summarise(graph, batch_size), format))


def backbone(model: Path, file: Path) -> None:
    """Write a saved model's backbone as a weights file of half the size, for --weights=FILE.

    Args:
        model: The .keras file of a run, of `recipe pretrain` for one.
        file: Ends in .weights.h5.
    """
    from keras_cnn import files
    from keras_cnn.downloads import registry
    from keras_cnn.pretrained import keras_files

    if not file.name.endswith(".weights.h5"):
        raise UserError(f"{str(file)!r}: a weights file's name ends in .weights.h5")
    files.check_writable(file.parent)
    keras_files.write_backbone(model, file)
    print(f"{file}: {file.stat().st_size:,} bytes, SHA-256 {registry.fingerprint(file)}")


def report(out: Path = DEFAULT_OUT, to: Path | None = None) -> None:
    """Write one page on all slides, report.md and report.html, from the results on disk.

    Args:
        out: Where results lie: OUT/RECIPE/.
        to: The folder the page goes to; OUT by default.
    """
    os.environ["KERAS_BACKEND"] = _backend()
    from keras_cnn import report as reports

    reports.report(out, to or out)


def bench(*names: str, rounds: int = 5, threads: int = 1, out: Path | None = None) -> None:
    """Measure speed against peers, interleaved: training, loader, fewshot, repeats.

    Args:
        names: Which of them, or all; all by default.
        rounds: How often each contender takes its turn, at least 5; one more warms up.
        threads: Threads of each contender's process; repeats has its own.
        out: A JSON file for the figures.
    """
    from keras_cnn import bench as benches

    benches.bench(names, rounds, threads, out)


def _backend(name: str | None = None) -> str:
    name = name or os.environ.get("KERAS_BACKEND", "torch")
    environment.require(name)
    return name


def _picture(path: Path) -> Path:
    """A path a picture can be drawn to, found out before the work."""
    endings = (".png", ".jpg", ".pdf", ".svg")
    if path.suffix.lower() not in endings:
        raise UserError(f"--out is {str(path)!r}: a name that ends in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise UserError(f"--out is {str(path)!r}: there is no folder {path.parent}")
    return path
