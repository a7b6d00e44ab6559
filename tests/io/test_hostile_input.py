"""What people point this at: damaged files, odd names, folders laid out wrongly, wrong parameters.

Each table has a row a case: what it is in plain words, how it is made, and the error it must end
with (its words name the file or parameter and the way out) or the result. Every row goes through
the package's functions; where it makes sense, through the command line, too. No row needs the
network.
"""

import json
import os
import shutil
import socket
import struct
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, texad, write_category
from PIL import Image
from torch import nn

from benchmarks import stages
from texad.__main__ import main
from texad.data import datasets, screening
from texad.errors import DataError, ImageError
from texad.evaluation.metrics import image_auroc
from texad.evaluation.pixel_metrics import pixel_metrics
from texad.io import images as reading
from texad.io.json_files import read_json, write_json
from texad.model import autoencoder, codebook, extraction, preprocessing
from texad.model.preprocessing import Sight
from texad.model.threshold import conformal_threshold, p_values, sigma_threshold
from texad.runs import parameters
from texad.runs.run_folder import Run

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    connect = socket.socket.connect

    def only_here(own, address):
        if own.family != socket.AF_UNIX:
            raise AssertionError(f"a connection to {address}")
        return connect(own, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


def one_line(error: BaseException | str, *words: str) -> str:
    """The message of an error: one line without control sequences, in which these words stand."""
    message = str(error)
    assert message and message.isprintable(), repr(message)
    assert all(word in message for word in words), message
    return message


# -- images ----------------------------------------------------------------------------------------


def save(file: Path, pixels: np.ndarray, **options) -> None:
    Image.fromarray(pixels).save(file, **options)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8-bit grey whose parts, each with the right checksum, may be anything."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in (header, *chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int, bits: int, pixels: bytes) -> bytes:
    """A TIFF of grey levels of any number of bits."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 122, 277: 1, 278: height}
    tags |= {279: len(pixels)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + pixels


def animated(file: Path) -> None:
    Image.fromarray(PIXELS).save(file, save_all=True, append_images=[Image.fromarray(255 - PIXELS)])


def palette(file: Path) -> None:
    image = Image.fromarray(PIXELS[..., 0]).quantize(8)
    image.save(file, transparency=0)


def turned(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(file, PIXELS, exif=exif)


def cut(file: Path, part: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])


def cut_png(file: Path) -> None:
    save(file, PIXELS)
    cut(file, 0.5)


def cut_jpeg(file: Path) -> None:
    save(file, np.repeat(np.repeat(PIXELS, 20, axis=0), 20, axis=1))
    cut(file, 0.5)


def cut_tiff(file: Path) -> None:
    save(file, np.repeat(PIXELS, 20, axis=0), compression="tiff_lzw")
    cut(file, 0.5)


def flipped_byte(file: Path) -> None:
    save(file, PIXELS)
    data = bytearray(file.read_bytes())
    data[data.index(b"IDAT") + 30] ^= 0xFF
    file.write_bytes(data)


def float_nan(file: Path) -> None:
    save(file, np.full((4, 4), np.nan, np.float32))


def circle(file: Path) -> None:
    file.symlink_to(file.name)


def link_outside(file: Path) -> None:
    elsewhere = file.parents[4] / "elsewhere.png"
    save(elsewhere, PIXELS)
    file.symlink_to(elsewhere)


def secret(file: Path) -> None:
    elsewhere = file.parents[4] / "passwords.txt"
    elsewhere.write_text("root:hunter2")
    file.symlink_to(elsewhere)


def empty_pixels(file: Path) -> None:
    file.write_bytes(png(16, 12, (b"IDAT", zlib.compress(b""))))


READ = [  # what it is; its name; how it is made; the pixels that are read of it, or their shape
    ("PNG", "a.png", lambda file: save(file, PIXELS), PIXELS),
    (
        "a JPEG that calls itself PNG",
        "a.png",
        lambda file: save(file, np.full((12, 16, 3), 99, np.uint8), format="JPEG"),
        np.full((12, 16, 3), 99),
    ),
    (
        "a PNG that calls itself JPEG",
        "a.jpg",
        lambda file: save(file, PIXELS, format="PNG"),
        PIXELS,
    ),
    ("WebP", "a.webp", lambda file: save(file, PIXELS, lossless=True), PIXELS),
    ("JPEG 2000", "a.jp2", lambda file: save(file, PIXELS), PIXELS),
    ("PPM", "a.ppm", lambda file: save(file, PIXELS), PIXELS),
    (
        "PGM",
        "a.pgm",
        lambda file: save(file, PIXELS[..., 0]),
        np.repeat(PIXELS[..., :1], 3, axis=2),
    ),
    ("an ending in capitals", "A.PNG", lambda file: save(file, PIXELS), PIXELS),
    ("one pixel", "a.png", lambda file: save(file, PIXELS[:1, :1]), PIXELS[:1, :1]),
    (
        "20,000 × 3 pixels",
        "a.png",
        lambda file: save(file, np.zeros((3, 20000), np.uint8)),
        np.zeros((3, 20000, 3)),
    ),
    (
        "3 × 20,000 pixels",
        "a.jpg",
        lambda file: save(file, np.zeros((20000, 3), np.uint8)),
        np.zeros((20000, 3, 3)),
    ),
    (
        "16 bits",
        "a.png",
        lambda file: save(file, PIXELS[..., 0].astype(np.uint16) * 257),
        np.repeat(PIXELS[..., :1], 3, axis=2),
    ),
    (
        "floats from 0 to 1",
        "a.tif",
        lambda file: save(file, PIXELS[..., 0].astype(np.float32) / 255),
        np.repeat(PIXELS[..., :1], 3, axis=2),
    ),
    (
        "CMYK",
        "a.tif",
        lambda file: Image.new("CMYK", (16, 12), (0, 255, 255, 0)).save(file),
        np.full((12, 16, 3), (255, 0, 0)),
    ),
    (
        "CMYK JPEG",
        "a.jpg",
        lambda file: Image.new("CMYK", (16, 12)).save(file),
        np.full((12, 16, 3), 255),
    ),
    ("palette with transparency", "a.png", palette, (12, 16, 3)),
    (
        "RGB with transparency",
        "a.png",
        lambda file: save(file, np.dstack([PIXELS, PIXELS[..., 0]])),
        PIXELS,
    ),
    ("animated PNG", "a.png", animated, PIXELS),
    ("TIFF of two pages", "a.tif", animated, PIXELS),
    ("turned by EXIF", "a.png", turned, np.rot90(PIXELS, -1)),
    ("a link out of the folder", "a.png", link_outside, PIXELS),
    (
        "a TIFF of 12 bits, packed",  # 0x800 and 0xFFF
        "a.tif",
        lambda file: file.write_bytes(tiff(2, 1, 12, b"\x80\x0f\xff")),
        np.array([[[128] * 3, [255] * 3]]),
    ),
    (
        "a TIFF of 16 bits that is all black",
        "a.tif",
        lambda file: save(file, np.zeros((12, 16), np.uint16)),
        np.zeros((12, 16, 3)),
    ),
    (
        "a PGM that says that 1000 is white",
        "a.pgm",
        lambda file: file.write_bytes(b"P5\n2 1\n1000\n" + struct.pack(">2H", 500, 1000)),
        np.array([[[128] * 3, [255] * 3]]),
    ),
]

BROKEN = [  # what it is; its name; how it is made; what the reason says
    ("zero bytes", "a.png", lambda file: file.touch(), "the file is empty"),
    ("zero bytes called JPEG", "a.jpg", lambda file: file.touch(), "the file is empty"),
    ("a PNG cut off", "a.png", cut_png, "truncated"),
    (
        "a TIFF of 10 bits, packed, which Pillow does not know",
        "a.tif",
        lambda file: file.write_bytes(tiff(4, 1, 10, bytes(5))),
        "not one of the formats below",
    ),
    (
        "levels of 32 bits beyond 16",
        "a.tif",
        lambda file: save(file, np.full((4, 4), 70000, np.int32)),
        "grey levels 70000 to 70000, expected 0 to 65535",
    ),
    ("a JPEG cut off", "a.jpg", cut_jpeg, "truncated"),
    ("a TIFF cut off", "a.tif", cut_tiff, ""),
    ("a PNG with a flipped byte", "a.png", flipped_byte, ""),
    ("a PNG without pixels", "a.png", lambda file: file.write_bytes(png(16, 12)), ""),
    (
        "a PNG of no width",
        "a.png",
        lambda file: file.write_bytes(png(0, 12, (b"IDAT", zlib.compress(b"")))),
        "",
    ),
    (
        "text with an image's name",
        "a.png",
        lambda file: file.write_text("hello"),
        "not one of the formats below",
    ),
    (
        "a web page with an image's name",
        "a.jpg",
        lambda file: file.write_text("<html>404 Not Found</html>"),
        "not one of the formats below",
    ),
    (
        "a GIF that calls itself PNG",
        "a.png",
        lambda file: Image.new("RGB", (4, 4)).save(file, format="GIF"),
        "not one of the formats below",
    ),
    ("NaN for pixels", "a.tif", float_nan, "expected 0 to 1"),
    (
        "floats beyond 1",
        "a.tif",
        lambda file: save(file, np.full((4, 4), 7, np.float32)),
        "expected 0 to 1",
    ),
    (
        "a decompression bomb",
        "a.png",
        lambda file: file.write_bytes(png(60000, 60000, (b"IDAT", zlib.compress(bytes(10**6))))),
        "exceeds limit",
    ),
    (
        "a text of 100 MB, packed, in a PNG",
        "a.png",
        lambda file: file.write_bytes(png(4, 4, (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))))),
        "",
    ),
    ("a link to nothing", "a.png", lambda file: file.symlink_to("nowhere.png"), "No such file"),
    ("a link in a circle", "a.png", circle, "symbolic links"),
    ("a link to something secret", "a.png", secret, "not one of the formats below"),
    (
        "a link to an endless device",
        "a.png",
        lambda file: file.symlink_to("/dev/zero"),
        "no file, but a folder, a pipe or a device",
    ),
    ("a pipe", "a.png", lambda file: os.mkfifo(file), "no file, but a folder, a pipe or a device"),
]


def many(tmp_path: Path, n_train: int = 21) -> Path:
    """A category of enough images that one may be lost, and none of another kind."""
    return write_category(
        tmp_path / "mine" / "steel", n_train=n_train, n_good=21, n_defective=21, size=34
    )


def checked(root: Path, limit: float = 0.05) -> datasets.Category:
    return screening.readable(datasets.load_category(root.parent, root.name), limit, progress=False)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "make", "expected"), [case[1:] for case in READ], ids=[case[0] for case in READ]
)
def test_images_of_any_common_kind_are_read(tmp_path, name, make, expected):
    root = write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=0, size=34)
    make(root / "train" / "good" / name)
    category = checked(root, 0.0)
    assert category.unreadable == () and len(category.train) == 2
    (path,) = [sample.path for sample in category.train if sample.path.name == name]
    pixels = reading.read_pixels(path)
    assert reading.check_image(path) == pixels.shape[:2]
    if isinstance(expected, tuple):
        assert pixels.shape == expected
    else:
        np.testing.assert_allclose(pixels, expected, atol=1)
    images = preprocessing.load_images([path], Sight(32))
    assert images.shape == (1, 3, 32, 32) and 0 <= images.min() <= images.max() <= 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about a damaged TIFF
@pytest.mark.parametrize(
    ("name", "make", "reason"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_an_image_that_cannot_be_read_is_left_out_of_many_and_an_error_alone(
    tmp_path, name, make, reason
):
    root = many(tmp_path)
    file = root / "train" / "good" / name
    make(file)
    a_mask_may_have_any_level = "expected 0 to" in reason
    for read in (
        reading.read_image,
        reading.check_image,
        *([] if a_mask_may_have_any_level else [reading.read_mask]),
    ):
        with pytest.raises(ImageError) as caught:
            read(file)
        one_line(
            caught.value,
            f"{'mask' if read is reading.read_mask else 'image'} {file} cannot be read (",
            reason,
            "replace it by a PNG, JPEG, BMP or TIFF of 8 bits, or remove it",
        )
        assert "hunter2" not in str(caught.value)
    category = checked(root)
    assert [each.sample.path for each in category.unreadable] == [file] and len(
        category.train
    ) == 21
    run = Run(root.parent, "steel", tmp_path / "runs")
    run.write_images(category, 0.2)
    (listed,) = run.read()["data"]["unreadable"]
    assert listed["path"] == f"train/good/{name}" and reason in listed["reason"]
    assert (
        f"train/good/{name}" not in run.read_table("images.csv")["path"].tolist()
        and len(run.read_table("images.csv")) == 63
    )
    for other in (root / "train" / "good").glob("0*.png"):
        other.unlink()
    with pytest.raises(DataError) as caught:
        checked(root, 1.0)
    one_line(
        caught.value,
        f"{root / 'train' / 'good'}: 1 of 1 images cannot be read",
        "a folder must not lose all",
        name,
        reason,
        "replace or remove",
    )


@contextmanager
def another_user():
    """Files that their owner alone may read can be read by root, so be someone else for a while."""
    if ROOT:
        os.seteuid(65534)
    try:
        yield
    finally:
        if ROOT:
            os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that every user may enter: those of pytest are for their owner alone."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no users that a file can be kept from")
    folder = Path(tempfile.mkdtemp(prefix="texad-"))
    folder.chmod(0o755)
    yield folder
    for sub in folder.rglob("*"):
        sub.chmod(0o700)
    shutil.rmtree(folder)


def test_a_file_that_may_not_be_read_is_left_out(open_folder):
    root = many(open_folder)
    (root / "train" / "good" / "003.png").chmod(0)
    with another_user():
        category = checked(root)
        assert len(datasets.fingerprint(category)) == 64
    assert [(each.sample.path.name, each.reason) for each in category.unreadable] == [
        ("003.png", "Permission denied")
    ]


@pytest.mark.parametrize("folder", ["train/good", "test", "test/spot"])
def test_a_folder_that_may_not_be_read_is_named(open_folder, folder):
    root = many(open_folder)
    (root / folder).chmod(0o100)
    with another_user(), pytest.raises(DataError) as caught:
        checked(root)
    one_line(
        caught.value,
        f"{root / folder} may not be read (Permission denied): ask its owner, or copy the data",
    )


# -- how many may be lost --------------------------------------------------------------------------


def damage(root: Path, folder: str, n: int) -> None:
    for file in sorted((root / folder).iterdir())[:n]:
        file.write_bytes(b"")


# Damaged in train/good, in test/good, in test/spot, of 21 each; limit; the folder that is an error.
LIMITS = [
    ("none", 0, 0, 0, 0.0, None),
    ("one of each", 1, 1, 1, 0.05, None),
    ("one and no more is allowed", 1, 0, 0, 1 / 21, None),
    ("one, and none is allowed", 0, 1, 0, 0.0, "test/good"),
    ("two of 21", 0, 0, 2, 0.05, "test/spot"),
    ("two of 21 in the first folder", 2, 0, 2, 0.05, "train/good"),
    ("all but one, and all is allowed", 0, 0, 20, 1.0, None),
    ("all, and all is allowed", 0, 0, 21, 1.0, "test/spot"),
    ("half", 11, 0, 0, 0.5, "train/good"),
]


@pytest.mark.parametrize(
    ("train", "good", "spot", "limit", "error"),
    [case[1:] for case in LIMITS],
    ids=[case[0] for case in LIMITS],
)
def test_how_many_images_of_a_folder_may_be_lost(tmp_path, train, good, spot, limit, error):
    root = many(tmp_path)
    whole = datasets.load_category(root.parent, "steel")
    for folder, n in (("train/good", train), ("test/good", good), ("test/spot", spot)):
        damage(root, folder, n)
    if error is None:
        category = checked(root, limit)
        assert len(category.unreadable) == train + good + spot
        assert (len(category.train), len(category.test)) == (21 - train, 42 - good - spot)
        assert set(
            category.train + category.test + tuple(each.sample for each in category.unreadable)
        ) == set(whole.train + whole.test)
        assert datasets.fingerprint(category) == datasets.fingerprint(whole)
    else:
        with pytest.raises(DataError) as caught:
            checked(root, limit)
        n = {"train/good": train, "test/good": good, "test/spot": spot}[error]
        message = one_line(
            caught.value,
            f"{root / error}: {n} of 21 images cannot be read",
            "000.png (the file is empty)",
            "replace or remove these files",
        )
        assert ("or raise unreadable_limit" in message) == (n < 21)


@pytest.mark.parametrize("limit", [-0.1, 1.1, float("nan")])
def test_a_limit_that_is_none_is_refused(tmp_path, limit):
    with pytest.raises(DataError, match="unreadable_limit must be at least 0 and at most 1"):
        checked(write_category(tmp_path / "mine" / "steel", n_train=1), limit)


def test_a_mended_file_makes_other_data(tmp_path):
    root = many(tmp_path)
    damage(root, "train/good", 1)
    before = datasets.fingerprint(checked(root))
    save(root / "train" / "good" / "000.png", PIXELS)
    assert datasets.fingerprint(checked(root)) != before


def test_images_are_not_decoded_twice_where_their_checksums_can_be_compared(tmp_path, monkeypatch):
    root = many(tmp_path)
    monkeypatch.setattr(reading, "read_pixels", None)
    assert checked(root).unreadable == ()


# -- masks -----------------------------------------------------------------------------------------


def mask(root: Path, pixels: np.ndarray, name: str = "000_mask.png") -> None:
    save(root / "ground_truth" / "spot" / name, pixels)


def mask_in_jpeg(root: Path) -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[4:12, 4:12] = 255
    (root / "ground_truth" / "spot" / "000_mask.png").unlink()
    mask(root, pixels, "000_mask.jpg")


def masks_in_folder(root: Path, n: int = 3) -> None:
    (root / "ground_truth" / "spot" / "000_mask.png").unlink()
    (root / "ground_truth" / "spot" / "000").mkdir()
    for i in range(n):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[i, i] = 1 + i
        mask(root, pixels, f"000/{i}.png")


# What it is; what is done to a category whose defective images have 16 × 16 pixels; why 000.png is
# left out, or how many pixels its mask has.
MASKS = [
    (
        "of another size",
        lambda root: mask(root, np.zeros((8, 16), np.uint8)),
        "its mask has 16 × 8 pixels, and the image 16 × 16",
    ),
    (
        "damaged",
        lambda root: (root / "ground_truth" / "spot" / "000_mask.png").write_text("x"),
        "its mask 000_mask.png: not one of the formats below",
    ),
    ("all black", lambda root: mask(root, np.zeros((16, 16), np.uint8)), 0),
    (
        "grey levels",
        lambda root: mask(root, np.repeat(np.arange(16, dtype=np.uint8)[None], 16, axis=0)),
        240,
    ),
    (
        "a colour for each kind",
        lambda root: mask(
            root,
            np.stack([np.eye(16, dtype=np.uint8)] + [np.zeros((16, 16), np.uint8)] * 2, axis=2),
        ),
        16,
    ),
    (
        "missing for one image",
        lambda root: (root / "ground_truth" / "spot" / "000_mask.png").unlink(),
        None,
    ),
    ("missing for all", lambda root: shutil.rmtree(root / "ground_truth"), None),
    (
        "without an image",
        lambda root: mask(root, np.zeros((16, 16), np.uint8), "999_mask.png"),
        256,
    ),
    ("a JPEG", mask_in_jpeg, 64),
    ("a folder of several", masks_in_folder, 3),
    ("an empty folder", lambda root: masks_in_folder(root, 0), "its mask 000: a folder of masks,"),
]


@pytest.mark.parametrize(
    ("make", "expected"), [case[1:] for case in MASKS], ids=[case[0] for case in MASKS]
)
def test_masks(tmp_path, make, expected):
    root = write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=0, size=34)
    for i in range(21):
        for folder, name in (("test", f"{i:03d}.png"), ("ground_truth", f"{i:03d}_mask.png")):
            (root / folder / "spot").mkdir(parents=True, exist_ok=True)
            save(root / folder / "spot" / name, np.full((16, 16), 255, np.uint8))
    make(root)
    category = checked(root)
    first = {sample.path.stem: sample for sample in category.test if sample.label}.get("000")
    if isinstance(expected, str):
        (left_out,) = category.unreadable
        assert left_out.sample.path.name == "000.png" and first is None
        assert left_out.reason.startswith(expected)
    else:
        assert category.unreadable == ()
        assert (
            None if first.mask is None else int(reading.read_mask(first.mask).sum())
        ) == expected


# -- names -----------------------------------------------------------------------------------------

NAMES = [  # what it is; a name; is it listed as an image?
    ("spaces", "  a  b .png", True),
    ("unicode", "Oberfläche_表面_🙂.png", True),
    ("newline", "a\nb.png", True),
    ("quotes", "a\"b'c`.png", True),
    ("<script>", "<script>alert(1)<script>.png", True),
    ("a leading dash", "-rf.png", True),
    ("a leading dot", ".a.png", False),
    ("255 bytes", "a" * 251 + ".png", True),
    ("a control sequence", "a\x1b[31mred.png", True),
    ("a comma", "a,b.png", True),
    ("a formula", "=1+1.png", True),
    ("braces", "{a}.png", True),
    ("NA", "NA.png", True),
    ("a backslash", "a\\b.png", True),
    ("an ending alone", ".png", False),
]


@pytest.mark.parametrize(
    ("name", "is_listed"), [case[1:] for case in NAMES], ids=[case[0] for case in NAMES]
)
def test_names_of_images_come_back_as_they_are(tmp_path, name, is_listed):
    root = write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=1, size=34)
    save(root / "train" / "good" / name, PIXELS, format="PNG")
    category = checked(root)
    assert len(category.train) == 1 + is_listed
    run = Run(root.parent, "steel", tmp_path / "runs")
    run.write_images(category)
    assert (
        root / "train" / "good" / name in run.data_paths(run.images("train")["path"])
    ) == is_listed
    (root / "train" / "good" / name).write_text("no image")
    if is_listed:
        with pytest.raises(DataError) as caught:
            checked(root, 0.0)
        one_line(caught.value, "cannot be read", "not one of the formats below")


@pytest.mark.parametrize("name", [name for _, name, is_listed in NAMES if is_listed])
def test_names_of_categories_and_defects_come_back_as_they_are(tmp_path, name):
    root = write_category(tmp_path / "mine" / name, n_train=1, n_good=1, n_defective=1, size=34)
    for folder in ("test", "ground_truth"):
        (root / folder / "spot").rename(root / folder / name)
    category = checked(root)
    assert category.name == name and {sample.defect for sample in category.test} == {"good", name}
    assert all(sample.mask for sample in category.test if sample.label)
    run = Run(root.parent, name, tmp_path / "runs")
    run.write_images(category)
    assert (
        set(run.images("test")["defect"]) == {"good", name}
        and run.folder.parent == tmp_path / "runs" / "mine"
    )


def test_a_name_that_is_no_text_is_left_out(tmp_path):
    root = many(tmp_path)
    name = os.fsdecode(b"caf\xe9.png")
    try:
        save(root / "train" / "good" / name, PIXELS)
    except OSError:
        pytest.skip("this file system takes no name that is no text")
    category = checked(root)
    run = Run(root.parent, "steel", tmp_path / "runs")
    run.write_images(category)
    (listed,) = run.read()["data"]["unreadable"]
    assert listed == {
        "path": "train/good/caf\\udce9.png",
        "reason": "its name is no UTF-8, and could not be written into a table; rename it",
    }


def test_a_folder_named_like_an_image_is_none(tmp_path):
    root = write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=1, size=34)
    (root / "train" / "good" / "a.png").mkdir()
    assert len(checked(root).train) == 1


def test_thousands_of_tiny_files_are_listed_and_read_in_seconds(tmp_path):
    root = write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=1, size=34)
    save(root / "train" / "good" / "000.png", PIXELS[:1, :1])
    tiny = (root / "train" / "good" / "000.png").read_bytes()
    for i in range(3000):
        (root / "train" / "good" / f"{i}.png").write_bytes(tiny)
    category = checked(root)
    assert len(category.train) == 3001 and [sample.path.stem for sample in category.train[:3]] == [
        "0",
        "000",
        "1",
    ]


# -- folders ---------------------------------------------------------------------------------------


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def many_damaged(root: Path) -> None:
    damage(root, "test/spot", 2)


# What is wrong; what is done to a category; what the error says; is it found before any notebook?
FOLDERS = [
    (
        "no train",
        lambda root: shutil.rmtree(root / "train"),
        "(there is no folder {root}/train/good)",
        None,
    ),
    (
        "an empty train/good",
        lambda root: empty(root / "train" / "good"),
        "{root}/train/good has no images: put defect-free ones there",
        True,
    ),
    (
        "no test",
        lambda root: shutil.rmtree(root / "test"),
        "{root}/test has no images in sub-folders: put defect-free ones into",
        True,
    ),
    (
        "test images without folders",
        lambda root: [
            (empty(root / "test" / name), save(root / "test" / f"{name}.png", PIXELS))
            for name in ("good", "spot")
        ],
        "{root}/test has no images in sub-folders",
        True,
    ),
    (
        "test/Good",
        lambda root: (root / "test" / "good").rename(root / "test" / "Good"),
        "{root}/test/Good would count as a kind of defect: rename it to good",
        True,
    ),
    (
        "too many damaged",
        many_damaged,
        "{root}/test/spot: 2 of 3 images cannot be read, and unreadable_limit allows 0.05 of them: "
        "000.png (the file is empty)",
        False,
    ),
    (
        "masks beside the images",
        lambda root: save(root / "train" / "good" / "000_GT.png", PIXELS),
        "000_GT.png seems to be the mask of 000.png, and no image to learn from",
        True,
    ),
    (
        "masks of another size",
        lambda root: [
            mask(root, np.zeros((8, 8), np.uint8), f"{i:03d}_mask.png") for i in range(3)
        ],
        "its mask has 8 × 8 pixels, and the image 64 × 64",
        False,
    ),
]


@pytest.mark.parametrize(
    ("make", "words", "early"), [case[1:] for case in FOLDERS], ids=[case[0] for case in FOLDERS]
)
def test_a_folder_laid_out_wrongly_is_named(tmp_path, make, words, early):
    root = write_category(tmp_path / "mine" / "steel")
    write_category(tmp_path / "mine" / "brass", n_train=1)
    make(root)
    with pytest.raises(ValueError) as caught:
        category = datasets.load_category(root.parent, "steel")
        assert not early
        screening.readable(category, progress=False)
    one_line(caught.value, words.format(root=root))


def test_hidden_folders_are_no_defects(tmp_path):
    root = write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=1, size=34)
    shutil.copytree(root / "test" / "spot", root / "test" / ".ipynb_checkpoints")
    assert {sample.defect for sample in checked(root).test} == {"good", "spot"}


def test_a_folder_linked_in_a_circle_ends(tmp_path):
    root = write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=1, size=34)
    (root / "test" / "again").symlink_to(root / "test")
    (root / "test" / "self").symlink_to("self")
    assert {sample.defect for sample in checked(root).test} == {"good", "spot"}


# -- whole runs ------------------------------------------------------------------------------------


def identical(root: Path) -> None:
    for file in (root / "train" / "good").iterdir():
        save(file, np.tile(PIXELS, (4, 4, 1)))


def only_one(root: Path) -> None:
    for file in sorted((root / "train" / "good").iterdir())[1:]:
        file.unlink()


# What the data are; what is done to a category; what must come out: image AUROC?, pixel AUROC?
RUNS = [
    ("one training image", only_one, True, True),
    ("identical training images", identical, True, True),
    ("only good test images", lambda root: shutil.rmtree(root / "test" / "spot"), False, False),
    ("only defective test images", lambda root: shutil.rmtree(root / "test" / "good"), False, True),
    ("no masks", lambda root: shutil.rmtree(root / "ground_truth"), True, False),
    ("an all-black mask", lambda root: mask(root, np.zeros((64, 64), np.uint8)), True, True),
]


@pytest.mark.parametrize(
    ("make", "has_auroc", "has_pixel_auroc"),
    [case[1:] for case in RUNS],
    ids=[case[0] for case in RUNS],
)
def test_a_run_of_few_or_strange_images_ends(tmp_path, make, has_auroc, has_pixel_auroc):
    root = write_category(tmp_path / "mine" / "steel", n_train=4)
    make(root)
    checked(root)
    options = {"image_size": 64, "steps": 1, "hidden": 8, "bottleneck": 4}
    folder = stages.run_category(root.parent, "steel", tmp_path / "runs", "random", **options)
    metrics = read_json(folder / "metrics.json")
    assert (metrics["image_auroc"] is not None, metrics["pixel_auroc"] is not None) == (
        has_auroc,
        has_pixel_auroc,
    )
    table = Run(root.parent, "steel", tmp_path / "runs").read_table("scores.csv")
    train = table[table["split"] == "train"]["score"]
    assert np.isfinite(table["score"]).all() and metrics["threshold"] == pytest.approx(
        train.mean() + 3 * train.std(ddof=0), rel=1e-4
    )


# -- numbers ---------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
F = np.random.default_rng(0).random((4, 8, 4, 4), np.float32)


def spoilt(value: float) -> np.ndarray:
    features = F.copy()
    features[1, 2, 3, 0] = value
    return features


class Spoilt(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 1024, 2, 2), INF)


NUMBERS = [  # what is not finite; a call; what the error says
    (
        "features of an image",
        lambda folder: extraction.extract(
            Spoilt(), [folder / "a.png"], folder / "a.npy", sight=Sight(32), progress=False
        ),
        "a.png",
    ),
    (
        "features that the autoencoder is fit to",
        lambda _: autoencoder.fit(spoilt(NAN), hidden=4, bottleneck=2, steps=1, progress=False),
        "features must be finite",
    ),
    (
        "features that the extended detector is fit to",
        lambda _: codebook.fit(spoilt(INF), bottleneck=2, words=2, steps=1, progress=False),
        "features must be finite",
    ),
    (
        "a score, for the threshold",
        lambda _: sigma_threshold(np.array([1, NAN])),
        "scores must be finite, and 1 of 2 are not",
    ),
    (
        "a score, for the p-values",
        lambda _: p_values(np.array([1.0]), np.array([INF, NAN])),
        "scores must be finite, and 2 of 2 are not",
    ),
    (
        "a calibration score",
        lambda _: conformal_threshold(np.full(30, INF)),
        "calibration_scores must be finite",
    ),
    (
        "a score, for the AUROC",
        lambda _: image_auroc([0, 1], [1, NAN]),
        "scores must be finite; number 1 is not",
    ),
    (
        "a map",
        lambda _: pixel_metrics([np.zeros((2, 2))], [np.full((2, 2), NAN)]),
        "the map of image 0 is not finite",
    ),
    (
        "a mistyped seed",
        lambda folder: Run(
            write_category(folder / "mine" / "steel").parent, "steel", folder
        ).write_images(datasets.load_category(folder / "mine", "steel"), seed=-1),
        "seed must be at least 0, not -1",
    ),
    (
        "metrics",
        lambda folder: write_json(folder / "metrics.json", {"auroc": NAN}),
        "not JSON compliant",
    ),
]


@pytest.mark.parametrize(
    ("call", "words"), [case[1:] for case in NUMBERS], ids=[case[0] for case in NUMBERS]
)
def test_numbers_that_are_none_are_refused(tmp_path, call, words):
    save(tmp_path / "a.png", PIXELS)
    with pytest.raises(ValueError) as caught:
        call(tmp_path)
    one_line(caught.value, words)


# -- the command line ------------------------------------------------------------------------------

# What is wrong; the arguments after `run --dataset <a folder with steel>`; what the error says.
ARGUMENTS = [
    (
        "a category that leads out",
        ["--category", "../../x"],
        "has no category '../../x': choose from steel",
    ),
    (
        "a category that is a path",
        ["--category", "/etc"],
        "has no category '/etc': choose from steel",
    ),
    ("a category misspelt", ["--category", "stel"], "did you mean 'steel'?"),
    (
        "a category with a control sequence",
        ["--category", "a\x1b[31m\nb"],
        "has no category 'a\\x1b[31m\\nb'",
    ),
    ("a data set misspelt", ["--dataset", "synthetik"], "did you mean 'synthetic'?"),
    (
        "a data set that is a file",
        ["--dataset", __file__],
        "is no folder: choose synthetic, mvtec, or a folder",
    ),
    ("a data set of nothing", ["--dataset", ""], "choose synthetic, mvtec, or a folder"),
    ("a parameter misspelt", ["-p", "botleneck", "3"], "did you mean 'bottleneck'?"),
    (
        "a parameter like no other",
        ["-p", "zzz", "3"],
        "no notebook has a parameter zzz: there are ablation_steps, batch_size",
    ),
    (
        "a word for a whole number",
        ["-p", "steps", "many"],
        "parameter steps must be of type int (default 1000), not 'many'",
    ),
    (
        "a fraction for a whole number",
        ["-p", "hidden", "1.5"],
        "parameter hidden must be of type int",
    ),
    (
        "neither true nor false",
        ["-p", "normalize", "maybe"],
        "parameter normalize must be of type bool",
    ),
    (
        "code for a number",
        ["-p", "steps", "__import__('os')"],
        "parameter steps must be of type int",
    ),
    (
        "no steps",
        ["-p", "steps", "0"],
        "parameter steps must be at least 1 (default 1000), not 0",
    ),
    ("a negative width", ["-p", "bottleneck", "-1"], "parameter bottleneck must be at least 1"),
    (
        "an image size that is no multiple of 16",
        ["-p", "image_size", "100"],
        "parameter image_size must be at least 16 and a multiple of 16",
    ),
    (
        "everything kept out",
        ["-p", "calibration_fraction", "1"],
        "parameter calibration_fraction must be at least 0 and below 1",
    ),
    (
        "a limit in percent",
        ["-p", "unreadable_limit", "5"],
        "parameter unreadable_limit must be at least 0 and at most 1 (default 0.05), not 5.0",
    ),
    (
        "no learning rate",
        ["-p", "learning_rate", "0"],
        "parameter learning_rate must be above 0",
    ),
    (
        "an endless learning rate",
        ["-p", "learning_rate", "1e999"],
        "parameter learning_rate must be above 0",
    ),
    (
        "a false-alarm rate that is none",
        ["-p", "false_alarms", "nan"],
        "parameter false_alarms must be above 0 and below 1",
    ),
    (
        "a whole number with an exponent",
        ["-p", "image_size", "2.24e2"],
        "parameter image_size must be of type int (default 224), not '2.24e2'",
    ),
    (
        "a white of more than 16 bits",
        ["-p", "white", "65536"],
        "parameter white must be at least 0 and at most 65535 (default 0), not 65536",
    ),
    (
        "a white that is a colour",
        ["-p", "white", "#ffffff"],
        "parameter white must be of type int (default 0), not '#ffffff'",
    ),
    (
        "a detector misspelt",
        ["-p", "detector", "extendet"],
        "not 'extendet' (did you mean 'extended'?)",
    ),
    (
        "a rule misspelt",
        ["-p", "rule", "sigmma"],
        "parameter rule must be one of auto, sigma, held_out, conformal",
    ),
    ("one wrong value of a sweep", ["-p", "hidden", "1,0"], "parameter hidden must be at least 1"),
    (
        "a parameter that has an option",
        ["-p", "seed", "1"],
        "parameter seed has an option of its own",
    ),
    ("no jobs", ["--jobs", "0"], "jobs must be at least 1, not 0"),
    ("weights misspelt", ["--weights", "imagnet"], "imagnet"),
    (
        "weights that are not there",
        ["--weights", "none.safetensors"],
        "none.safetensors does not exist",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "words"), [case[1:] for case in ARGUMENTS], ids=[case[0] for case in ARGUMENTS]
)
def test_what_is_mistyped_is_one_line_before_anything_runs(tmp_path, capsys, arguments, words):
    write_category(tmp_path / "mine" / "steel", n_train=1, n_good=1, n_defective=0)
    status = main(
        [
            "run",
            "--dataset",
            str(tmp_path / "mine"),
            "--weights",
            "random",
            "--out",
            str(tmp_path / "runs"),
            "--quiet",
            *arguments,
        ]
    )
    shown = capsys.readouterr()
    assert status == 2 and shown.out == ""
    (line,) = shown.err.splitlines()
    assert one_line(line, words).startswith("texad: ")
    assert not (tmp_path / "runs").exists()


def test_a_folder_without_categories_is_one_line(tmp_path, capsys):
    assert main(["run", "--dataset", str(tmp_path), "--category=-../../x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    one_line(line, f"texad: {tmp_path} holds no category: put defect-free images into")


def test_every_default_is_in_its_own_range_and_every_range_has_a_parameter():
    known = {
        name: value
        for stage in parameters.STAGES + parameters.STUDIES
        for name, value in parameters.defaults(stage).items()
    }
    typed = {
        name: str(value)
        for name, value in known.items()
        if name not in parameters.COMMON and value is not None  # None: as the detector wants it
    }
    assert parameters.parse_values(typed) == {name: [known[name]] for name in typed}
    assert {*parameters.RANGES, *parameters.CHOICES} <= set(typed)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """One batch over a category for each row of `FOLDERS`, and one that must come through."""
    folder = tmp_path_factory.mktemp("hostile")
    for what, make, _, early in FOLDERS:
        if early is not None:
            make(write_category(folder / "mine" / what.replace("/", " "), size=64))
    good = write_category(folder / "mine" / SURVIVOR, n_train=30, n_good=3, n_defective=2)
    (good / "train" / "good" / "003.png").write_bytes(b"")
    (good / "train" / "good" / "<script>alert(1)<script>.png").write_text("no image")
    for _, name, make, _ in READ[1:]:
        if make is not link_outside:
            make(
                good / "train" / "good" / f"{len(list((good / 'train' / 'good').iterdir()))} {name}"
            )
    for kind in ("test", "ground_truth"):
        (good / kind / "spot").rename(good / kind / DEFECT)
    arguments = [
        "run",
        "--dataset",
        folder / "mine",
        "--weights",
        "random",
        "--out",
        folder / "runs",
        "--jobs",
        1,
        "--quiet",
        *QUICK,
        "-p",
        "steps",
        1,
    ]
    return folder, texad(*arguments)


SURVIVOR, DEFECT = '-surface "ü" <b>', "<script>alert('defect')<script>"


@pytest.mark.parametrize(
    ("what", "words"), [(what, words) for what, _, words, early in FOLDERS if early is not None]
)
def test_in_a_batch_each_category_that_fails_is_one_line_of_its_own(batch, what, words):
    folder, result = batch
    assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
    name = what.replace("/", " ")
    (line,) = [
        line for line in result.stderr.splitlines() if line.startswith(f"texad: {name} failed: ")
    ]
    one_line(line, words.format(root=folder / "mine" / name))


def test_in_a_batch_a_category_with_two_damaged_images_and_strange_names_comes_through(batch):
    folder, result = batch
    summary = {
        row["category"]: row
        for row in json.loads((folder / "runs" / "summary.json").read_text())["categories"]
    }
    assert summary[SURVIVOR]["error"] is None and [
        name for name, row in summary.items() if not row["error"]
    ] == [SURVIVOR]
    run = Run(folder / "mine", SURVIVOR, folder / "runs")
    record = run.read()["data"]
    assert record["unreadable"] == [
        {"path": "train/good/003.png", "reason": "the file is empty"},
        {
            "path": "train/good/<script>alert(1)<script>.png",
            "reason": "not one of the formats below",
        },
    ]
    assert record["fingerprint"] == datasets.fingerprint(
        datasets.load_category(folder / "mine", SURVIVOR)
    )
    assert set(run.images("test")["defect"]) == {"good", DEFECT}
    page = (run.folder / "notebooks" / "01_preprocessing.ipynb").read_text()
    n_images = record["n_train"] + record["n_calibration"] + record["n_test"] + 2
    assert f"Of **{n_images}** images, **2** could not be used." in page
    assert (
        "003.png" in page
        and "&lt;script&gt;alert(1)&lt;script&gt;.png" in page
        and "the file is empty" in page
    )


def test_there_are_enough_cases():
    tables = READ, BROKEN, LIMITS, MASKS, NAMES, FOLDERS, RUNS, NUMBERS, ARGUMENTS
    assert sum(map(len, tables)) >= 60
    for table in tables:
        assert len({row[0] for row in table}) == len(table)  # each says what it is
