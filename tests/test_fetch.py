"""Fetching, against a server on this machine that can be told to misbehave."""

from __future__ import annotations

import dataclasses
import email.utils
import gzip
import hashlib
import io
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from keras_cnn.downloads import fetch, registry, transfer, unpack
from keras_cnn.downloads.registry import Download
from keras_cnn.errors import UserError
from keras_cnn.pretrained import named

BODY = bytes(byte for i in range(200_000) for byte in (i % 251, i % 241))  # no period below 60,000
NOWHERE = "http://127.0.0.1:1/file"


@dataclass
class Page:
    """What a path gives, and how.

    Attributes:
        body: The whole file.
        cuts: Bytes sent by the first, second, ... answer before the connection is closed.
        ranges: `honoured`, `ignored` (status 200), `refused` (416) or `shifted` (another range).
        states_length: Whether there is a Content-Length.
        seconds: Wait before the answer.
        stalls: Whether a cut keeps the connection open, silent.
        statuses: Of the first answers, which have no body, and their Retry-After.
        drip: Bytes sent at a time, a tenth of a second apart; 0 sends all at once.
    """

    body: bytes
    cuts: list[int] = field(default_factory=list)
    ranges: str = "honoured"
    states_length: bool = True
    seconds: float = 0.0
    stalls: bool = False
    statuses: list[tuple[int, str]] = field(default_factory=list)
    drip: int = 0


class Site(ThreadingHTTPServer):
    """Serves pages and remembers each request as (path, Range header)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Answer(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
            return
        time.sleep(page.seconds)
        if page.statuses:
            status, retry_after = page.statuses.pop(0)
            self.send_response(status)
            self.send_header("Retry-After", retry_after)
            self.end_headers()
            return
        start = 0 if asked is None else int(asked.removeprefix("bytes=").removesuffix("-"))
        if asked and page.ranges == "refused":
            self.send_error(416)
            return
        if asked and page.ranges != "ignored":
            first = start + 1 if page.ranges == "shifted" else start
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {first}-{len(page.body) - 1}/{len(page.body)}"
            )
        else:
            start = 0
            self.send_response(200)
        if page.states_length:
            self.send_header("Content-Length", str(len(page.body) - start))
        self.end_headers()
        rest = page.body[start:]
        cut = page.cuts.pop(0) if page.cuts else len(rest)
        for at in range(0, cut if page.drip else 0, page.drip or 1):
            try:
                self.wfile.write(rest[at : at + page.drip])
            except OSError:  # the other side has gone
                return
            time.sleep(0.1)
        self.wfile.write(b"" if page.drip else rest[:cut])
        if page.stalls and cut < len(rest):
            self.wfile.flush()
            self.server.closing.wait(30)

    def log_message(self, *_: object) -> None:
        """Keeps the tests' output clean."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        yield site
        site.closing.set()
        site.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0.0)
    return tmp_path / "home"


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch):
    def add(*addresses: str, body: bytes = BODY, kind: str = "weights") -> Download:
        download = Download(
            name="tiny",
            title="Tiny",
            addresses=addresses,
            size_bytes=len(body),
            algorithm="sha256",
            digest=hashlib.sha256(body).hexdigest(),
            file_name="tiny.bin",
            kind=kind,
            contents=("train",) if kind == "archive" else (),
        )
        monkeypatch.setitem(registry.DOWNLOADS, "tiny", download)
        return download

    return add


def left(home: Path) -> list[str]:
    """Everything in the home but lock files and bare folders."""
    return sorted(
        str(path.relative_to(home))
        for path in home.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path.suffix != ".lock"
    )


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


GOOD_ARCHIVE = archive((entry("train/cat/1.png"), b"one"), (entry("README"), b"read"))


# --- downloading ------------------------------------------------------------------------------


def is_here(name: str) -> bool:
    return all(download.is_here() for download in registry.find(name))


def test_whole_download(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    assert not is_here("tiny")

    assert fetch.fetch("tiny") == [home / "weights" / "tiny.bin"]

    assert (home / "weights" / "tiny.bin").read_bytes() == BODY
    assert left(home) == ["weights/tiny.bin"]
    assert site.requests == [("/file", None)]
    assert is_here("tiny")


def test_a_cut_connection_goes_on_where_it_stood(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY, cuts=[300_000, 50_000])
    register(site.address("/file"))

    fetch.fetch("tiny")

    assert (home / "weights" / "tiny.bin").read_bytes() == BODY
    assert [asked for _, asked in site.requests] == [None, "bytes=300000-", "bytes=350000-"]


def test_the_next_fetch_goes_on_after_too_many_cuts(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY, cuts=[1000] * transfer.TRIES)
    register(site.address("/file"))
    kept = 1000 * transfer.TRIES

    with pytest.raises(UserError, match=rf"{kept:,} of 400,000 bytes are kept"):
        fetch.fetch("tiny")
    assert (home / "downloads" / "tiny.bin.part").read_bytes() == BODY[:kept]
    assert not is_here("tiny")

    fetch.fetch("tiny")
    assert site.requests[-1] == ("/file", f"bytes={kept}-")
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


def test_a_cut_without_a_stated_length_is_noticed(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY, cuts=[1234], states_length=False)
    register(site.address("/file"))
    fetch.fetch("tiny")
    assert [asked for _, asked in site.requests] == [None, "bytes=1234-"]
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


@pytest.mark.parametrize(
    ("ranges", "requests"), [("ignored", ["bytes=7-"]), ("refused", ["bytes=7-", None])]
)
def test_a_server_without_ranges_sends_all_again(
    ranges: str, requests: list, site: Site, register, home: Path
):
    site.pages["/file"] = Page(BODY, ranges=ranges)
    register(site.address("/file"))
    put(home / "downloads" / "tiny.bin.part", BODY[:7])
    fetch.fetch("tiny")
    assert [asked for _, asked in site.requests] == requests
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


@pytest.mark.parametrize("page", [b"<html>log in first</html>", BODY[::-1]], ids=["short", "whole"])
def test_what_came_stays_until_more_of_it_has_come(page: bytes, site: Site, register, home: Path):
    """A network's own page, of no stated length, in answer to a request for the rest."""
    site.pages["/file"] = Page(page, ranges="ignored", states_length=False)
    register(site.address("/file"))
    part = put(home / "downloads" / "tiny.bin.part", BODY[:300_000])
    with pytest.raises(UserError) as error:
        fetch.fetch("tiny")
    if page != BODY[::-1]:
        assert "300,000 of 400,000 bytes are kept" in str(error.value)
    assert part.read_bytes() == BODY[:300_000]
    assert left(home) == ["downloads/tiny.bin.part"]
    site.pages["/file"] = Page(BODY)
    fetch.fetch("tiny")
    assert site.requests[-1] == ("/file", "bytes=300000-")


def test_a_beginning_of_another_file_is_dropped_for_the_right_one(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    put(home / "downloads" / "tiny.bin.part", b"<html>")
    fetch.fetch("tiny")
    assert site.requests == [("/file", "bytes=6-"), ("/file", None)]
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int, site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY, statuses=[(status, "0"), (status, "")], cuts=[1000])
    register(site.address("/file"))
    fetch.fetch("tiny")
    assert [asked for _, asked in site.requests] == [None, None, None, "bytes=1000-"]


def test_a_server_that_stays_busy(site: Site, register, home: Path, monkeypatch):
    waited = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    answers = [(503, "7"), (503, "1000"), (503, "soon"), (503, ""), (503, "")]
    site.pages["/file"] = Page(BODY, statuses=answers)
    register(site.address("/file"))
    with pytest.raises(UserError, match=r"HTTP 503 Service Unavailable 5 times; nothing came"):
        fetch.fetch("tiny")
    assert [seconds for seconds in waited if seconds] == [7, 60]


def test_a_date_to_come_again():
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < transfer._seconds(in_a_minute) < 61
    assert transfer._seconds("tomorrow") == 0


def test_a_slow_server_is_given_up(site: Site, register, home: Path, monkeypatch):
    monkeypatch.setattr(transfer, "RATE_SECONDS", 0.25)
    monkeypatch.setattr(transfer, "TRIES", 2)
    site.pages["/slow"] = Page(BODY, drip=200)  # 2 kB/s: over three minutes for all
    site.pages["/good"] = Page(BODY)
    register(site.address("/slow"), site.address("/good"))
    began = time.monotonic()
    fetch.fetch("tiny")
    assert time.monotonic() - began < 30
    assert site.requests[-1][0] == "/good" and site.requests[-1][1].startswith("bytes=")


def test_another_range_than_asked_for_is_not_appended(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY, ranges="shifted")
    register(site.address("/file"))
    part = put(home / "downloads" / "tiny.bin.part", BODY[:7])
    with pytest.raises(UserError, match="asked for the bytes from 7, it sends 'bytes 8-"):
        fetch.fetch("tiny")
    assert part.read_bytes() == BODY[:7]


@pytest.mark.parametrize("part", [BODY + b"more", BODY[::-1]], ids=["too long", "wrong"])
def test_a_part_that_cannot_be_right_starts_afresh(part: bytes, site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    put(home / "downloads" / "tiny.bin.part", part)
    fetch.fetch("tiny")
    assert site.requests == [("/file", None)]
    assert left(home) == ["weights/tiny.bin"]
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


def test_a_wrong_hash_leaves_nothing_and_says_all(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY[::-1])
    register(site.address("/file"))

    with pytest.raises(UserError) as error:
        fetch.fetch("tiny")

    message = str(error.value)
    assert site.address("/file") in message
    assert hashlib.sha256(BODY).hexdigest() in message
    assert hashlib.sha256(BODY[::-1]).hexdigest() in message
    assert str(home / "downloads" / "tiny.bin") in message
    assert "\n" not in message
    assert left(home) == []


@pytest.mark.parametrize("states_length", [True, False])
def test_a_file_of_another_size_is_refused(states_length: bool, site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY * 20, states_length=states_length)
    register(site.address("/file"))
    with pytest.raises(UserError, match=r"bytes, expected 400,000"):
        fetch.fetch("tiny")
    assert len(site.requests) == 1
    assert left(home) == []


@pytest.mark.parametrize("first", ["down", "gone", "wrong"])
def test_the_second_mirror_is_used(first: str, site: Site, register, home: Path):
    site.pages["/wrong"] = Page(BODY[::-1])
    site.pages["/good"] = Page(BODY)
    bad = NOWHERE if first == "down" else site.address(f"/{first}")
    register(bad, site.address("/good"))
    fetch.fetch("tiny")
    assert site.requests[-1] == ("/good", None)
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


def test_the_second_mirror_goes_on_where_the_first_stood(site: Site, register, home: Path):
    site.pages["/bad"] = Page(BODY, cuts=[1000] + [0] * (transfer.TRIES - 1))
    site.pages["/good"] = Page(BODY)
    register(site.address("/bad"), site.address("/good"))
    fetch.fetch("tiny")
    assert site.requests[-1] == ("/good", "bytes=1000-")
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


def test_each_address_that_failed_has_its_reason(site: Site, register, home: Path):
    register(site.address("/a"), site.address("/b"), NOWHERE)
    with pytest.raises(UserError) as error:
        fetch.fetch("tiny")
    head, a, b, nowhere, remedy = re.split("; |: (?=http)", str(error.value))
    assert head == "Tiny could not be fetched"
    assert a == f"{site.address('/a')}: HTTP 404 Not Found"
    assert b == f"{site.address('/b')}: HTTP 404 Not Found"
    assert nowhere.startswith(f"{NOWHERE}: ")
    assert remedy.endswith(str(home / "downloads" / "tiny.bin"))


def test_without_a_network_it_says_so_in_one_line(register, home: Path):
    register(NOWHERE, "http://127.0.0.1:1/other")
    with pytest.raises(UserError, match="no connection to") as error:
        fetch.fetch("tiny")
    assert "\n" not in str(error.value)
    assert str(home / "downloads" / "tiny.bin") in str(error.value)
    assert left(home) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    (home / "downloads").mkdir(parents=True)
    (home / "downloads" / "tiny.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="Tiny: No space left on device") as error:
        fetch.fetch("tiny")
    assert "\n" not in str(error.value)


def test_a_home_that_is_a_file_is_one_line(register, home: Path):
    home.write_text("in the way")
    register(NOWHERE)
    with pytest.raises(UserError, match=r"Tiny: .*KERAS_CNN_HOME") as error:
        fetch.fetch("tiny")
    assert "\n" not in str(error.value)


def test_ctrl_c_keeps_what_came(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY, cuts=[123_456], stalls=True)
    download = register(site.address("/file"))
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from keras_cnn.downloads import fetch, registry\n"
        f"registry.DOWNLOADS['tiny'] = registry.{download!r}\n"
        "fetch.fetch('tiny')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    part = home / "downloads" / "tiny.bin.part"
    patience = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < patience
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=20)[1]
    kept = part.stat().st_size
    assert part.read_bytes() == BODY[:kept]

    fetch.fetch("tiny")
    assert site.requests[-1] == ("/file", f"bytes={kept}-")
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


def test_two_fetches_at_once_make_one_download(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY, seconds=0.3)
    register(site.address("/file"))
    threads = [threading.Thread(target=fetch.fetch, args=("tiny",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert site.requests == [("/file", None)]
    assert (home / "weights" / "tiny.bin").read_bytes() == BODY


# --- unpacking --------------------------------------------------------------------------------


def test_an_archive_is_unpacked(site: Site, register, home: Path):
    site.pages["/file"] = Page(GOOD_ARCHIVE)
    register(site.address("/file"), body=GOOD_ARCHIVE, kind="archive")
    assert fetch.fetch("tiny") == [home / "tiny"]
    assert left(home) == ["tiny/README", "tiny/train/cat/1.png"]
    assert (home / "tiny" / "train" / "cat" / "1.png").read_bytes() == b"one"
    assert is_here("tiny")


@pytest.mark.parametrize(
    "bad",
    [
        entry("../evil"),
        entry("train/../../../evil"),
        entry("train/evil", tarfile.SYMTYPE, "/etc/passwd"),
        entry("train/evil", tarfile.SYMTYPE, "../../.."),
        entry("train/evil", tarfile.LNKTYPE, "../../outside"),
        entry("train/evil", tarfile.CHRTYPE),
    ],
    ids=["name", "deep name", "absolute link", "relative link", "hard link", "device"],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(
    bad: tarfile.TarInfo, site: Site, register, home: Path
):
    body = archive((entry("train/cat/1.png"), b"one"), (bad, b""))
    site.pages["/file"] = Page(body)
    register(site.address("/file"), body=body, kind="archive")
    put(home.parent / "outside", b"untouched")

    with pytest.raises(UserError, match="refused") as error:
        fetch.fetch("tiny")

    assert repr(bad.name) in str(error.value)
    assert "\n" not in str(error.value)
    assert left(home) == []
    assert not (home / "tiny").exists()
    assert sorted(path.name for path in home.parent.iterdir()) == ["home", "outside"]
    assert not is_here("tiny")


def test_stopped_while_unpacking_it_unpacks_again_without_a_request(
    site: Site, register, home: Path, monkeypatch: pytest.MonkeyPatch
):
    site.pages["/file"] = Page(GOOD_ARCHIVE)
    register(site.address("/file"), body=GOOD_ARCHIVE, kind="archive")
    script = "import os; print(os.getpid(), flush=True); os.kill(os.getpid(), 9)"
    dead = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    put(home / f".other.{dead.strip()}@{platform.node()}.partial" / "old.png", b"left by a kill")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", stop)
        fetch.fetch("tiny")
    assert left(home) == ["downloads/tiny.bin.part"]

    fetch.fetch("tiny")
    assert left(home) == ["tiny/README", "tiny/train/cat/1.png"]
    assert len(site.requests) == 1


# --- what is there already --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["weights", "archive"])
def test_what_is_there_needs_no_request(kind: str, site: Site, register, home: Path):
    download = register(site.address("/file"), kind=kind)
    if kind == "weights":
        put(home / "weights" / "tiny.bin", BODY)
    else:
        put(home / "tiny" / "train" / "1.png", b"one")
    assert fetch.fetch("tiny") == [download.target]
    assert site.requests == []


def packed(*members: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return buffer.getvalue()


def patched(raw: bytes, at: int, value: int) -> bytes:
    """A zip archive with one byte changed in the headers of its only member."""
    central = raw.index(b"PK\1\2")
    changed = bytearray(raw)
    changed[4 + at] = changed[central + 6 + at] = value
    return bytes(changed)


ZIP = packed((zipfile.ZipInfo("train/1.png"), b"one" * 100))
TAR = gzip.compress(gzip.decompress(GOOD_ARCHIVE), mtime=0)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("tiny.tar.gz", b""),
        ("tiny.tar.gz", b"<html>log in first</html>"),
        ("tiny.tar.gz", ZIP),
        ("tiny.tar.gz", TAR[: len(TAR) // 2]),
        ("tiny.tar.gz", TAR[:30] + bytes([TAR[30] ^ 255]) + TAR[31:]),
        ("tiny.zip", b""),
        ("tiny.zip", TAR),
        ("tiny.zip", ZIP[:-30]),
        ("tiny.zip", patched(ZIP, 2, 1)),  # encrypted
        ("tiny.zip", patched(ZIP, 4, 99)),  # packed in a way that nobody knows
        ("tiny.zip", ZIP[:45] + b"xxxx" + ZIP[49:]),
    ],
    ids=range(11),
)
def test_what_is_no_whole_archive_is_one_line(name: str, raw: bytes, home: Path):
    file = put(home / name, raw)
    with pytest.raises(UserError, match="not a whole archive"):
        unpack.unpack(file, home / "tiny", lambda done: None)
    assert left(home) == [name] and not (home / "tiny").exists()


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_MEMBERS"])
def test_bombs_are_refused(limit: str, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unpack, limit, 1)
    raw = packed((zipfile.ZipInfo("a"), b"one"), (zipfile.ZipInfo("b"), b"two"))
    for name, content in (("tiny.zip", raw), ("tiny.tar.gz", GOOD_ARCHIVE)):
        file = put(home / name, content)
        with pytest.raises(UserError, match="are in it"):
            unpack.unpack(file, home / "tiny", lambda done: None)
        assert not (home / "tiny").exists()


def test_something_else_in_its_place_is_left_alone(site: Site, register, home: Path):
    site.pages["/file"] = Page(GOOD_ARCHIVE)
    register(site.address("/file"), body=GOOD_ARCHIVE, kind="archive")
    put(home / "tiny" / "mine.txt", b"mine")
    with pytest.raises(UserError, match="move or delete it"):
        fetch.fetch("tiny")
    assert left(home) == ["tiny/mine.txt"]
    assert site.requests == []


@pytest.mark.parametrize("kind", ["weights", "archive"])
def test_a_file_downloaded_by_hand_is_used_and_kept(kind: str, site: Site, register, home: Path):
    body = GOOD_ARCHIVE if kind == "archive" else BODY
    download = register(site.address("/file"), body=body, kind=kind)
    put(home / "downloads" / "tiny.bin", body)
    assert fetch.fetch("tiny") == [download.target]
    assert download.is_here()
    assert site.requests == []
    assert (home / "downloads" / "tiny.bin").read_bytes() == body


def test_a_wrong_file_downloaded_by_hand_is_not_used(site: Site, register, home: Path):
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    by_hand = put(home / "downloads" / "tiny.bin", BODY[::-1])
    with pytest.raises(UserError) as error:
        fetch.fetch("tiny")
    for said in (
        str(by_hand),
        site.address("/file"),
        hashlib.sha256(BODY).hexdigest(),
        hashlib.sha256(BODY[::-1]).hexdigest(),
    ):
        assert said in str(error.value)
    assert left(home) == ["downloads/tiny.bin"]
    assert site.requests == []


# --- progress ---------------------------------------------------------------------------------


def test_progress_is_plain_lines_without_a_terminal(
    site: Site, register, capsys: pytest.CaptureFixture
):
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    fetch.fetch("tiny")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # quicker than the seconds between two lines
    assert re.fullmatch(r"downloading Tiny: \d+% of 0\.4 MB, \d+ s left", lines[0])


def test_progress_is_a_bar_on_a_terminal(site: Site, register, monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    fetch.fetch("tiny")
    assert "downloading Tiny" in terminal.getvalue()
    assert "100% of 0.4 MB, 0 s left" in terminal.getvalue()


# --- the registry -----------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'cinic10'"):
        fetch.fetch("cinic-10")


def test_the_deck_is_its_data_and_both_weights(
    site: Site, register, home: Path, monkeypatch: pytest.MonkeyPatch
):
    assert set(registry.BUNDLES["deck"]) == {"cinic10", "convnext_tiny", "resnet18"}
    site.pages["/file"] = Page(BODY)
    register(site.address("/file"))
    monkeypatch.setitem(registry.BUNDLES, "both", ("tiny", "resnet18"))
    put(home / "weights" / "tiny.bin", BODY)
    assert not is_here("both")
    with (home / "weights" / "resnet18-f37072fd.pth").open("wb") as file:
        file.truncate(46_830_571)
    assert is_here("both")
    assert [path.name for path in fetch.fetch("both")] == ["tiny.bin", "resnet18-f37072fd.pth"]


def test_where_things_lie(home: Path):
    assert registry.DOWNLOADS["cinic10"].target == home / "cinic10"
    assert registry.DOWNLOADS["cifar10"].target == home / "cifar10"
    assert not is_here("cinic10")
    for folder in ("train", "valid", "test"):
        assert not is_here("cinic10")
        (home / "cinic10" / folder).mkdir(parents=True)
    assert is_here("cinic10")


def test_every_registered_digest_fits_its_algorithm():
    for download in registry.DOWNLOADS.values():
        assert len(bytes.fromhex(download.digest)) == hashlib.new(download.algorithm).digest_size
        plain = [one for one in download.addresses if not one.startswith("https://")]
        published = ["http://cs231n.stanford.edu/tiny-imagenet-200.zip"]  # there is no other
        assert plain == (published if download.name == "tiny_imagenet" else [])


def test_weights_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert named.weights_file("convnext_atto", "random") is None

    mine = put(tmp_path / "mine.pth", b"abc")
    assert named.weights_file("convnext_atto", str(mine)) == mine
    # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert named.fingerprint(mine) == digest

    with pytest.raises(UserError, match=r"no such file"):
        named.weights_file("convnext_tiny", str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"only for convnext_tiny, efficientnet_lite0, "):
        named.weights_file("convnext_atto", "pretrained")
    with pytest.raises(UserError, match=r"only for convnext_tiny, efficientnet_lite0, "):
        named.weights_file("cinic10", "pretrained")
    with pytest.raises(UserError, match=r"keras_cnn fetch resnet18`, or use --weights=FILE"):
        named.weights_file("resnet18", "pretrained")

    place = home / "weights" / "resnet18-f37072fd.pth"
    put(place, b"cut short")
    with pytest.raises(UserError, match="not on this machine"):
        named.weights_file("resnet18", "pretrained")
    with place.open("wb") as file:
        file.truncate(46_830_571)
    with pytest.raises(
        UserError, match=r"damaged \(sha256 is .*, expected f37072fd.*fetch it again"
    ):
        named.weights_file("resnet18", "pretrained")
    digest = registry.file_hash(place, "sha256")
    fetched = dataclasses.replace(registry.DOWNLOADS["resnet18"], digest=digest)
    monkeypatch.setitem(registry.DOWNLOADS, "resnet18", fetched)
    assert named.weights_file("resnet18", "pretrained") == place


def test_neither_module_imports_a_framework():
    code = (
        "import sys, keras_cnn.downloads.fetch\n"
        "print(sorted({'keras', 'torch', 'numpy', 'tensorflow', 'jax', 'rich'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "[]\n", answer.stderr
