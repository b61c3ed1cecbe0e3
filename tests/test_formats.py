"""TIFF and HEIC files to pixels, held against NumPy."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from test_decode import ALPHA, PIXELS, RNG, SIZE, UPRIGHT, decoded, encoded, on_white, smooth

from keras_cnn import data
from keras_cnn.data import decode, formats, image_file
from keras_cnn.errors import UserError

BITS, COMPRESSION, PHOTOMETRIC, STRIP, ORIENTATION, SAMPLES, ROWS, LENGTH, COLOURS, EXTRA, KIND = (
    *(258, 259, 262, 273, 274, 277, 278, 279, 320, 338, 339),
)
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5  # TIFF 6.0, tag 262


def tiff(
    raw: bytes, bits: int, channels: int, photometric: int, order: str = "<", **more: list[int]
) -> bytes:
    """A TIFF of SIZE x SIZE pixels in one strip, by the letter of the specification."""
    tags = {
        256: [SIZE],
        257: [SIZE],
        BITS: [bits] * channels,
        COMPRESSION: [1],
        PHOTOMETRIC: [photometric],
        STRIP: [8],
        SAMPLES: [channels],
        ROWS: [SIZE],
        LENGTH: [len(raw)],
        **{int(tag.removeprefix("tag")): values for tag, values in more.items()},
    }
    raw += b"\0" * (len(raw) % 2)
    start = 8 + len(raw)
    beside, entries = start + 2 + 12 * len(tags) + 4, b""
    longer = b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", beside + len(longer))
            longer += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 3, len(values)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    count = struct.pack(f"{order}H", len(tags))
    return head + raw + count + entries + bytes(4) + longer


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_keeps_every_pixel(compression):
    np.testing.assert_array_equal(decoded(encoded(PIXELS, "TIFF", compression=compression)), PIXELS)


@pytest.mark.parametrize(
    ("channels", "photometric", "order"),
    [
        (1, WHITE_IS_0, "<"),  # Pillow reads no such file of the other order
        *((1, BLACK_IS_0, order) for order in "<>"),
        *((3, RGB, order) for order in "<>"),
        *((4, CMYK, order) for order in "<>"),
    ],
)
def test_of_a_tiff_with_16_bits_the_upper_8_are_kept(channels, photometric, order):
    pixels = RNG.integers(0, 65536, (SIZE, SIZE, channels), np.uint16)
    upper = (pixels >> 8).astype(int)
    if photometric == WHITE_IS_0:
        upper = 255 - upper
    if photometric == CMYK:
        upper = np.round((255 - upper[..., :3]) * (255 - upper[..., 3:]) / 255)
    found = decoded(tiff(pixels.astype(f"{order}u2").tobytes(), 16, channels, photometric, order))
    error = np.abs(found - np.broadcast_to(upper, (SIZE, SIZE, 3)))
    assert error.max() <= (photometric == CMYK)


def test_of_a_tiff_with_12_bits_the_upper_8_are_kept():
    pixels = RNG.integers(0, 4096, (SIZE, SIZE), np.uint16)
    bits = (pixels.reshape(-1, 1) >> np.arange(11, -1, -1)) & 1
    raw = np.packbits(bits.astype(np.uint8)).tobytes()
    expected = np.stack([pixels >> 4] * 3, axis=2)
    np.testing.assert_array_equal(decoded(tiff(raw, 12, 1, BLACK_IS_0)), expected)


@pytest.mark.parametrize("photometric", [WHITE_IS_0, BLACK_IS_0])
@pytest.mark.parametrize("bits", [1, 8])
def test_grey_of_a_tiff_and_which_end_is_white(photometric, bits):
    pixels = RNG.integers(0, 2**bits, (SIZE, SIZE), np.uint8)
    grey = pixels.astype(int) * (255 if bits == 1 else 1)
    expected = 255 - grey if photometric == WHITE_IS_0 else grey
    raw = (np.packbits(pixels) if bits == 1 else pixels).tobytes()
    found = decoded(tiff(raw, bits, 1, photometric))
    np.testing.assert_array_equal(found, np.stack([expected] * 3, axis=2))


def test_palette_of_a_tiff():
    colours = RNG.integers(0, 256, (256, 3), np.uint16)
    indices = RNG.integers(0, 256, (SIZE, SIZE), np.uint8)
    shown = (colours.T * 257).reshape(-1).tolist()  # the reds of 16 bits, the greens, the blues
    found = decoded(tiff(indices.tobytes(), 8, 1, PALETTE, **{f"tag{COLOURS}": shown}))
    np.testing.assert_array_equal(found, colours[indices])


@pytest.mark.parametrize("is_multiplied", [False, True])
def test_transparency_of_a_tiff_becomes_white(is_multiplied):
    stored = np.round(PIXELS * (ALPHA / 255)) if is_multiplied else PIXELS
    raw = np.concatenate([stored.astype(np.uint8), ALPHA], axis=2).tobytes()
    found = decoded(tiff(raw, 8, 4, RGB, **{f"tag{EXTRA}": [1 if is_multiplied else 2]}))
    assert np.abs(found - on_white(PIXELS, ALPHA)).max() <= 1 + is_multiplied
    both = np.concatenate([PIXELS[..., :1], ALPHA], axis=2)
    found = decoded(encoded(Image.fromarray(both, "LA"), "TIFF"))
    assert np.abs(found - on_white(PIXELS[..., :1], ALPHA)).max() <= 1


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_tiff_is_turned_as_it_says(orientation):
    plain = encoded(PIXELS, "TIFF", tiffinfo={ORIENTATION: orientation})
    np.testing.assert_array_equal(decoded(plain), UPRIGHT[orientation](PIXELS))
    grey = RNG.integers(0, 65536, (SIZE, SIZE), np.uint16)
    deep = tiff(grey.tobytes(), 16, 1, WHITE_IS_0, **{f"tag{ORIENTATION}": [orientation]})
    shown = UPRIGHT[orientation](255 - (grey >> 8))
    np.testing.assert_array_equal(decoded(deep), np.stack([shown] * 3, axis=2))
    wide = encoded(PIXELS[:8], "TIFF", tiffinfo={ORIENTATION: orientation}, compression="tiff_lzw")
    upright = np.ascontiguousarray(UPRIGHT[orientation](PIXELS[:8]))
    np.testing.assert_array_equal(
        image_file.decode_image(wide, SIZE, "pad")[0],
        image_file.decode_image(upright, SIZE, "pad")[0],
    )


def test_the_first_page_of_a_tiff():
    pages = [Image.fromarray(one) for one in (PIXELS, 255 - PIXELS, PIXELS[:4])]
    raw = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert Image.open(io.BytesIO(raw)).n_frames == 3
    np.testing.assert_array_equal(decoded(raw), PIXELS)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_a_tiff_of_measurements_is_left_out(kind):
    raw = encoded(Image.fromarray(RNG.integers(0, 99, (SIZE, SIZE)).astype(kind)), "TIFF")
    with pytest.raises(image_file.Unreadable, match="8 or 16 bits"):
        image_file.decode_image(raw, SIZE)


def heic(pixels: np.ndarray, **options: object) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(pixels)).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def test_heic_is_near_and_turned_as_it_says():
    image = smooth(96, 64)
    assert np.abs(decoded(heic(image), 64).astype(int) - image[16:80]).max() < 6
    for orientation in (3, 6):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        raw = heic(image, exif=exif.tobytes())
        upright = np.ascontiguousarray(UPRIGHT[orientation](image))
        expected, size = image_file.decode_image(upright, 64, "pad")
        found = image_file.decode_image(raw, 64, "pad")
        assert found[1] == size
        assert np.abs(found[0].astype(int) - expected).max() < 10
    clear = heic(np.concatenate([image, np.zeros_like(image[..., :1])], axis=2))
    assert (decoded(clear, 32) > 250).all()


def test_a_heic_file_that_is_cut_is_left_out(tmp_path):
    whole = heic(smooth(64, 64))
    for name, raw in (("cut.heic", whole[:-200]), ("head.heic", whole[:40])):
        (tmp_path / name).write_bytes(raw)
        batch = decode.decode_batch([str(tmp_path / name)], SIZE)
        assert len(batch.unreadable) == 1, name


def test_reading_heic_leaves_pillow_as_it_was():
    raw = heic(smooth(64, 64))
    decoded(raw)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(raw))


def test_heic_needs_its_package_and_is_read_once_that_is_there(tmp_path, monkeypatch, capsys):
    for name, shade in (("a", 40), ("b", 200)):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.full((SIZE, SIZE, 3), shade, np.uint8)
            (tmp_path / split / name / "1.HEIC").write_bytes(heic(pixels))
            Image.fromarray(pixels).save(tmp_path / split / name / "2.tiff")
    with monkeypatch.context() as patch:
        patch.setattr(formats, "reads_heic", lambda: False)
        without = data.load(str(tmp_path), SIZE, ("train",))
        said = capsys.readouterr().err
        assert "train/a/1.HEIC (HEIC is read where pillow-heif is installed: pip install" in said
        assert len(without.splits["train"].labels) == 2
        (tmp_path / "train" / "a" / "2.tiff").unlink()
        with pytest.raises(UserError, match=r"'a' can be decoded.*pip install 'keras-cnn\[heic\]'"):
            data.load(str(tmp_path), SIZE, ("train",))
    assert len(data.load(str(tmp_path), SIZE, ("train",)).splits["train"].labels) == 3
    assert len(data.load(str(tmp_path), SIZE, ("test",)).splits["test"].labels) == 4
