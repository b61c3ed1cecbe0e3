"""Image files to pixels, held against NumPy; in processes of their own and in this one."""

from __future__ import annotations

import io
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_cnn.data import decode, image_file
from keras_cnn.errors import UserError

RNG = np.random.default_rng(0)
SIZE = 16
PIXELS = RNG.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (SIZE, SIZE, 1), np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(raw: bytes, size: int = SIZE) -> np.ndarray:
    pixels, _ = image_file.decode_image(raw, size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    return pixels


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What is seen of pixels (h, w, 3) with opacity (h, w, 1) on white; floats."""
    share = alpha / 255
    return pixels * share + 255 * (1 - share)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / height, 255 * x / width, 128 + 0 * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_keep_every_pixel(kind, options):
    np.testing.assert_array_equal(decoded(encoded(PIXELS, kind, **options)), PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_near(kind):
    image = smooth(SIZE, SIZE)
    error = decoded(encoded(image, kind, quality=95)).astype(int) - image
    assert np.abs(error).max() < 16


def test_other_formats_are_refused():
    with pytest.raises(Image.UnidentifiedImageError):
        image_file.decode_image(encoded(PIXELS, "GIF"), SIZE)


def test_grey():
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(decoded(encoded(grey)), np.stack([grey] * 3, axis=2))


def test_grey_jpeg():
    grey = smooth(SIZE, SIZE)[..., 0]
    pixels = decoded(encoded(grey, "JPEG", quality=95))
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - grey).max() < 12


def test_black_and_white():
    bits = PIXELS[..., 0] > 127
    expected = np.where(bits, 255, 0)
    np.testing.assert_array_equal(
        decoded(encoded(Image.fromarray(bits))), np.stack([expected] * 3, axis=2)
    )


def palette_image() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """An image of 4 colours, its indices (h, w), and the colours (4, 3)."""
    colours = RNG.integers(0, 256, (4, 3), np.uint8)
    indices = RNG.integers(0, 4, (SIZE, SIZE), np.uint8)
    image = Image.frombytes("P", (SIZE, SIZE), indices.tobytes())
    image.putpalette(colours.tobytes())
    return image, indices, colours


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_palette(kind):
    image, indices, colours = palette_image()
    np.testing.assert_array_equal(decoded(encoded(image, kind)), colours[indices])


def test_palette_with_a_transparent_colour():
    image, indices, colours = palette_image()
    expected = colours[indices]
    expected[indices == 2] = 255
    np.testing.assert_array_equal(decoded(encoded(image, transparency=2)), expected)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_transparency_becomes_white(kind, options):
    raw = encoded(np.concatenate([PIXELS, ALPHA], axis=2), kind, exact=True, **options)
    assert np.abs(decoded(raw) - on_white(PIXELS, ALPHA)).max() <= 1


def test_grey_with_transparency():
    both = np.concatenate([PIXELS[..., :1], ALPHA], axis=2)
    raw = encoded(Image.fromarray(both, "LA"))
    expected = on_white(PIXELS[..., :1], ALPHA)
    assert np.abs(decoded(raw) - expected).max() <= 1


def test_rgb_with_one_transparent_colour():
    image = PIXELS.copy()
    image[3, 5] = image[8, 1] = (1, 2, 3)
    expected = image.copy()
    expected[3, 5] = expected[8, 1] = 255
    raw = encoded(Image.fromarray(image), transparency=(1, 2, 3))
    np.testing.assert_array_equal(decoded(raw), expected)


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def png(pixels: np.ndarray, colour_type: int, transparent: np.ndarray | None = None) -> bytes:
    """A 16-bit PNG, (h, w, channels), which Pillow cannot write in every colour type."""
    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IDAT", zlib.compress(rows))
    if transparent is not None:
        body = chunk(b"tRNS", transparent.astype(">u2").tobytes()) + body
    return SIGNATURE + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2)])
def test_of_16_bits_the_upper_8_are_kept(channels, colour_type):
    pixels = RNG.integers(0, 65536, (SIZE, SIZE, channels), np.uint16)
    expected = np.broadcast_to(pixels >> 8, (SIZE, SIZE, 3))
    np.testing.assert_array_equal(decoded(png(pixels, colour_type)), expected)


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2)])
def test_of_16_bits_one_colour_is_transparent(channels, colour_type):
    pixels = RNG.integers(0, 65536, (SIZE, SIZE, channels), np.uint16)
    pixels[2, 3] = pixels[5, 7]
    expected = np.broadcast_to(pixels >> 8, (SIZE, SIZE, 3)).copy()
    expected[2, 3] = expected[5, 7] = 255
    found = decoded(png(pixels, colour_type, transparent=pixels[2, 3]))
    np.testing.assert_array_equal(found, expected)


def test_16_bits_with_transparency():
    pixels = RNG.integers(0, 65536, (SIZE, SIZE, 4), np.uint16)
    expected = on_white(pixels[..., :3] >> 8, pixels[..., 3:] >> 8)
    assert np.abs(decoded(png(pixels, 6)) - expected).max() <= 1


def test_cmyk_jpeg():
    image = Image.fromarray(smooth(SIZE, SIZE))
    raw = encoded(image.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decoded(raw).astype(int) - np.asarray(image)).max() < 16


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # EXIF 2.3, tag 274: stored to shown
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def tiff_tags(tags: dict[int, int | str]) -> bytes:
    """An EXIF block with one directory: whole numbers in 32 bits, texts beside them."""
    entries, texts = b"", b""
    beside = 8 + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        if isinstance(value, str):
            text = value.encode() + b"\0"
            entries += struct.pack("<HHII", tag, 2, len(text), beside + len(texts))
            texts += text
        else:
            entries += struct.pack("<HHII", tag, 4, 1, value)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 8) + directory + texts


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_exif_orientation(orientation, kind, options):
    exif = Image.Exif()
    exif[274] = orientation
    raw = encoded(PIXELS, kind, exif=exif, **options)
    np.testing.assert_array_equal(decoded(raw), UPRIGHT[orientation](PIXELS))


def test_exif_orientation_of_a_jpeg():
    image = smooth(SIZE, SIZE)
    exif = Image.Exif()
    exif[274] = 6
    error = decoded(encoded(image, "JPEG", quality=95, exif=exif)).astype(int) - np.rot90(image, -1)
    assert np.abs(error).max() < 16


@pytest.mark.parametrize("odd", [{282: "much"}, {296: 70_000}])
def test_odd_tags_beside_the_orientation_do_no_harm(odd):
    """They cannot be written again: a text as resolution, a unit beyond 16 bits."""
    turned, plain = (tiff_tags({274: 6} | tags) for tags in (odd, {}))
    raw = encoded(PIXELS, "PNG", exif=turned)
    assert turned != plain
    np.testing.assert_array_equal(decoded(raw), UPRIGHT[6](PIXELS))


def test_damaged_exif_leaves_the_image_as_it_is():
    raw = encoded(PIXELS, "PNG", exif=b"Exif\0\0not a directory of tags")
    np.testing.assert_array_equal(decoded(raw), PIXELS)


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"tEXt", b"Comment\0" + b"long " * 20_000_000),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"long " * 400_000)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"long " * 400_000)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000))),
    ],
    ids=["text", "packed text", "international text", "colour profile"],
)
@pytest.mark.parametrize("place", [b"IDAT", b"IEND"])
def test_large_metadata_costs_no_pixel(metadata, place):
    before = PNG.index(place) - 4
    raw = PNG[:before] + metadata + PNG[before:]
    np.testing.assert_array_equal(decoded(raw), PIXELS)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    raw = encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(raw), PIXELS)


@pytest.mark.parametrize(("height", "width"), [(16, 31), (40, 16), (16, 16)])
def test_the_centre_square_is_kept(height, width):
    image = RNG.integers(0, 256, (height, width, 3), np.uint8)
    top, left = (height - 16) // 2, (width - 16) // 2
    expected = image[top : top + 16, left : left + 16]
    np.testing.assert_array_equal(decoded(encoded(image)), expected)
    pixels, size = image_file.decode_image(image, 16)
    np.testing.assert_array_equal(pixels, expected)
    assert size == (height, width)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (16, 5), (16, 16), (1, 16)])
def test_padding_keeps_every_pixel_within_a_grey_border(height, width):
    image = RNG.integers(0, 256, (height, width, 3), np.uint8)
    expected = np.full((SIZE, SIZE, 3), 127)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    expected[top : top + height, left : left + width] = image
    for given in (encoded(image), image):
        pixels, size = image_file.decode_image(given, SIZE, "pad")
        np.testing.assert_array_equal(pixels, expected)
        assert size == (height, width)


def test_squashing_scales_each_side_by_itself():
    pixels, size = image_file.decode_image(encoded(smooth(32, 96)), SIZE, "squash")
    assert size == (32, 96)
    slope = 255 * ((np.arange(SIZE) + 0.5) / SIZE - 1 / 64)  # of the old pixels' centres
    inner = slice(2, -2)
    assert np.abs(pixels[inner, 3, 0] - slope[inner]).max() < 3
    assert np.abs(pixels[3, inner, 1] - slope[inner]).max() < 3


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize(("height", "width"), [(640, 900), (1800, 450), (300, 4000)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_is_read_at_a_fraction_looks_the_same_in_each_fit(
    fit, height, width, orientation
):
    image = smooth(height, width)
    image[height // 4 : height // 2, width // 3 : width // 2] = (200, 30, 90)
    exif = Image.Exif()
    exif[274] = orientation
    raw = encoded(image, "JPEG", quality=95, exif=exif)
    found, size = image_file.decode_image(raw, 32, fit)
    # Of an array nothing is read at a fraction.
    expected, _ = image_file.decode_image(
        np.ascontiguousarray(UPRIGHT[orientation](image)), 32, fit
    )
    error = np.abs(found.astype(int) - expected)
    assert size == (height, width)
    assert error.mean() < 1.5 and error.max() < 60  # at an edge


def test_size_before_scaling():
    assert image_file.decode_image(encoded(smooth(50, 70)), 8)[1] == (50, 70)
    assert image_file.decode_image(encoded(smooth(500, 700), "JPEG"), 8)[1] == (500, 700)


def test_scaling_down_averages():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = decoded(encoded(board.astype(np.uint8)), 16)
    assert np.abs(pixels.astype(int) - 127.5).max() < 8  # picking pixels would give 0 or 255


@pytest.mark.parametrize("size", [10, 64])
def test_scaling_keeps_a_slope(size):
    pixels = decoded(encoded(smooth(32, 32)), size)
    middle = (np.arange(size) + 0.5) * 32 / size - 0.5  # of each new pixel, among the old
    inside = slice(size // 8, -size // 8)
    expected = (255 * middle / 32)[inside]
    assert np.abs(pixels[inside, size // 2, 0] - expected).max() < 2


def test_large_jpegs_are_read_at_a_fraction_and_look_the_same():
    image = smooth(640, 640)
    image[200:400, 300:500] = (200, 30, 90)
    raw = encoded(image, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(raw)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    error = np.abs(decoded(raw, 32).astype(int) - np.asarray(whole))
    assert error.mean() < 1.5
    assert error.max() < 40  # at the rectangle's edge


PNG = encoded(PIXELS)
JPEG = encoded(PIXELS, "JPEG")
DAMAGED = {
    "empty.png": (b"", "empty file"),
    "text.png": (b"not an image", "not a PNG, JPEG, WebP, BMP, TIFF or HEIC image"),
    "gif.png": (encoded(PIXELS, "GIF"), "not a PNG, JPEG, WebP, BMP, TIFF or HEIC image"),
    "cut.png": (PNG[: len(PNG) // 2], ""),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "end.jpg": (JPEG[:-40], "truncated"),
    "flipped.png": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], ""),
    "cut.webp": (encoded(PIXELS, "WEBP")[:-40], ""),
    "cut.bmp": (encoded(PIXELS, "BMP")[:-40], "truncated"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_left_out_and_named(tmp_path, name):
    content, reason = DAMAGED[name]
    for path, raw in (("a.png", PNG), (name, content), ("z.jpg", JPEG)):
        (tmp_path / path).write_bytes(raw)
    batch = decode.decode_batch([str(tmp_path / n) for n in ("a.png", name, "z.jpg")], SIZE)
    assert batch.indices.tolist() == [0, 2]
    assert batch.images.shape == (2, SIZE, SIZE, 3)
    assert batch.sizes.tolist() == [[SIZE, SIZE]] * 2
    ((path, said),) = batch.unreadable
    assert path == str(tmp_path / name)
    assert said and reason.lower() in said.lower()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of many black pixels in few bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + 4 * width)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def odd_files(folder: Path) -> dict[str, str]:
    """Files that no one may read to the end, and what is to be said of each."""
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "log.png").symlink_to("/proc/self/mem")  # a regular file of no size
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(40_000_000_000)
    (folder / "bomb.png").write_bytes(huge_png(8200, 8200))
    (folder / "bomb.bmp").write_bytes(
        b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 60_000, 60_000, 1, 24) + bytes(24)
    )
    return {
        "pipe.png": "not a regular file",
        "device.png": "not a regular file",
        "log.png": "empty file",
        "sparse.png": "40,000,000,000 bytes, more than the 500,000,000 that are read",
        "bomb.png": "8200 x 8200 pixels, more than the 67,108,864 pixels that are read",
        "bomb.bmp": "more than the 67,108,864 pixels that are read",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="made of Linux's devices")
def test_files_without_end_and_bombs_are_left_out_before_they_are_read(tmp_path):
    said = odd_files(tmp_path)
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = decode.decode_batch([str(tmp_path / name) for name in said], SIZE)
    assert [(Path(path).name, reason) for path, reason in batch.unreadable] == [*said.items()]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began
    assert grown < 100_000  # kilobytes


def test_a_large_jpeg_is_no_bomb():
    raw = encoded(Image.new("L", (9000, 9000), 77), "JPEG")
    assert image_file.decode_image(raw, 8)[1] == (9000, 9000)


def test_a_batch_of_damaged_files_alone(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    batch = decode.decode_batch([str(tmp_path / "x.png")], SIZE)
    assert (batch.images.shape, batch.indices.shape, batch.sizes.shape) == (
        (0, SIZE, SIZE, 3),
        (0,),
        (0, 2),
    )


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(UserError, match=r"x\.png cannot be read"):
        decode.decode_batch([str(tmp_path / "x.png")], SIZE)


def many_files(folder: Path, count: int = 600) -> list[str]:
    """Images of two sizes, each 37th file damaged."""
    paths = []
    for number in range(count):
        shape = (9, 12, 3) if number % 2 else (8, 8, 3)
        raw = encoded(RNG.integers(0, 256, shape, np.uint8))
        paths.append(str(folder / f"{number:04}.png"))
        Path(paths[-1]).write_bytes(b"no image" if number % 37 == 5 else raw)
    return paths


@pytest.fixture
def workers(monkeypatch):
    """The processes that `batches` starts, two at a time; decoding in this process fails."""
    started = []
    enter = decode._worker.__wrapped__  # the generator function under @contextmanager

    def recorded():
        for worker in enter():
            started.append(worker)
            yield worker

    def refuse(*_):
        raise AssertionError("decoded in this process")

    monkeypatch.setattr(decode, "_worker", contextmanager(recorded))
    monkeypatch.setattr(decode, "cores", lambda: 2)
    monkeypatch.setattr(decode, "decode_batch", refuse)
    return started


def gathered(batches: list[decode.Batch]) -> tuple:
    parts = (np.concatenate([getattr(b, part) for b in batches]).tolist() for part in PARTS)
    return (*parts, [entry for batch in batches for entry in batch.unreadable])


PARTS = ("images", "indices", "sizes")


def test_workers_give_what_this_process_gives(tmp_path, workers):
    paths = many_files(tmp_path)
    found = gathered(list(decode.batches(paths, 8)))
    assert len(workers) == 2
    assert all(worker.poll() is not None for worker in workers)

    expected = [], [], [], []
    for index, path in enumerate(paths):
        if index % 37 == 5:
            expected[3].append((path, "not a PNG, JPEG, WebP, BMP, TIFF or HEIC image"))
            continue
        pixels, size = image_file.decode_image(Path(path).read_bytes(), 8)
        expected[0].append(pixels.tolist())
        expected[1].append(index)
        expected[2].append(list(size))
    assert found == expected


def test_of_images_that_stay_large_fewer_are_worth_processes(tmp_path, workers):
    paths = many_files(tmp_path, 260)
    decoded = sum(len(batch.indices) for batch in decode.batches(paths, 128))
    assert len(workers) == 2 and decoded == 260 - len(range(5, 260, 37))
    with pytest.raises(AssertionError, match="in this process"):
        list(decode.batches(paths, 127))


def test_one_core_decodes_in_this_process(tmp_path, monkeypatch):
    paths = many_files(tmp_path, 510)
    monkeypatch.setattr(decode, "cores", lambda: 1)
    monkeypatch.setattr(decode, "_worker", None)
    batches = list(decode.batches(paths, 8))
    assert sum(len(batch.indices) for batch in batches) == 510 - len(range(5, 510, 37))


def test_arrays_are_decoded_in_this_process_with_their_own_numbers(monkeypatch):
    images = RNG.integers(0, 256, (600, 8, 8, 3), np.uint8)
    monkeypatch.setattr(decode, "_worker", None)
    images_back, kept, sizes, unreadable = gathered(list(decode.batches(images, 8)))
    np.testing.assert_array_equal(images_back, images)
    assert kept == list(range(600))
    assert sizes == [[8, 8]] * 600
    assert unreadable == []


def test_of_large_images_fewer_are_decoded_together():
    images = np.zeros((9, 8, 8, 3), np.uint8)
    sizes = [len(batch.images) for batch in decode.batches(images, 1024)]
    assert sizes == [4, 4, 1] and len(next(decode.batches(images, 8)).images) == 9


def test_workers_wait_for_a_slow_reader(tmp_path, workers, monkeypatch):
    """Else all images would lie in memory where a network takes longer than decoding."""
    asked, ask = [], decode._ask
    monkeypatch.setattr(decode, "_ask", lambda *given: asked.append(given) or ask(*given))
    monkeypatch.setattr(decode, "BATCH", 10)
    batches = decode.batches(many_files(tmp_path), 8)
    next(batches)
    time.sleep(0.2)  # in which they would decode the others
    assert len(asked) <= 5
    batches.close()


def test_workers_end_when_the_reader_stops(tmp_path, workers):
    batches = decode.batches(many_files(tmp_path), 8)
    next(batches)
    batches.close()
    assert len(workers) == 2
    assert all(worker.poll() is not None for worker in workers)


def test_a_missing_file_is_reported_through_a_worker(tmp_path, workers):
    paths = many_files(tmp_path)
    Path(paths[300]).unlink()
    with pytest.raises(UserError, match=r"0300\.png cannot be read"):
        list(decode.batches(paths, 8))
    assert all(worker.poll() is not None for worker in workers)


def test_a_killed_worker_is_one_clear_line(tmp_path, workers, monkeypatch):
    start = decode._worker

    @contextmanager
    def killed():
        with start() as worker:
            worker.kill()
            yield worker

    monkeypatch.setattr(decode, "_worker", killed)
    with pytest.raises(UserError, match="was ended"):
        list(decode.batches(many_files(tmp_path), 8))


def test_workers_find_the_package_from_any_folder(tmp_path, workers, monkeypatch):
    """Files in the user's folder must not stand in for the standard library's modules."""
    paths = many_files(tmp_path)
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')")
    monkeypatch.chdir(tmp_path)
    assert sum(len(batch.indices) for batch in decode.batches(paths, 8)) > 500
