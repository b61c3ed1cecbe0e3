from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import pytest

from keras_cnn import files
from keras_cnn.errors import UserError, printable


def test_what_killed_processes_left_is_removed(tmp_path):
    write = (
        "import os, sys; from pathlib import Path; from keras_cnn import files\n"
        "with files.replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); print(partial.name, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", write, tmp_path / "large.bin"]
    left = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    elsewhere = left.replace("@", "@not-")  # of a machine that shares the folder
    (tmp_path / elsewhere).touch()
    (tmp_path / ".mine.partial").touch()
    with files.replacing(tmp_path / "a") as mine, files.replacing(tmp_path / "b") as other:
        assert not (tmp_path / left).exists()
        mine.write_text("whole")
        other.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", elsewhere, ".mine.partial"}


def test_temporary_folders_of_killed_processes_go(tmp_path, monkeypatch):
    make = "from keras_cnn import files; import os; f = files.temporary_folder(); print(f.name)"
    for end, left in (("", 0), ("; import sys; sys.stdout.flush(); os.kill(os.getpid(), 9)", 1)):
        variables = {**os.environ, "TMPDIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", make + end], env=variables, capture_output=True)
        assert len(list(tmp_path.iterdir())) == left
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with files.temporary_folder() as mine, files.temporary_folder() as other:
        assert {str(path) for path in tmp_path.iterdir()} == {mine, other}
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has locks of its own")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_not_waited_for(
    number, tmp_path, monkeypatch, capsys
):
    import fcntl

    def missing(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    (tmp_path / "a.lock").touch()  # left behind
    for _ in range(2):
        with files.locked(tmp_path / "a.lock", say="waiting"):
            pass
    assert capsys.readouterr().err.splitlines() == [
        f"keras_cnn: {tmp_path}: no locks there: run one command at a time"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_full_disk_is_one_line_of_the_systems_words(tmp_path):
    fill = (
        "import h5py, numpy, resource, sys\n"
        "from keras_cnn.errors import system_words\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))\n"
        "try:\n"
        "    with h5py.File(sys.argv[1], 'w') as file: file['x'] = numpy.zeros(99_999)\n"
        "except OSError as error: print(system_words(error))\n"
        "try: open(sys.argv[1], 'wb').write(bytes(99_999))\n"
        "except OSError as error: print(system_words(error))\n"
    )
    command = [sys.executable, "-c", fill, tmp_path / "full.h5"]
    said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    assert said == [f"{tmp_path / 'full.h5'}: File too large", "File too large"]


def write_array(path):
    np.save(path, np.arange(9))


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["values"] = np.arange(9)


def write_zip(path):
    np.savez(path, values=np.arange(9))


def read_hdf5(path):
    with h5py.File(path, "r") as file:
        return file["values"][:]


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("a.npy", write_array, np.load),
        ("a.npy", write_array, lambda path: np.load(path, mmap_mode="r")),
        ("a.h5", write_hdf5, read_hdf5),
        ("a.npz", write_zip, lambda path: np.load(path)["values"]),
    ],
)
def test_a_sealed_file_reads_as_before_and_any_flipped_bit_shows(tmp_path, name, write, read):
    path = tmp_path / name
    write(path)
    assert not files.intact(path)
    files.seal(path)
    assert files.intact(path)
    assert np.array_equal(read(path), np.arange(9))
    content = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(content) * 8, 50):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        assert not files.intact(path)
    path.write_bytes(content[:-1])
    assert not files.intact(path)
    assert not files.intact(tmp_path / "none")
    assert not files.intact(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 猫 😀", "naïve 猫 😀"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("left\u202egnp.exe", r"left\u202egnp.exe"),
        ("caf\udce9", r"caf\udce9"),
        ("one\u2028two", r"one\u2028two"),
    ],
)
def test_no_text_ends_its_line_or_steers_a_terminal(text, shown):
    assert printable(text) == shown
    assert str(UserError(f"{text}: wrong")) == f"{shown}: wrong"
