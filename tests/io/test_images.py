"""Every kind of image is read, or named, and what is said to be whole can be read."""

import io
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from texad.errors import ImageError, printable
from texad.io import images as reading


def save(file, pixels):
    Image.fromarray(pixels).save(file)


def line(caught) -> str:
    """The message of an error, which has to be one line."""
    message = str(caught.value)
    assert message and "\n" not in message
    return message


# -- any image, and masks --------------------------------------------------------------------------


def palette(transparency=None):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def to_be_turned(pixels):
    """An image, and the options to save it with an EXIF orientation: turn by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(pixels), {"exif": exif}


def turned(pixels):
    return np.rot90(pixels, -1)


RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
GREY16 = np.array([[0, 257, 25700, 65535]], np.uint16)
IMAGES = {
    "rgb": ("a.png", Image.new("RGB", (2, 1), (1, 2, 3)), [[(1, 2, 3)] * 2]),
    "grey": ("a.png", Image.new("L", (2, 1), 7), [[(7, 7, 7)] * 2]),
    "grey bmp": ("a.bmp", Image.new("L", (2, 1), 7), [[(7, 7, 7)] * 2]),
    "grey jpeg": ("a.jpg", Image.new("L", (2, 1), 128), [[(128, 128, 128)] * 2]),
    "black and white": (
        "a.png",
        Image.fromarray(np.array([[False, True]])),
        [[(0, 0, 0), (255, 255, 255)]],
    ),
    "palette": ("a.png", palette(), [[(10, 20, 30), (200, 100, 50)]]),
    "palette with a transparent index": ("a.png", palette(0), [[(10, 20, 30), (200, 100, 50)]]),
    "palette with transparencies": (
        "a.png",
        palette(b"\x00\x80"),
        [[(10, 20, 30), (200, 100, 50)]],
    ),
    "rgb with alpha": ("a.png", Image.new("RGBA", (2, 1), (9, 8, 7, 0)), [[(9, 8, 7)] * 2]),
    "grey with alpha": ("a.png", Image.new("LA", (2, 1), (9, 128)), [[(9, 9, 9)] * 2]),
    "cmyk": ("a.tif", Image.new("CMYK", (2, 1), (0, 255, 0, 0)), [[(255, 0, 255)] * 2]),
    "16-bit png": ("a.png", Image.fromarray(GREY16), [[(v,) * 3 for v in (0, 1, 100, 255)]]),
    "16-bit tiff": ("a.tif", Image.fromarray(GREY16), [[(v,) * 3 for v in (0, 1, 100, 255)]]),
    "16-bit tiff, big endian": (
        "a.tif",
        Image.fromarray(GREY16.astype(">u2")),
        [[(v,) * 3 for v in (0, 1, 100, 255)]],
    ),
    "32-bit tiff": (
        "a.tif",
        Image.fromarray(GREY16.astype(np.int32)),
        [[(v,) * 3 for v in (0, 1, 100, 255)]],
    ),
    "float tiff": (
        "a.tif",
        Image.fromarray(np.array([[0, 0.2, 1]], np.float32)),
        [[(v,) * 3 for v in (0, 51, 255)]],
    ),
    "rounded, not cut off": (
        "a.png",
        Image.fromarray(np.array([[128, 129]], np.uint16)),
        [[(0,) * 3, (1,) * 3]],
    ),
    "EXIF orientation, png": ("a.png", *to_be_turned(RGB), turned(RGB)),
    "EXIF orientation, rgb tiff": ("a.tif", *to_be_turned(RGB), turned(RGB)),
    "EXIF orientation, grey tiff": (
        "a.tif",
        *to_be_turned(RGB[..., 0]),
        turned(RGB[..., [0, 0, 0]]),
    ),
    "EXIF orientation, 16-bit tiff": (
        "a.tif",
        *to_be_turned(RGB[..., 0].astype(np.uint16) * 257),
        turned(RGB[..., [0, 0, 0]]),
    ),
    "another suffix than its format": (
        "a.jpg",
        Image.new("RGB", (1, 1), (1, 2, 3)),
        {"format": "PNG"},
        [[(1, 2, 3)]],
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", IMAGES)
def test_every_common_kind_of_image_becomes_rgb(tmp_path, case):
    name, image, *options, expected = IMAGES[case]
    image.save(tmp_path / name, **dict(*options))
    read = reading.read_image(tmp_path / name)
    assert read.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(read), np.array(expected, np.uint8))


@pytest.mark.parametrize("pixels", [[[0, 2.0]], [[-0.1, 1]], [[np.nan, 0.5]]])
def test_floats_beyond_0_to_1_are_refused(tmp_path, pixels):
    save(tmp_path / "a.tif", np.array(pixels, np.float32))
    with pytest.raises(ValueError, match="a.tif cannot be read .*grey levels .* expected 0 to 1"):
        reading.read_image(tmp_path / "a.tif")


def test_integers_beyond_16_bits_are_refused(tmp_path):
    save(tmp_path / "a.tif", np.array([[0, 70000]], np.int32))
    with pytest.raises(ValueError, match="70000, expected 0 to 65535"):
        reading.read_image(tmp_path / "a.tif")


def unreadable(file, kind):
    if kind == "missing":
        return
    if kind == "dangling link":
        os.symlink(file.with_name("nowhere.png"), file)
    elif kind == "cut off":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[:2000])
    elif kind == "other format":
        Image.new("RGB", (4, 4)).save(file, format="GIF")
    else:
        file.write_bytes({"empty": b"", "text": b"hello"}[kind])


@pytest.mark.parametrize("read", [reading.read_image, reading.read_mask])
@pytest.mark.parametrize(
    "kind", ["missing", "dangling link", "cut off", "other format", "empty", "text"]
)
def test_an_unreadable_image_is_named(tmp_path, kind, read):
    unreadable(tmp_path / "a.png", kind)
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "a.png")
    message = line(caught)
    assert (
        message.startswith(("image", "mask"))
        and f"{tmp_path / 'a.png'} cannot be read" in message
        and "replace it by a PNG" in message
    )


BLUE = Image.new("RGB", (2, 1))
BLUE.putpixel((1, 0), (0, 0, 1))
MASKS = {
    "0 and 255": ("a.png", Image.fromarray(np.array([[0, 255]], np.uint8)), [[False, True]]),
    "0 and 1": ("a.png", Image.fromarray(np.array([[0, 1]], np.uint8)), [[False, True]]),
    "one bit": ("a.png", Image.fromarray(np.array([[False, True]])), [[False, True]]),
    "16-bit 0 and 1": ("a.png", Image.fromarray(np.array([[0, 1]], np.uint16)), [[False, True]]),
    "float": ("a.tif", Image.fromarray(np.array([[0, 0.001]], np.float32)), [[False, True]]),
    "darkest blue": ("a.png", BLUE, [[False, True]]),
    "opaque black": ("a.png", Image.new("RGBA", (1, 1), (0, 0, 0, 255)), [[False]]),
    "palette": ("a.png", palette(), [[True, True]]),
    "EXIF orientation": ("a.tif", *to_be_turned(RGB[..., 0]), turned(RGB[..., 0] > 0)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", MASKS)
def test_every_pixel_of_a_mask_that_is_not_black_is_defective(tmp_path, case):
    name, image, *options, expected = MASKS[case]
    image.save(tmp_path / name, **dict(*options))
    mask = reading.read_mask(tmp_path / name)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)


# -- plain PNG -------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "name, options",
    [(f"a.{end}", {"quality": q}) for end in ("jpg", "webp") for q in (30, 75, 95)]
    + [("a.tif", {"compression": "jpeg"})],
)
def test_a_lossy_mask_is_cut_at_half(tmp_path, name, options):
    mask = np.zeros((64, 64), np.uint8)
    Image.fromarray(mask).save(tmp_path / name, **options)
    assert not reading.read_mask(tmp_path / name).any()
    mask[21:35, 25:39] = 255
    Image.fromarray(mask).save(tmp_path / name, **options)
    assert (reading.read_mask(tmp_path / name) == (mask > 0)).all()


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jp2", "a.bmp", "a.tif", "a.pgm"])
def test_low_levels_of_a_lossless_mask_count(tmp_path, name):
    mask = np.repeat(np.arange(4, dtype=np.uint8), 4).reshape(4, 4)
    image = Image.fromarray(mask)
    image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    assert (reading.read_mask(tmp_path / name) == (mask > 0)).all()


def test_the_masks_of_a_folder_are_united(tmp_path):
    for i, size in ((0, 4), (1, 4)):
        save(tmp_path / f"{i}.png", np.eye(size, k=i, dtype=np.uint8))
    assert (reading.read_mask(tmp_path) == np.eye(4) + np.eye(4, k=1)).all()
    save(tmp_path / "2.png", np.eye(5, dtype=np.uint8))
    with pytest.raises(ImageError, match="several sizes"):
        reading.read_mask(tmp_path)


def saved(image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", **options)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


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
    "with a name of a chunk in its pixels": saved(
        Image.fromarray(np.frombuffer(b"eXIf" * 75, np.uint8).reshape(10, 10, 3)), compress_level=0
    ),
}


ANIMATED = saved(
    Image.fromarray(PIXELS), save_all=True, append_images=[Image.fromarray(255 - PIXELS)]
)
OTHERS = {
    "16 bits": saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)),
    "one bit": saved(Image.fromarray(PIXELS[..., 0] > 99)),
    "palette": saved(Image.fromarray(PIXELS).quantize(16)),
    "with alpha": saved(Image.fromarray(PIXELS).convert("RGBA")),
    "grey with alpha": saved(Image.fromarray(PIXELS).convert("LA")),
    "transparent colour": saved(Image.fromarray(PIXELS), transparency=(0, 0, 0)),
    "turned": with_chunk(PLAIN["rgb"], b"eXIf", Image.Exif().tobytes()),
    "turned, said after the pixels": with_chunk(
        PLAIN["rgb"], b"eXIf", Image.Exif().tobytes(), late=True
    ),
    "animated": ANIMATED,
    "a JPEG": b"\xff\xd8\xff" + bytes(100),
    "nothing": b"",
    "a header alone": PLAIN["rgb"][:33],
    "its pixels overwritten": PLAIN["rgb"][:-40] + bytes(28) + PLAIN["rgb"][-12:],
}


def looked_at(file, data):
    """What check_image and read_pixels make of a file: the size and the pixels, or None."""
    file.write_bytes(data)
    found = []
    for look in (reading.check_image, reading.read_pixels):
        try:
            found.append(look(file))
        except ImageError:
            found.append(None)
    return found


def test_a_file_that_is_cut_off_anywhere_is_never_half_read(tmp_path):
    whole = PLAIN["grey"]
    for length in range(0, len(whole), 3):
        size, pixels = looked_at(tmp_path / "a.png", whole[:length])
        assert (size is None) == (pixels is None), length
        assert pixels is None or np.array_equal(pixels[..., 0], PIXELS[..., 0]), length


def test_a_changed_byte_never_gives_a_crash_and_hardly_ever_pixels(tmp_path):
    whole, wrong = PLAIN["grey"], 0
    for at in range(0, len(whole), 7):
        changed = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        size, pixels = looked_at(tmp_path / "a.png", changed)
        assert (size is None) == (pixels is None), at
        wrong += size == (37, 51) and not np.array_equal(pixels[..., 0], PIXELS[..., 0])
    assert wrong == 0  # each chunk has a checksum


# -- can it be read? -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*PLAIN, *OTHERS])
def test_an_image_can_be_read_exactly_when_it_is_said_so(tmp_path, case):
    file = tmp_path / "a.png"
    file.write_bytes({**PLAIN, **OTHERS}[case])
    try:
        expected = reading.read_pixels(file).shape[:2]
    except ImageError as error:
        with pytest.raises(ImageError) as caught:
            reading.check_image(file)
        assert caught.value.reason == error.reason
    else:
        assert reading.check_image(file) == expected


def test_plain_files_are_not_decoded_to_see_whether_they_are_whole(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(PLAIN["rgb"])
    monkeypatch.setattr(reading, "read_pixels", None)
    assert reading.check_image(tmp_path / "a.png") == (37, 51)
    for damage in (
        PLAIN["rgb"][:-20],
        PLAIN["rgb"].replace(b"IDAT", b"IDAt"),
        PLAIN["rgb"][:100] + b"x" + PLAIN["rgb"][101:],
    ):
        (tmp_path / "a.png").write_bytes(damage)
        with pytest.raises(TypeError):  # so it is read
            reading.check_image(tmp_path / "a.png")


def test_the_reason_survives_the_way_to_another_process(tmp_path):
    with pytest.raises(ImageError) as caught:
        reading.read_image(tmp_path / "none.png")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.reason) == (str(caught.value), "No such file or directory")
    assert caught.value._render_traceback_() == [f"ImageError: {copy}"]


def test_names_are_shown_on_one_line_and_without_control_sequences():
    assert printable("Fläche 1/a b.png") == "Fläche 1/a b.png"
    assert printable("a\nb\x1b[31m\t\udce9\u202e.png") == "a\\nb\\x1b[31m\\t\\udce9\\u202e.png"
