"""MVTec AD: download once, check, unpack.

The archive has 4.9 GB, so a download that was cut off goes on where it stopped, and only the categories asked
for are unpacked. The archive is kept, so that another category needs no second download.

MVTec AD, a comprehensive real-world dataset for unsupervised anomaly detection, Bergmann et al., CVPR 2019.
"""

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

URL = (
    "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"
    "mvtec_anomaly_detection.tar.xz"
)
SHA256 = "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"
LICENCE = (
    "MVTec AD (4.9 GB) by MVTec Software GmbH, licensed under CC BY-NC-SA 4.0: for research and teaching, "
    "not for commercial use. https://creativecommons.org/licenses/by-nc-sa/4.0/"
)
ARCHIVE = "mvtec_anomaly_detection.tar.xz"
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle", "cable", "capsule", "hazelnut", "metal_nut",
    "pill", "screw", "toothbrush", "transistor", "zipper",
)  # fmt: skip
CATEGORIES = tuple(sorted(TEXTURES + OBJECTS))
TIMEOUT_S = 10.0  # for connecting, and for the silence of a server
BLOCK = 1 << 20  # bytes read at a time
UNITS = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}  # of the progress bars


def prepare(folder: Path, categories: Sequence[str]) -> None:
    """Put categories on disk, out of the archive, which is downloaded unless it lies beside `folder`.

    Parameters
    ----------
    folder : Path
        A category becomes `folder`/<category>; one that is there already is left alone.
    categories : sequence of str
        Of `CATEGORIES`.

    Raises
    ------
    ConnectionError
        If the archive cannot be downloaded; the message says what to do without a network.
    ValueError
        If the archive is not the one that MVTec published, or a category's folder is there but incomplete.
    """
    missing = [category for category in categories if not (folder / category / "train" / "good").is_dir()]
    for incomplete in (folder / category for category in missing if (folder / category).exists()):
        raise ValueError(f"{incomplete} has no train/good: complete it, or move it away to have it unpacked")
    if not missing:
        return
    archive = folder.parent / ARCHIVE
    if not archive.exists():
        print(LICENCE)
        _download(archive, folder / missing[0])
    elif _sha256(archive) != SHA256:
        raise ValueError(
            f"{archive} is not the archive that MVTec published (its SHA-256 is wrong): delete it to have it "
            "downloaded"
        )
    _unpack(archive, folder, missing)
    print(f"{archive} may be deleted now; it is needed for further categories only.")


# -- download ------------------------------------------------------------------------------------------


def _download(archive: Path, example: Path) -> None:
    """Download to a `.part` file, which becomes `archive` when it is whole and checked."""
    part = archive.with_name(f"{archive.name}.part")
    try:
        while not _fetch(part):
            pass  # cut off, but not before something came: go on from there
    except ConnectionError as error:
        kept = f"; {_size(part) / 1e9:.2f} GB are kept in {part}" if _size(part) else ""
        raise ConnectionError(
            f"MVTec AD could not be downloaded ({error}{kept}): run this again with a network, or put {URL} "
            f"at {archive}, or the unpacked categories at {example} and so on"
        ) from error
    if _sha256(part) != SHA256:
        part.unlink()
        raise ValueError(
            f"what {URL} sent is not the archive that MVTec published (its SHA-256 is wrong) and was "
            f"deleted: run this again, or put the archive at {archive}"
        )
    os.replace(part, archive)


def _fetch(part: Path) -> bool:
    """Ask once for what `part` still lacks.

    Returns
    -------
    bool
        True when there is no more to come, False when the connection was cut after it brought something.

    Raises
    ------
    ConnectionError
        If it brought nothing.
    """
    before = _size(part)
    headers = {"User-Agent": "texad"} | ({"Range": f"bytes={before}-"} if before else {})
    try:
        with _network_errors():
            response = urllib.request.urlopen(urllib.request.Request(URL, headers=headers), timeout=TIMEOUT_S)
    except ConnectionError as error:
        if getattr(error.__cause__, "code", None) == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing comes after the last byte: `part` is whole, or its hash will tell
        raise
    resumed = response.status == http.client.PARTIAL_CONTENT
    start = before if resumed else 0  # a server that knows no ranges sends the file from its start
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    part.parent.mkdir(parents=True, exist_ok=True)
    with response, part.open("ab" if resumed else "wb") as file:
        try:
            with tqdm(desc="MVTec AD, downloading", total=total, initial=start, **UNITS) as bar:
                while block := _next_block(response):
                    file.write(block)
                    bar.update(len(block))
        except ConnectionError:
            if file.tell() <= before:
                raise
            return False
        is_whole = total is None or file.tell() >= total
        if not is_whole and file.tell() <= before:
            raise ConnectionError(f"the server stopped after {file.tell()} of {total} bytes")
        return is_whole


def _next_block(response: http.client.HTTPResponse) -> bytes:
    with _network_errors():
        return response.read1(BLOCK)


@contextmanager
def _network_errors() -> Iterator[None]:
    """Give whatever goes wrong on the way one name, and so tell it from a full disk."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _sha256(file: Path) -> str:
    """As `texad.files.sha256`, with a progress bar: 4.9 GB take a while."""
    digest = hashlib.sha256()
    with file.open("rb") as stream, _reading_with_bar(stream, "checking") as reader:
        while block := reader.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _reading_with_bar(stream: BinaryIO, what: str):
    total = os.fstat(stream.fileno()).st_size
    return tqdm.wrapattr(stream, "read", desc=f"MVTec AD, {what}", total=total, **UNITS)


# -- unpack --------------------------------------------------------------------------------------------


def _unpack(archive: Path, folder: Path, categories: Sequence[str]) -> None:
    """Unpack categories to a hidden folder beside their places, and move them there when all are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder)).resolve()
    try:
        with archive.open("rb") as stream, _reading_with_bar(stream, "unpacking") as reader:
            with tarfile.open(fileobj=reader, mode="r|xz") as tar:
                for member in tar:
                    _unpack_member(tar, member, temporary, categories)
        for category in categories:
            if not (temporary / category / "train" / "good").is_dir():
                raise ValueError(f"it holds no {category}/train/good")
        for category in categories:
            os.replace(temporary / category, folder / category)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}): delete it, and run this again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, wanted: Sequence[str]) -> None:
    """Write a member of the archive if it belongs to one of the categories.

    Only plain files are written, and of them only the content, so no link can lead out of `folder`. This is
    stricter than tarfile's own "data" filter, and the same in Pythons too old to have that.
    """
    target = (folder / member.name).resolve()
    if not target.is_relative_to(folder) or ".." in Path(member.name).parts:
        raise ValueError(f"unsafe: its member {member.name!r} leads out of the folder")
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"unsafe: its member {member.name!r} is a link or a device")
    if member.isfile() and target.relative_to(folder).parts[0] in wanted:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tar.extractfile(member) as content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
