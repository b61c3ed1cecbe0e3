"""Weights by name: those that come with the package, those that were fetched, or a local file."""

from __future__ import annotations

from pathlib import Path

from keras_cnn import files
from keras_cnn.downloads import packaged, registry
from keras_cnn.errors import UserError, nearest

# The SHA-256 of each backbone that comes with the package as <name>.weights.h5, here.
BUNDLED: dict[str, str] = {
    "convnext_atto": "f2043a07646ce256c73dff7738e7ed5c1481a68376a34b44c08d131dba62451f",
    "resnet18": "5b5d8d7b01345341e5c3fd2270f765fa4cb744e428d0fbba79ffeaa0d9f40c40",
}
BUNDLED_FOLDER = Path(__file__).parent
NAMED_WEIGHTS = ("bundled", "pretrained", "random")


def weights_title(weights: str) -> str:
    """What people call the weights a run starts from."""
    return f"{weights} weights" if weights in NAMED_WEIGHTS else Path(weights).name


def weights_file(model: str, weights: str) -> Path | None:
    """The file a model's weights are read from.

    Args:
        model: The backbone's name.
        weights: `random`, `pretrained` (as fetched, or as another package has it), `bundled` (as
            this package has it), or the path of a local file.

    Returns:
        The file, or None for `random`.

    Raises:
        UserError: There are no such weights, or they are not on this machine.
    """
    if weights == "random":
        return None
    if weights == "pretrained":
        return _pretrained_file(model)
    if weights == "bundled":
        return _bundled_file(model)
    path = Path(weights).expanduser()
    files.require(path, f"; {nearest(weights, NAMED_WEIGHTS)}, or give the path of a file")
    return path


def _pretrained_file(model: str) -> Path:
    if model in packaged.PACKAGED:
        return packaged.weights_file(model)
    fetched = {name for name, item in registry.DOWNLOADS.items() if item.kind == "weights"}
    if model not in fetched:
        pretrained = sorted(fetched | packaged.PACKAGED.keys())
        raise UserError(
            f"there are no pretrained weights for {model}, only for {', '.join(pretrained)}: "
            f"--set model NAME takes one of these, --weights=bundled is there for "
            f"{' and '.join(sorted(BUNDLED))}, --weights=random for all, or give a file"
        )
    download = registry.DOWNLOADS[model]
    if not download.is_here():
        raise UserError(
            f"the pretrained weights of {model} are not on this machine: run "
            f"`python -m keras_cnn fetch {model}`, or use --weights=FILE, or what needs nothing "
            f"fetched: --weights=bundled with --set model {' or '.join(sorted(BUNDLED))}"
        )
    if problem := download.difference(download.target):
        raise UserError(f"{download.target} is damaged ({problem}): delete it, and fetch it again")
    return download.target


def _bundled_file(model: str) -> Path:
    if model not in BUNDLED:
        raise UserError(
            f"no weights of {model} come with keras_cnn, only of {', '.join(sorted(BUNDLED))}: "
            "--set model NAME takes one of these, or use --weights=random or --weights=FILE"
        )
    path = BUNDLED_FOLDER / f"{model}.weights.h5"
    if not path.is_file() or fingerprint(path) != BUNDLED[model]:
        fault = "is damaged" if path.is_file() else "is missing"
        raise UserError(f"{path} {fault}: install keras_cnn again, or use --weights=random")
    return path


def fingerprint(path: Path) -> str:
    """The SHA-256 of a weights file, in hexadecimal."""
    return registry.file_hash(path, "sha256")
