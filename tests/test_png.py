"""The fast way to read a PNG gives what Pillow gives, or leaves the file to Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from texad import png

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


def saved(image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", **options)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunk(data: bytes, name: bytes, content: bytes, late: bool = False) -> bytes:
    """A file with one more chunk, before its pixels or after them."""
    at = data.index(b"IEND" if late else b"IDAT") - 4
    return data[:at] + chunk(name, content) + data[at:]


def gamma(data: bytes) -> bytes:
    return with_chunk(data, b"gAMA", struct.pack(">I", 100000))


PLAIN = {
    "rgb": saved(Image.fromarray(PIXELS)),
    "rgb, one pixel": saved(Image.fromarray(PIXELS[:1, :1])),
    "rgb, not compressed": saved(Image.fromarray(PIXELS), compress_level=0),
    "grey": saved(Image.fromarray(PIXELS[..., 0])),
    "with a gamma": gamma(saved(Image.fromarray(PIXELS))),
    "grey with a gamma": gamma(saved(Image.fromarray(PIXELS[..., 0]))),
    "with a text": saved(Image.fromarray(PIXELS), pnginfo=PngImagePlugin.PngInfo()),
    "with bytes after the end": saved(Image.fromarray(PIXELS)) + b"more",
    "with a name of a chunk in its pixels": saved(Image.fromarray(np.frombuffer(b"eXIf" * 75, np.uint8).reshape(10, 10, 3)), compress_level=0),
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_files_have_the_pixels_that_pillow_reads(case):
    expected = np.asarray(Image.open(io.BytesIO(PLAIN[case])).convert("RGB"))
    read = png.decode(PLAIN[case])
    assert read.dtype == np.uint8 and read.flags.writeable
    np.testing.assert_array_equal(read, expected)


ANIMATED = saved(Image.fromarray(PIXELS), save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
OTHERS = {
    "16 bits": saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)),
    "one bit": saved(Image.fromarray(PIXELS[..., 0] > 99)),
    "palette": saved(Image.fromarray(PIXELS).quantize(16)),
    "with alpha": saved(Image.fromarray(PIXELS).convert("RGBA")),
    "grey with alpha": saved(Image.fromarray(PIXELS).convert("LA")),
    "transparent colour": saved(Image.fromarray(PIXELS), transparency=(0, 0, 0)),
    "turned": with_chunk(PLAIN["rgb"], b"eXIf", Image.Exif().tobytes()),
    "turned, said after the pixels": with_chunk(PLAIN["rgb"], b"eXIf", Image.Exif().tobytes(), late=True),
    "animated": ANIMATED,
    "a JPEG": b"\xff\xd8\xff" + bytes(100),
    "nothing": b"",
    "a header alone": PLAIN["rgb"][:33],
    "its pixels overwritten": PLAIN["rgb"][:-40] + bytes(28) + PLAIN["rgb"][-12:],
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_left_to_pillow(case):
    assert png.decode(OTHERS[case]) is None


def test_a_file_that_is_cut_off_anywhere_is_never_half_read():
    whole = PLAIN["grey"]
    for length in range(len(whole)):
        pixels = png.decode(whole[:length])
        assert pixels is None or np.array_equal(pixels[..., 0], PIXELS[..., 0]), length


def test_a_changed_byte_never_gives_a_crash_and_hardly_ever_pixels():
    whole, wrong = PLAIN["grey"], 0
    for at in range(0, len(whole), 7):
        pixels = png.decode(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        wrong += pixels is not None and pixels.shape[:2] == (37, 51) and not np.array_equal(pixels[..., 0], PIXELS[..., 0])
    assert wrong == 0  # each chunk has a checksum


def test_an_image_beyond_pillows_limit_is_left_to_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 37 * 51 - 1)
    assert png.decode(PLAIN["rgb"]) is None
