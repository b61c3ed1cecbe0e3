"""What can be downloaded: names, addresses, sizes, hashes, and where it all lies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from keras_cnn.errors import UserError, nearest
from keras_cnn.home import home


@dataclass(frozen=True)
class Download:
    """One file on the web, and what becomes of it on this machine.

    Attributes:
        name: Its name for `fetch`; for weights, the model's name.
        title: What people call it.
        addresses: Where it can be had, tried in order.
        size_bytes: Its exact size.
        algorithm: The hash its publisher states: `md5` or `sha256`.
        digest: That hash, in hexadecimal.
        file_name: Its name on this machine.
        kind: An `archive` is unpacked into a folder named like the download; a `weights` file is
            kept as it is.
        contents: What an unpacked archive holds at least, relative to its folder.
    """

    name: str
    title: str
    addresses: tuple[str, ...]
    size_bytes: int
    algorithm: Literal["md5", "sha256"]
    digest: str
    file_name: str
    kind: Literal["archive", "weights"]
    contents: tuple[str, ...] = ()

    @property
    def target(self) -> Path:
        """The folder it is unpacked into, or the weights file."""
        return home() / self.name if self.kind == "archive" else home() / "weights" / self.file_name

    @property
    def by_hand(self) -> Path:
        """Where `fetch` looks for a file downloaded by hand."""
        return home() / "downloads" / self.file_name

    def is_here(self) -> bool:
        """Whether it is in its place; looks at names and sizes, `fetch` has checked the rest."""
        if self.kind == "weights":
            return self.target.is_file() and self.target.stat().st_size == self.size_bytes
        return self.target.is_dir() and all((self.target / name).exists() for name in self.contents)

    def difference(self, path: Path) -> str | None:
        """How a file differs from the one on the web; None when it is the same."""
        if (size := path.stat().st_size) != self.size_bytes:
            return f"{size:,} bytes, expected {self.size_bytes:,}"
        if (digest := file_hash(path, self.algorithm)) != self.digest:
            return f"{self.algorithm} is {digest}, expected {self.digest}"
        return None


DOWNLOADS = {
    download.name: download
    for download in (
        Download(
            name="cinic10",
            title="CINIC-10",
            addresses=(
                "https://datashare.ed.ac.uk/server/api/core/bitstreams/"
                "e8e186cc-2688-48f1-aa5a-3fda1a43f8b6/content",
                "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
            ),
            size_bytes=687_544_992,
            algorithm="md5",
            digest="6ee4d0c996905fe93221de577967a372",
            file_name="CINIC-10.tar.gz",
            kind="archive",
            contents=("train", "valid", "test"),
        ),
        Download(
            name="cifar10",
            title="CIFAR-10",
            addresses=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            size_bytes=170_498_071,
            algorithm="sha256",
            digest="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            file_name="cifar-10-python.tar.gz",
            kind="archive",
            contents=("cifar-10-batches-py",),
        ),
        Download(
            name="tiny_imagenet",
            title="Tiny ImageNet",
            addresses=(
                "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",  # as it is published
            ),
            size_bytes=248_100_043,
            # Its authors state none: this is what loaders of it agree on, avalanche's for one.
            algorithm="md5",
            digest="90528d7ca1a48142e341f4ef8d21d0de",
            file_name="tiny-imagenet-200.zip",
            kind="archive",
            contents=("tiny-imagenet-200",),
        ),
        Download(
            name="convnext_tiny",
            title="ConvNeXt-Tiny weights (ImageNet-12k, then ImageNet-1k)",
            addresses=(
                "https://huggingface.co/timm/convnext_tiny.in12k_ft_in1k/resolve/"
                "aa096f03029c7f0ec052013f64c819b34f8ad790/model.safetensors",
            ),
            size_bytes=114_374_272,
            algorithm="sha256",
            digest="a1aefa409b513cf209b085424eb3efffe4e4a9f511491bc2c12ea35209e6bb95",
            file_name="convnext_tiny.in12k_ft_in1k.safetensors",
            kind="weights",
        ),
        Download(
            name="resnet18",
            title="ResNet-18 weights (ImageNet-1k)",
            addresses=("https://download.pytorch.org/models/resnet18-f37072fd.pth",),
            size_bytes=46_830_571,
            algorithm="sha256",
            digest="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
            file_name="resnet18-f37072fd.pth",
            kind="weights",
        ),
    )
}

# Smallest first: when the largest fails, the others are there.
BUNDLES = {"deck": ("resnet18", "convnext_tiny", "cinic10")}


def find(name: str) -> list[Download]:
    """What a name stands for: one download, or those of a bundle.

    Raises:
        UserError: There is no such name.
    """
    if name in BUNDLES:
        return [DOWNLOADS[member] for member in BUNDLES[name]]
    if name not in DOWNLOADS:
        raise UserError(f"cannot fetch {name!r}: {nearest(name, [*DOWNLOADS, *BUNDLES])}")
    return [DOWNLOADS[name]]


def file_hash(path: Path, algorithm: str) -> str:
    """A file's hash in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        # Told that it guards nothing secret, a FIPS machine allows MD5 too.
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()
