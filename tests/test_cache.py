"""The cache of decoded images: made once, whole or not at all, and true to the files."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_cnn import data
from keras_cnn import files as file_access
from keras_cnn import home as home_module
from keras_cnn.__main__ import main
from keras_cnn.data import cache, decode, image_file
from keras_cnn.data.fit import FITS
from keras_cnn.errors import UserError

SIZE = 8
PER_CLASS = 70  # more than a batch of two classes holds


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "pictures")


def write_folder(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for class_name in ("cat", "dog"):
            at = folder / split / class_name
            at.mkdir(parents=True)
            for number in range(PER_CLASS):
                pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                Image.fromarray(pixels).save(at / f"{number:02}.png")
    return folder


def files(home: Path) -> list[Path]:
    """The decoded splits in the cache; anything but their locks beside them is a failure."""
    found = sorted((home / "decoded").iterdir())
    assert {path.suffix for path in found} <= {".images", ".lock"}
    return [path for path in found if path.suffix == ".images"]


def same(one: data.Dataset, other: data.Dataset) -> bool:
    return one.fingerprint == other.fingerprint and all(
        np.array_equal(one.splits[split].images, other.splits[split].images)
        and np.array_equal(one.splits[split].labels, other.splits[split].labels)
        for split in one.splits
    )


def test_decoded_once(home, folder, monkeypatch):
    first = data.load(str(folder), SIZE)
    written = [path.stat().st_mtime_ns for path in files(home)]
    assert len(written) == 2

    def refuse(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "batches", refuse)
    assert same(data.load(str(folder), SIZE), first)
    assert data.fingerprint(str(folder), SIZE) == first.fingerprint
    assert [path.stat().st_mtime_ns for path in files(home)] == written


def test_cached_pixels_are_those_of_the_files(home, folder):
    data.load(str(folder), SIZE)
    dataset = data.load(str(folder), SIZE)
    for split in ("train", "test"):
        paths = sorted((folder / split).glob("*/*.png"))
        expected = np.stack([np.asarray(Image.open(path)) for path in paths])
        np.testing.assert_array_equal(dataset.splits[split].images, expected)
        assert dataset.splits[split].labels.tolist() == [0] * PER_CLASS + [1] * PER_CLASS


def test_images_are_mapped_and_writing_them_leaves_the_file_alone(home, folder):
    images = data.load(str(folder), SIZE).splits["train"].images
    base = images
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert isinstance(base, mmap.mmap)
    before = [path.read_bytes() for path in files(home)]
    assert images.flags.writeable
    images[:] = 0
    assert [path.read_bytes() for path in files(home)] == before
    assert data.load(str(folder), SIZE).splits["train"].images.any()


def test_each_size_has_its_own_file(home, folder):
    small, large = (data.load(str(folder), size) for size in (SIZE, 2 * SIZE))
    assert len(files(home)) == 4
    assert large.splits["train"].images.shape == (2 * PER_CLASS, 2 * SIZE, 2 * SIZE, 3)
    assert small.fingerprint != large.fingerprint


def test_each_fit_has_its_own_file(home, folder):
    wide = np.random.default_rng(1).integers(0, 256, (SIZE, 2 * SIZE, 3), np.uint8)
    Image.fromarray(wide).save(folder / "test" / "dog" / "69.png")
    loaded = [data.load(str(folder), SIZE, ("test",), fit) for fit in FITS]
    assert len(files(home)) == len({one.fingerprint for one in loaded}) == 3
    for fit, one in zip(FITS, loaded, strict=True):
        images = one.splits["test"].images
        np.testing.assert_array_equal(images[-1], image_file.decode_image(wide, SIZE, fit)[0])
        np.testing.assert_array_equal(images[:-1], loaded[0].splits["test"].images[:-1])
        assert same(data.load(str(folder), SIZE, ("test",), fit), one)
    with pytest.raises(UserError, match="no fit 'padd': did you mean 'pad'"):
        data.load(str(folder), SIZE, fit="padd")


def first_batch_then(end) -> None:
    """Makes decoding end after one batch in the way given."""
    whole = decode.batches

    def cut(*given, **named):
        yield next(whole(*given, **named))
        end()

    decode.batches = cut


def test_an_error_while_decoding_leaves_nothing_behind(home, folder, monkeypatch):
    def fail():
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(decode, "batches", decode.batches)  # put back afterwards
        first_batch_then(fail)
        with pytest.raises(ZeroDivisionError):
            data.load(str(folder), SIZE)
    assert files(home) == []
    assert len(data.load(str(folder), SIZE).splits["train"].labels) == 2 * PER_CLASS


LOAD = """
import os, sys, time
sys.path.insert(0, {tests!r})
import test_cache
from keras_cnn import data
from keras_cnn import files as file_access
from keras_cnn import home as home_module
from keras_cnn.data import decode
{patch}
print(data.fingerprint({folder!r}, test_cache.SIZE, ("train",)), flush=True)
"""


def child(folder: Path, patch: str) -> subprocess.Popen:
    code = LOAD.format(tests=str(Path(__file__).parent), patch=patch, folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_process_killed_while_decoding_does_no_harm(home, folder):
    kill = "test_cache.first_batch_then(lambda: os.kill(os.getpid(), 9))"
    assert child(folder, kill).wait() == -9
    assert not list((home / "decoded").glob("*.images"))
    dataset = data.load(str(folder), SIZE, ("train",))
    assert len(dataset.splits["train"].labels) == 2 * PER_CLASS
    assert len(files(home)) == 1


def test_of_two_processes_that_ask_together_one_decodes(home, folder, tmp_path):
    wait = """
whole = decode.batches
def slow(*given, **named):
    print("decodes", flush=True)
    with open({there!r} + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.replace({there!r} + ".new", {there!r})
    deadline = time.monotonic() + 20
    while not os.path.exists({go!r}) and time.monotonic() < deadline:
        time.sleep(0.02)
    yield from whole(*given, **named)
decode.batches = slow
""".format(there=str(tmp_path / "there"), go=str(tmp_path / "go"))
    both = [child(folder, wait) for _ in range(2)]
    # The one that comes second says that it waits; only then the first goes on.
    while not (tmp_path / "there").exists():
        assert all(process.poll() is None for process in both)
        time.sleep(0.02)
    decodes = int((tmp_path / "there").read_text())
    waits = next(process for process in both if process.pid != decodes)
    assert "waiting for another process" in waits.stderr.readline()
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=30)[0].split() for process in both]
    assert sorted(len(words) for words in said) == [1, 2]  # one said `decodes`
    assert said[0][-1] == said[1][-1]  # the fingerprints


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def overwrite(path: Path) -> None:
    path.write_bytes(b"no images" * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(bit: int):
    def flipped(path: Path) -> None:
        content = bytearray(path.read_bytes())
        at = bit % (8 * len(content))
        content[at // 8] ^= 1 << (at % 8)
        path.write_bytes(content)

    return flipped


DAMAGES = (cut, overwrite, empty, *map(flip, (3, 700, 5_000, 100_000, -1, -300, -40_000)))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(home, folder, damage, capsys):
    first = data.load(str(folder), SIZE)
    damaged = files(home)[1]
    contents = first.splits["train"].images.copy(), first.splits["test"].images.copy()
    del first.splits["train"], first.splits["test"]  # maps of files that are about to shrink
    cache._intact.cache_clear()  # as in another process
    damage(damaged)
    capsys.readouterr()
    again = data.load(str(folder), SIZE)
    assert f"{damaged} is damaged" in capsys.readouterr().err
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.splits["train"].images, contents[0])
    np.testing.assert_array_equal(again.splits["test"].images, contents[1])
    data.load(str(folder), SIZE)
    assert "damaged" not in capsys.readouterr().err


def test_fingerprint_stays_with_copies_and_touched_files(home, folder, tmp_path):
    before = data.fingerprint(str(folder), SIZE)
    shutil.copytree(folder, tmp_path / "elsewhere" / "other name")
    assert data.fingerprint(str(tmp_path / "elsewhere" / "other name"), SIZE) == before
    for path in folder.glob("*/*/*.png"):
        os.utime(path, (1, 1))
    assert data.fingerprint(str(folder), SIZE) == before
    assert len(files(home)) == 6  # it was decoded again, not taken on trust


def test_fingerprint_sees_one_pixel(home, folder):
    before = data.load(str(folder), SIZE)
    path = folder / "test" / "dog" / "69.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[-1, -1, -1] ^= 1
    Image.fromarray(pixels).save(path)
    after = data.load(str(folder), SIZE)
    assert after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(after.splits["test"].images[-1], pixels)


def test_fingerprint_sees_class_names_and_labels(home, folder):
    prints = {data.fingerprint(str(folder), SIZE)}
    for split in ("train", "test"):
        (folder / split / "dog").rename(folder / split / "emu")
    prints.add(data.fingerprint(str(folder), SIZE))  # the same pixels and labels
    (folder / "train" / "emu" / "00.png").rename(folder / "train" / "cat" / "99.png")
    prints.add(data.fingerprint(str(folder), SIZE))  # the same pixels in the same order
    prints.add(data.fingerprint(str(folder), SIZE, ("train",)))
    prints.add(data.fingerprint(str(folder), SIZE, ("test",)))
    assert len(prints) == 5


def test_damaged_images_are_left_out_and_named_once(home, folder, capsys):
    before = data.load(str(folder), SIZE).splits["train"].images.copy()
    (folder / "train" / "cat" / "03.png").write_bytes(b"")
    (folder / "train" / "dog" / "00.png").write_bytes(b"text")
    capsys.readouterr()
    after = data.load(str(folder), SIZE).splits["train"]
    said = capsys.readouterr().err
    assert "2 unreadable files: train/cat/03.png (empty file), train/dog/00.png (not a" in said
    np.testing.assert_array_equal(after.images, np.delete(before, [3, PER_CLASS], axis=0))
    assert np.bincount(after.labels).tolist() == [PER_CLASS - 1] * 2
    cached = data.load(str(folder), SIZE).splits["train"]
    np.testing.assert_array_equal(cached.images, after.images)
    assert capsys.readouterr().err == ""


def test_a_class_of_damaged_images_alone_is_refused(home, folder):
    for path in (folder / "train" / "dog").iterdir():
        path.write_bytes(b"text")
    with pytest.raises(UserError, match=r"no image of class 'dog' can be decoded; 70 .*00\.png"):
        data.load(str(folder), SIZE)
    assert files(home) == []


def test_a_home_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written .*KERAS_CNN_HOME"):
        data.load(str(folder), SIZE)


@pytest.mark.parametrize("limit", [1000, 27_000, 30_300])
def test_a_full_disk_is_one_line_and_nothing_is_left(home, folder, limit):
    code = (
        "import resource, sys; from keras_cnn.__main__ import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"sys.exit(main(['data', {str(folder)!r}, '--image-size=8', '--out={home.parent}/x.png']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert (
        ended.stderr.count("\n") == 1
        and "cannot be written or read (File too large)" in ended.stderr
    )
    assert files(home) == []


def test_an_image_size_of_nothing(folder):
    with pytest.raises(UserError, match="image_size is 0"):
        data.load(str(folder), 0)


def test_the_cache_is_shown_and_cleared_but_for_what_cannot_be_made_anew(home, folder, capsys):
    assert main(["cache"]) == 0
    assert "decoded images" in (said := capsys.readouterr().out) and "0 files" in said
    first = data.load(str(folder), SIZE)
    caches, others = ("features/a.npy", "tuned/a.npy"), ("weights/a.pth", "cinic10/train/a.png")
    for name in (*caches, "checkpoints/a.h5", *others):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_bytes(bytes(2_000_000))
    assert main(["cache"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == str(home)
    assert [line.split()[-4:-1] for line in said[1:]] == [
        ["2", "files", "0.1"], *[["1", "files", "2.0"]] * 3, ["2", "files", "4.0"],
    ]  # fmt: skip
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out.startswith("removed: 4 files, 4.1 MB\n")
    assert files(home) == [] and not list((home / "features").iterdir())
    assert sum(path.is_file() for path in home.rglob("*")) == 3
    assert same(data.load(str(folder), SIZE), first)


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /net rw - nfs4 server:/home rw
24 23 0:22 / /net/my\\040disk rw master:2 - ext4 /dev/sdb1 rw
25 22 0:23 / /remote rw - fuse.sshfs somebody@somewhere: rw
"""


@pytest.mark.parametrize(
    ("path", "shared"),
    [("/home/me", False), ("/net/me", True), ("/net/my disk/me", False), ("/remote/x", True)],
)
def test_a_disk_shared_by_network_is_told(tmp_path, monkeypatch, path, shared):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(file_access, "MOUNTS", tmp_path / "mountinfo")
    assert file_access.is_shared(Path(path)) == shared


def test_decoded_images_stay_on_the_node_where_home_is_shared(home, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(home_module, "is_shared", lambda path: True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    data.load(str(folder), SIZE)
    (scratch,) = (tmp_path / "node").iterdir()
    assert scratch.stat().st_mode & 0o777 == 0o700 and list(scratch.glob("decoded/*.images"))
    assert not (home / "decoded").exists()
    monkeypatch.setenv("KERAS_CNN_SCRATCH", str(tmp_path / "asked"))
    data.load(str(folder), SIZE)
    assert list((tmp_path / "asked" / "decoded").glob("*.images"))
