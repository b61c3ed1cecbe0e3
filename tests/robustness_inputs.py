"""Hostile inputs for `robustness.py`: files that are not what they seem, and arguments."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

NAMES = [
    "",
    "-",
    "--",
    "?",
    "..",
    "/dev/null",
    "~",
    "~nobody/x",
    "a\nb",
    "\x1b[31mred",
    "\u202egpj.x",
    "%s",
    "*",
    "a" * 5000,
]
NAMES += ["caf\u00e9", "cafe\u0301", "\udcff.x", "http://localhost/x", "file:///etc/passwd", "con"]
NUMBERS = [
    "0",
    "-1",
    "1.5",
    "nan",
    "inf",
    "1e999",
    "9" * 3000,
    "\u0661\u0662",
    "0x10",
    "1_000",
    " 7",
    "",
]
ROUNDS = "--rounds=\u0661\u0662"  # twelve
FIELDS = ["epochs", "learning_rate", "batch_size", "shots", "data", "weights", "model", "augment"]
FIELDS += ["optimizer", "unfrozen_stages", "image_size", "dropout", "schedule", "seed", "nothing"]
VALUES = ["null", "[1, 2]", "{a: 1}", "true", "'", "&a *a", "!!python/name:os.system", "1" * 4000]
VALUES += ["-1", "nan", ".inf", "1e400", "\x00", "\x1b[2J", "../../x", "0", "999999999999"]


class Runs:
    """A pickle that leaves a sign that it ran."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self._canary}'",)


def cases(folder: Path, canary: Path) -> list[list[str]]:
    """Command lines, none of which should succeed in more than telling what it is not given.

    Args:
        folder: With a sound `model.keras` and `images`; files are made in it.
        canary: A file that is not to appear.
    """
    zoo = folder / "zoo"
    zoo.mkdir()
    texts, archives = _texts(zoo, canary), _archives(zoo, folder / "model.keras", canary)
    weights, images = _weights(zoo, canary), _images(zoo)
    folders, odd = _folders(zoo, folder / "images"), _odd_files(zoo)
    model, image = folder / "model.keras", folder / "images" / "train" / "class0" / "0.png"
    every = [*texts, *archives, *weights, *images, *folders, *odd]
    recipe = ["recipe", "fewshot_convnext", "--rows=4", "--variant=corrected", "--dry-run"]
    given: list[list[str]] = [[], ["--"], ["-x"], ["nothing"], ["recipe"], ["RECIPE", "all"]]
    given += [["recipe", str(path), "--dry-run"] for path in [*texts, *odd, *archives[:3]]]
    given += [["settings", str(path)] for path in [*texts, *odd]]
    given += [[*recipe, f"--data={path}"] for path in [*folders, *odd, *texts[:3]]]
    train = [*recipe[:-1], "--data=digits", "--epochs=1"]
    given += [[*train, f"--weights={path}"] for path in [*weights, *archives, *odd, *texts[:3]]]
    given += [["predict", str(path), str(image)] for path in [*archives, *odd, *weights[:3]]]
    given += [["predict", str(model), str(path)] for path in [*images, *folders, *odd, *texts[:3]]]
    given += [["evaluate", str(path), "--data=digits"] for path in [*archives, *odd]]
    given += [["evaluate", str(model), f"--data={path}"] for path in [*folders, *odd]]
    given += [["summary", str(path)] for path in [*archives, *odd]]
    given += [["backbone", str(path), "x.weights.h5"] for path in [*archives, *odd]]
    given += [["data", str(path)] for path in [*folders, *odd, *images[:4], *texts[:2]]]
    given += [["report", f"--out={path}", "--to=page"] for path in [*folders, *odd]]
    for name in NAMES:
        given += [[command, name] for command in ("recipe", "settings", "data", "summary", "bench")]
        given += [["predict", str(model), name], ["fetch", name or "nothing"]]
        given += [[*recipe, f"--{flag}={name}"] for flag in ("data", "rows", "profile", "backend")]
    for number in NUMBERS:
        given += [[*recipe, f"--{flag}={number}"] for flag in ("repeats", "jobs", "image-size")]
        given += [["summary", "baseline", f"--{f}={number}"] for f in ("classes", "batch-size")]
        given += [["bench", "loader", f"--rounds={number}"], ["data", f"synthetic:{number}"]]
        given += [["predict", str(model), str(image), f"--top={number}"]]
    given += [[*recipe, "--set", field, value] for field in FIELDS for value in VALUES]
    # Those are right, and would measure for hours.
    given = [case for case in given if case not in (["bench", "--"], ["bench", "loader", ROUNDS])]
    given += [["cache", "--clear=maybe"], ["cache", "x"], ["backbone", str(model), "x.txt"]]
    assert len(every) > 60
    return [case for case in given if not any("\x00" in argument for argument in case)]


def _write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _texts(zoo: Path, canary: Path) -> list[Path]:
    """Recipe files."""
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    ran = f"!!python/object/apply:os.system ['touch {canary}']"
    start = "title: x\nsettings: {data: digits}\n"
    contents = {
        "self": "&a [*a]\n",
        "itself": "title: &t {x: *t}\nrows: []\n",
        "deep": "[" * 20_000,
        "deep_map": "".join(" " * n + "a:\n" for n in range(3000)),
        "bomb": bomb,
        "tag": f"title: {ran}\nrows: [{{row: 1}}]\n",
        "whole": f"{ran}\n",
        "list": "- 1\n- 2\n",
        "null": "",
        "number": "9" * 5000,
        "control": "title: a\x07b\nrows: []\n",
        "duplicate": "title: a\ntitle: b\n",
        "date": "title: 2020-01-01\nrows: [{row: 2020-99-99}]\n",
        "nan": f"{start}rows: [{{row: 1, learning_rate: .nan}}]\n",
        "rows": f"{start}rows: [{', '.join(['{row: 1}'] * 5)}]\n",
        "grid": f"{start}grid: {{epochs: [{', '.join(map(str, range(3000)))}], seed: [1, 2, 3]}}\n",
        "method": f"{start}rows: [{{row: 1, method: os.system}}]\n",
        "escape": 'title: "\\e[2J\\a"\nrows: [{row: "../../x"}]\n',
        "tab": "title:\tx\n\trows: []\n",
        "utf16": "\ufeff" + start,
    }
    made = [_write(zoo / f"{name}.yaml", content) for name, content in contents.items()]
    made.append(_write(zoo / "bytes.yaml", bytes(range(256)) * 20))
    return [*made, _write(zoo / "large.yaml", b"# x\n" * 2_000_000)]


def _archives(zoo: Path, model: Path, canary: Path) -> list[Path]:
    """Saved models."""
    with zipfile.ZipFile(model) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    card = next((name for name in members if name.endswith(".json") and "card" in name), "")

    def archive_of(name: str, changed: dict[str, bytes | None], method: int = 8) -> Path:
        with zipfile.ZipFile(zoo / f"{name}.keras", "w", method) as archive:
            for member, content in (members | changed).items():
                if content is not None:
                    archive.writestr(member, content)
        return zoo / f"{name}.keras"

    function = {"class_name": "function", "config": "system", "module": "os"}
    layer = {"module": "keras.layers", "class_name": "Lambda", "registered_name": None}
    layer["config"] = {
        "name": "x",
        "function": function,
        "arguments": {"command": f"touch {canary}"},
    }
    lambdas = json.loads(json.dumps(config))
    lambdas["config"]["layers"].insert(1, layer)
    os_system = json.loads(json.dumps(config)) | {"module": "os", "class_name": "system"}
    broken = [
        archive_of("no_config", {"config.json": None}),
        archive_of("no_weights", {"model.weights.h5": None}),
        archive_of("list", {"config.json": b"[1, 2]"}),
        archive_of("deep", {"config.json": b"[" * 100_000}),
        archive_of("junk", {"config.json": b"\xff\xfe"}),
        archive_of("lambda", {"config.json": json.dumps(lambdas).encode()}),
        archive_of("system", {"config.json": json.dumps(os_system).encode()}),
        archive_of("weights", {"model.weights.h5": b"no weights"}),
        archive_of("bomb", {"config.json": b" " * 600_000_000}),
        archive_of("zipslip", {"../../slipped": b"x"}),
        archive_of("metadata", {"metadata.json": b"{}"}),
    ]
    cards = [b"[]", b"1", b'"x"', b"null", b'{"class_names": 3}', b'{"class_names": ["a"]}']
    cards += [b'{"image_size": "x"}', b'{"class_names": ["\\u001b[31m", "b", "c"]}', b"{" * 9999]
    for number, content in enumerate(cards if card else []):
        broken.append(archive_of(f"card{number}", {card: content}))
    for name, hostile in _hostile_h5().items():
        broken.append(archive_of(f"h5_{name}", {"model.weights.h5": hostile}))
    content = model.read_bytes()
    broken += [_write(zoo / f"cut{n}.keras", content[: len(content) * n // 10]) for n in (1, 5, 9)]
    flagged = bytearray(content)
    for entry in re.finditer(b"PK\x01\x02", content):  # of the directory at the end
        flagged[entry.start() + 8] |= 1
    broken.append(_write(zoo / "encrypted.keras", bytes(flagged)))
    return [*broken, _write(zoo / "empty.keras", b""), _write(zoo / "text.keras", "no model")]


def _hostile_h5() -> dict[str, bytes]:
    """HDF5 files that point elsewhere, claim more than they hold, or hold other objects."""

    def made(fill) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            fill(file)
        return buffer.getvalue()

    def external(file: h5py.File) -> None:
        file.create_dataset("a", (4,), "u1", external=[("/etc/passwd", 0, 4)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset("a", layout)

    def link(file: h5py.File) -> None:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")

    def circle(file: h5py.File) -> None:
        file["layers"] = h5py.SoftLink("/layers")

    def huge(file: h5py.File) -> None:
        file.create_dataset("layers/dense/vars/0", (1 << 40,), "f4", chunks=(1 << 20,))

    def strings(file: h5py.File) -> None:
        file["layers/dense/vars/0"] = "text"

    fills = (external, virtual, link, circle, huge, strings)
    return {fill.__name__: made(fill) for fill in fills} | {"empty": made(lambda file: None)}


def _weights(zoo: Path, canary: Path) -> list[Path]:
    """Weights files."""
    made = [_write(zoo / f"{name}.weights.h5", h5) for name, h5 in _hostile_h5().items()]
    ran = pickle.dumps({"weight": Runs(canary)})
    made += [_write(zoo / f"pickle{end}", ran) for end in (".pth", ".pt", ".bin", ".weights.h5")]
    with zipfile.ZipFile(zoo / "zipped.pth", "w") as archive:
        archive.writestr("archive/data.pkl", ran)
        archive.writestr("archive/version", "3")
    headers = [
        struct.pack("<Q", 1 << 60),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 9) + b"[" * 9,
    ]
    entry = b'{"a": {"dtype": "F32", "shape": [99999999999], "data_offsets": [0, 4]}}'
    headers.append(struct.pack("<Q", len(entry)) + entry)
    made += [_write(zoo / f"{n}.safetensors", header) for n, header in enumerate(headers)]
    return [
        *made,
        zoo / "zipped.pth",
        _write(zoo / "empty.pth", b""),
        _write(zoo / "x.weights", "x"),
    ]


def _png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _images(zoo: Path) -> list[Path]:
    """Image files."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 9, 9)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    contents = {
        "bomb.png": _png(60_000, 60_000, b"\0" * 1_000_000),
        "claims.png": _png(2**31 - 1, 2**31 - 1, b""),
        "zero.png": _png(0, 0, b""),
        "short.png": _png(32, 32, b"\0" * 10),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "text.jpg": b"no image",
        "empty.jpg": b"",
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
        "script.png": b"%!PS\n(x) run",
        "random.webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(range(200)),
        "random.bmp": b"BM" + b"\xff" * 100,
        "page.gif": b"GIF89a" + b"\xff" * 20,
    }
    return [_write(zoo / name, content) for name, content in contents.items()]


def _folders(zoo: Path, sound: Path) -> list[Path]:
    """Folders of images, and of results."""
    made = [zoo / name for name in ("nothing", "flat", "hostile", "loop", "one", "results", "many")]
    for path in made:
        path.mkdir()
    image = next(sound.rglob("*.png"))
    shutil.copy(image, zoo / "flat" / "a.png")
    for name in ("$x^2$", "=1+1", "\x1b[31m", "a\nb", "-rf", "<script>", "\udcff"):
        for split in ("train", "test"):
            place = zoo / "hostile" / split / name
            place.mkdir(parents=True)
            shutil.copy(image, place / "1.png")
    (zoo / "loop" / "a").mkdir()
    (zoo / "loop" / "a" / "again").symlink_to(zoo / "loop")
    (zoo / "loop" / "a" / "self.png").symlink_to("self.png")
    os.mkfifo(zoo / "loop" / "a" / "pipe.png")
    for split in ("train", "test"):
        (zoo / "one" / split / "only").mkdir(parents=True)
        shutil.copy(image, zoo / "one" / split / "only" / "1.png")
    broken = zoo / "results" / "overfitting" / "1-corrected-0-0123456789"
    broken.mkdir(parents=True)
    for name in ("run.json", "environment.json", "metrics.json"):
        _write(broken / name, "[" * 5000)
    _write(zoo / "results" / "overfitting" / ".figures.json", '["/etc/passwd", "../../x"]')
    for number in range(300):
        (zoo / "many" / "train" / f"class{number}").mkdir(parents=True)
    return made


def _odd_files(zoo: Path) -> list[Path]:
    """What is no regular file, or not there."""
    os.mkfifo(zoo / "pipe.keras")
    (zoo / "device.keras").symlink_to("/dev/zero")
    (zoo / "circle.keras").symlink_to("circle.keras")
    (zoo / "folder.keras").mkdir()
    np.save(zoo / "array.npy", np.zeros(3))
    names = ["pipe.keras", "device.keras", "circle.keras", "folder.keras", "array.npy"]
    return [*(zoo / name for name in names), zoo / "missing.keras", Path("/proc/self/mem")]
