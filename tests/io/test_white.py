"""Which level is white in images of 16 bits, and what becomes of brighter ones."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_shared, write_category
from PIL import Image

from texad.__main__ import main
from texad.detector import AnomalyDetector
from texad.evaluation.metrics import image_auroc
from texad.io import images as reading
from texad.io.images import WHITE, find_white, read_image, read_mask, read_pixels

EIGHT = np.random.default_rng(0).integers(0, 256, (9, 14), dtype=np.uint8)


def levels(eight: np.ndarray, bits: int) -> np.ndarray:
    """What a camera of so many bits would measure, where one of 8 bits measures `eight`."""
    return np.rint(eight * ((2**bits - 1) / 255)).astype(np.uint16)


# -- files that Pillow cannot write ----------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(file: Path, pixels: np.ndarray) -> Path:
    height, width = pixels.shape[:2]
    kind = {1: 0, 3: 2, 4: 6}[pixels[0, 0].size]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return file


def tiff(
    file: Path,
    pixels: np.ndarray,
    order: str = "<",
    deflate: bool = False,
    bits: int = 16,
    orientation: int = 1,
) -> Path:
    (height, width), channels = pixels.shape[:2], pixels[0, 0].size
    raw = pack(pixels) if bits == 12 else pixels.astype(f"{order}u2").tobytes()
    raw = zlib.compress(raw) if deflate else raw
    tags = [  # number, values: of 16 bits each
        (256, [width]),
        (257, [height]),
        (258, [bits] * channels),
        (259, [8 if deflate else 1]),
        (262, [1 if channels == 1 else 2]),
        (273, [8 + 2 + 12 * 11 + 4 + 2 * channels]),
        (274, [orientation]),
        (277, [channels]),
        (278, [height]),
        (279, [len(raw)]),  # of 32 bits
        (284, [1]),
    ]
    at, bytes_ = struct.pack(f"{order}I", 8 + 2 + 12 * len(tags) + 4), b""
    for number, values in tags:
        kind, size = (4, "I") if number == 279 else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{size}", *values).ljust(4, b"\0")
        entry = struct.pack(f"{order}HHI", number, kind, len(values))
        bytes_ += entry + (packed if len(packed) == 4 else at)
    head = b"II" if order == "<" else b"MM"
    more = struct.pack(f"{order}{channels}H", *[bits] * channels)
    start = head + struct.pack(f"{order}HIH", 42, 8, len(tags))
    file.write_bytes(start + bytes_ + bytes(4) + more + raw)
    return file


def pack(pixels: np.ndarray) -> bytes:
    """Two levels of 12 bits in three bytes; the width is even."""
    left, right = pixels[:, ::2], pixels[:, 1::2]
    three = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=-1)
    return three.astype(np.uint8).tobytes()


def ppm(file: Path, pixels: np.ndarray, most: int = WHITE) -> Path:
    height, width = pixels.shape[:2]
    kind = "P5" if pixels.ndim == 2 else "P6"
    file.write_bytes(
        f"{kind}\n{width} {height}\n{most}\n".encode() + pixels.astype(">u2").tobytes()
    )
    return file


def colours(grey: np.ndarray, channels: int = 3) -> np.ndarray:
    """A colour image; red is the grey one, and the others are darker."""
    return np.stack([grey // (1 + i) for i in range(channels)], axis=-1)


WRITERS = {
    "png": png,
    "tiff": tiff,
    "tiff, big endian": lambda file, pixels: tiff(file, pixels, order=">"),
    "tiff, compressed": lambda file, pixels: tiff(file, pixels, deflate=True),
    "tiff, big endian, compressed": lambda file, pixels: tiff(file, pixels, ">", True),
    "pgm or ppm": ppm,
}


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("writer", WRITERS)
def test_levels_of_few_bits_become_those_of_an_image_of_8_bits(tmp_path, writer, bits, channels):
    channels = min(channels, 3 if writer == "pgm or ppm" else 4)
    grey = levels(EIGHT, bits)
    pixels = grey if channels == 1 else colours(grey, channels)
    file = WRITERS[writer](tmp_path / "a", pixels)
    white = find_white([file])
    assert white == 2**bits - 1
    found = read_pixels(file, white).astype(int)
    assert np.array_equal(found[..., 0], EIGHT)
    if channels > 1:
        assert np.abs(found[..., 2] - EIGHT / 3).max() <= 1
    # where nothing is known, 16 bits are taken to be that
    assert read_pixels(file).max() <= 2 ** (bits - 8)


@pytest.mark.parametrize("deflate", [False, True])
def test_a_packed_tiff_says_itself_what_is_white(tmp_path, deflate):
    file = tiff(tmp_path / "a.tif", levels(EIGHT // 8, 12), bits=12, deflate=deflate)
    assert find_white([file]) == WHITE  # no level above 500, but that says nothing here
    for white in (WHITE, 1023, 4095):
        assert np.array_equal(read_pixels(file, white)[..., 1], EIGHT // 8)


def test_a_pgm_says_itself_what_is_white(tmp_path):
    for most in (1023, 4095):
        file = ppm(tmp_path / "a.pgm", levels(EIGHT // 8, most.bit_length()), most)
        assert find_white([file]) == WHITE
        for white in (WHITE, 1023):
            assert np.abs(read_pixels(file, white)[..., 1].astype(int) - EIGHT // 8).max() <= 1


@pytest.mark.parametrize("writer", WRITERS)
def test_true_16_bits_and_8_bits_stay_as_they_were(tmp_path, writer):
    grey = np.random.default_rng(1).integers(0, 65536, (9, 14), dtype=np.uint16)
    for pixels in (grey, colours(grey)):
        file = WRITERS[writer](tmp_path / "a", pixels)
        assert find_white([file]) == WHITE
        with Image.open(file) as image:
            by_pillow = np.asarray(image)
        if pixels.ndim == 2:
            by_pillow = np.rint(grey / 257).astype(np.uint8)[..., None].repeat(3, axis=2)
        assert np.array_equal(read_pixels(file, WHITE), by_pillow)
    Image.fromarray(EIGHT).save(tmp_path / "8.png")
    assert find_white([tmp_path / "8.png"]) == WHITE
    assert np.array_equal(read_pixels(tmp_path / "8.png", 4095)[..., 0], EIGHT)


def test_all_images_tell_what_is_white_and_none_is_read_in_vain(tmp_path, monkeypatch):
    dark, bright = (
        png(tmp_path / name, levels(EIGHT // part, 12)) for name, part in (("a", 8), ("b", 1))
    )
    Image.fromarray(EIGHT).save(tmp_path / "8.png")
    black = png(tmp_path / "black", np.zeros((2, 2), dtype=np.uint16))
    assert find_white([dark]) == 1023 and find_white([dark, tmp_path / "8.png", bright]) == 4095
    assert find_white([black]) == find_white([]) == WHITE
    full = png(tmp_path / "full", levels(EIGHT, 16))
    assert find_white([dark, full, tmp_path / "there is none"]) == WHITE
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert find_white([tmp_path / "8.png"] * 3) == WHITE


def test_a_brighter_image_is_clipped_and_named_once(tmp_path, caplog):
    pixels = np.array([[0, 2048, 4095, 4096, 50000]], dtype=np.uint16)
    grey, colour = png(tmp_path / "a\n.png", pixels), png(tmp_path / "c.png", colours(pixels))
    reading._say_clipped.cache_clear()
    for file in (grey, colour, grey):
        assert read_pixels(file, 4095)[0, :, 0].tolist() == [0, 128, 255, 255, 255]
    first, second = (record.getMessage() for record in caplog.records)
    assert "a\\n.png" in first and "50000" in first and "(4095)" in first and "\n" not in first
    assert "c.png" in second


def test_a_turned_tiff_of_16_bits_is_turned(tmp_path):
    for pixels in (levels(EIGHT, 12), colours(levels(EIGHT, 12))):
        file = tiff(tmp_path / "a.tif", pixels, orientation=6)
        assert np.array_equal(read_pixels(file, 4095)[..., 0], np.rot90(EIGHT, -1))
        assert read_image(file, 4095).size == (9, 14)


def test_low_levels_of_a_mask_of_16_bits_count(tmp_path):
    mask = np.zeros((3, 4), dtype=np.uint16)
    mask[1, 2] = 1
    for pixels in (mask, colours(mask)):
        assert np.array_equal(read_mask(png(tmp_path / "a", pixels)), mask > 0)


# -- in use ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> tuple[Path, Path]:
    """A category of 8 bits, and the same of 12 in files of 16."""
    eight = write_category(tmp_path_factory.mktemp("a") / "steel", n_train=8, size=64)
    twelve = tmp_path_factory.mktemp("b") / "steel"
    shutil.copytree(eight, twelve)
    for folder in ("train", "test"):
        for file in (twelve / folder).rglob("*.png"):
            png(file, levels(read_pixels(file), 12))
    return eight, twelve


QUICK = ["--weights", "random", "--image-size", "64", "--quiet"]


@pytest.mark.usefixtures("short_training")
def test_a_detector_of_12_bits_is_that_of_8_bits(twice, tmp_path, capsys):
    files = []
    for bits, category in zip((8, 12), twice, strict=True):
        files.append(tmp_path / f"{bits}.safetensors")
        assert main(["fit", str(category), "--out", str(files[-1]), *QUICK]) == 0
        said = " ".join("".join(capsys.readouterr()).split())
        assert ("level 4095 is taken for white (--white says otherwise)" in said) == (bits == 12)
    eight, twelve = map(AnomalyDetector.load, files)
    assert (eight.sight_.white, twelve.sight_.white) == (WHITE, 4095)
    tests = [sorted((category / "test").rglob("*.png")) for category in twice]
    assert np.array_equal(eight.score_samples(tests[0]), twelve.score_samples(tests[1]))
    # a picture of it is as bright
    out = tmp_path / "predictions"
    heatmaps = ["--out", str(out), "--heatmaps", "--quiet"]
    assert main(["predict", str(files[1]), str(tests[1][0]), *heatmaps]) == 0
    (picture,) = (out / "heatmaps").glob("*.jpg")
    assert read_pixels(picture).mean() > 90
    # and what is brighter is named
    bright = png(tmp_path / "bright.png", levels(read_pixels(tests[0][0]), 14))
    for command in (
        ["predict", str(files[1]), str(bright)],
        ["check", str(files[1]), str(tmp_path)],
    ):
        reading._say_clipped.cache_clear()
        main([*command, "--quiet"])
        assert "bright.png has levels up to" in capsys.readouterr().err


@pytest.mark.usefixtures("short_training")
def test_the_user_may_say_what_is_white(twice, tmp_path, capsys):
    file = tmp_path / "steel.safetensors"
    fit = ["fit", str(twice[1]), "--out", str(file), *QUICK, "--white"]
    assert main([*fit, "2047"]) == 0
    assert AnomalyDetector.load(file).sight_.white == 2047
    assert "has levels up to" in capsys.readouterr().err
    assert main([*fit, "65535"]) == 0
    assert AnomalyDetector.load(file).sight_.white == WHITE
    assert "white" not in capsys.readouterr().err
    assert main([*fit, "65536"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("texad: white must be at least 1 and at most 65535")


@pytest.mark.slow
def test_12_bits_of_real_surfaces_find_as_much(tmp_path):
    photographs = needs_shared("data/magnetic_tile")
    parts = {"train/good": 30, "test/good": 25, "test/break": 25}
    auroc = {}
    for bits in (8, 12):
        files = []
        for part, n in parts.items():
            for i, photograph in enumerate(sorted((photographs / part).glob("*.jpg"))[:n]):
                grey = read_pixels(photograph)[:, :, 0]
                noise = np.random.default_rng(i).integers(0, 16, grey.shape, dtype=np.uint16)
                twelve = 16 * grey.astype(np.uint16) + noise
                file = tmp_path / f"{part.replace('/', ' ')} {i}.tif"
                Image.fromarray(grey if bits == 8 else twelve).save(file)
                files.append(file)
        detector = AnomalyDetector(image_size=96, calibration_fraction=0.2, progress=False)
        scores = detector.fit(files[:30]).score_samples(files[30:])
        auroc[bits] = image_auroc(np.repeat([0, 1], 25), scores)
        assert detector.sight_.white == (4095 if bits == 12 else WHITE)
    twelve = twelve[:, : twelve.shape[1] // 2 * 2]
    packed = tiff(tmp_path / "packed", twelve, bits=12)
    assert np.array_equal(read_pixels(packed), read_pixels(file, 4095)[:, : twelve.shape[1]])
    assert auroc[8] > 0.6 and abs(auroc[12] - auroc[8]) <= 0.005, auroc
