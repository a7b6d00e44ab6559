"""Fuzzing of image decoding: any bytes become pixels, or one line that names the file.

Not a test that pytest collects, since it never ends by itself. atheris changes the bytes of a
corpus, and keeps what reaches lines that nothing has reached before. It wants Linux:

    .venv/bin/pip install atheris
    .venv/bin/python tests/fuzz_images.py -max_total_time=600 -rss_limit_mb=4096 corpus/

`corpus/` is a folder of your own; it is filled with one small file of each kind first, and keeps
what was found. What fails is written to `crash-…` in the current folder: give it as the argument
to
see it again, and make it a case of `test_properties.py`.
"""

import io
import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["PIL", "texad.io.images"]):
    from PIL import Image

    Image.init()  # imports the formats
    from texad.io import images as reading

FILE = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)) / "image.png"
MOST_PIXELS = (
    2**14
)  # a file of a few bytes may say that it is large; what this costs is a test of its own


def check(data: bytes) -> None:
    """Raise an error if a file of these bytes is not treated as promised."""
    FILE.write_bytes(data)
    shapes = []
    for read, dtype, ndim in ((reading.read_image, np.uint8, 3), (reading.read_mask, np.bool_, 2)):
        try:
            pixels = np.asarray(read(FILE))
        except ValueError as error:
            message = str(error)
            what = "image" if read is reading.read_image else "mask"
            assert (
                message.startswith(f"{what} {FILE} cannot be read (") and message.isprintable()
            ), repr(message)
            continue
        if read is reading.read_image:
            assert reading.check_image(FILE) == pixels.shape[:2]
        assert pixels.dtype == dtype and pixels.ndim == ndim and pixels.size, (
            pixels.dtype,
            pixels.shape,
        )
        shapes.append(pixels.shape[:2])
    assert len(set(shapes)) <= 1, shapes


def seeds() -> dict[str, bytes]:
    """One small file of each kind that Pillow writes."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        "rgb": rgb,
        "grey": rgb.convert("L"),
        "bits": rgb.convert("1"),
        "palette": rgb.quantize(8),
        "rgba": rgb.convert("RGBA"),
        "cmyk": rgb.convert("CMYK"),
        "ycbcr": rgb.convert("YCbCr"),
        "deep": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        "whole": Image.fromarray(pixels[..., 0].astype(np.int32) * 257),
        "float": Image.fromarray(pixels[..., 0].astype(np.float32) / 255),
    }
    ways = [
        ("png", {}),
        ("png", {"exif": exif}),
        ("jpeg", {"exif": exif}),
        ("bmp", {}),
        ("tiff", {}),
        ("tiff", {"exif": exif}),
    ]
    ways += [
        ("tiff", {"compression": name})
        for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4", "raw")
    ]
    ways += [
        ("png", {"save_all": True, "append_images": [rgb]}),
        ("tiff", {"save_all": True, "append_images": [rgb]}),
    ]
    files = {}
    for name, image in images.items():
        for i, (kind, options) in enumerate(ways):
            stream = io.BytesIO()
            try:
                image.save(stream, kind, **options)
            except (OSError, ValueError, KeyError):  # a mode that the format does not know
                continue
            files[f"{name}-{i}.{kind}"] = stream.getvalue()
    return files


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:] if Path(argument).is_dir()]
    for name, data in seeds().items() if folders else ():
        (folders[0] / name).write_bytes(data)
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
