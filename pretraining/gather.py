"""Free photographs and textures: from Debian packages to a folder of JPEG files.

apt-get download 0ad-data gnome-backgrounds ...     # those that pictures.csv lists
python gather.py FOLDER_OF_DEB_FILES pictures/
"""

import argparse
import csv
import hashlib
import io
import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

LARGE = 1024  # pixels: what is larger is cut into tiles
SMALL = 200
MOST = 700  # files of a package
NO_COLOUR = re.compile(
    r"norm|spec|_n\.|_s\.|_nm|gloss|height|mask|bump|_ao|lightmap|glow|icon|font"
)


def members(package: Path, keep: re.Pattern) -> Iterator[tuple[str, bytes]]:
    """Yield name and contents of the image files in a .deb file, and in .zip files within."""
    wanted = re.compile(r"\.(jpe?g|png|webp|dds)$", re.IGNORECASE)
    with tempfile.TemporaryFile() as unpacked:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=unpacked, check=True)
        unpacked.seek(0)
        for member in (archive := tarfile.open(fileobj=unpacked)):
            file = archive.extractfile(member) if member.isfile() else None
            if file and wanted.search(member.name) and keep.search(member.name):
                yield member.name, file.read()
            elif file and member.name.endswith(".zip"):
                inner = zipfile.ZipFile(file)
                names = [n for n in inner.namelist() if wanted.search(n) and keep.search(n)]
                yield from ((name, inner.read(name)) for name in names)


def tiles(image: Image.Image) -> Iterator[Image.Image]:
    """Yield an image whole if it is not large; a photograph, at half its size, in tiles."""
    if max(image.size) > 2 * LARGE:  # the single pixels of a large photograph are blurred
        image = image.reduce(2)
    w, h = image.size
    across, down = -(-w // LARGE), -(-h // LARGE)
    for x in range(across):
        for y in range(down):
            yield image.crop(
                (x * w // across, y * h // down, (x + 1) * w // across, (y + 1) * h // down)
            )


def is_picture(image: Image.Image) -> bool:
    """Return whether an image is large enough, neither flat nor a map of surface normals."""
    pixels = np.asarray(image.resize((64, 64)), float)
    red, green, blue = pixels.mean((0, 1))
    normals = blue > 200 and abs(red - 128) < 25 and abs(green - 128) < 25
    return min(image.size) >= SMALL and pixels.std((0, 1)).max() > 6 and not normals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, help="folder of .deb files")
    parser.add_argument("pictures", type=Path, help="folder to write to")
    options = parser.parse_args()
    table = Path(__file__).with_name("pictures.csv").read_text()
    for package in csv.DictReader(io.StringIO(table)):
        (file,) = options.packages.glob(f"{package['name']}_*.deb")
        if hashlib.sha256(file.read_bytes()).hexdigest() != package["sha256"]:
            raise SystemExit(f"{file} is not the listed one: get version {package['version']}")
        folder = options.pictures / package["name"]
        folder.mkdir(parents=True, exist_ok=True)
        found = [
            m for m in members(file, re.compile(package["keep"])) if not NO_COLOUR.search(m[0])
        ]
        kept = 0
        for _, contents in found[:: -(-len(found) // MOST) or 1]:
            with Image.open(io.BytesIO(contents)) as image:
                for tile in tiles(image.convert("RGB")):
                    if is_picture(tile):
                        tile.save(folder / f"{kept:04}.jpg", quality=92)
                        kept += 1
        print(f"{package['name']}: {kept} pictures", flush=True)


if __name__ == "__main__":
    main()
