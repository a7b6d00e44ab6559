"""MVTec AD: download once, check, unpack.

The archive has 4.9 GB, so a download that was cut off goes on where it stopped, and only the categories asked
for are unpacked. The archive is kept, so that another category needs no second download.

MVTec AD, a comprehensive real-world dataset for unsupervised anomaly detection, Bergmann et al., CVPR 2019.
"""

import errno
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from texad.io import download as downloads

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
# What an archive may unpack to. The paper, sec. 3, counts 5354 images of 700 to 1024 pixels a side, and there is a mask for each of the 1258
# defective ones: some 7000 files. Without any compression the largest of them would have 3.1 MB; PNG files in an archive hardly get smaller,
# so all together are about as large as the archive, 4.9 GB.
MOST_MEMBERS = 20_000
MOST_BYTES = 10_000_000_000
MOST_BYTES_OF_ONE = 20_000_000
NAMES_REFUSED = (
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
)  # by the file system


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
    missing = [
        category for category in categories if not (folder / category / "train" / "good").is_dir()
    ]
    for incomplete in (folder / category for category in missing if (folder / category).exists()):
        raise ValueError(
            f"{incomplete} has no train/good: complete it, or move it away to have it unpacked"
        )
    if not missing:
        return
    archive = folder.parent / ARCHIVE
    if not archive.exists():
        print(LICENCE)
        _download(archive, folder / missing[0])
    elif downloads.hash_with_bar(archive, "MVTec AD") != SHA256:
        raise ValueError(
            f"{archive} is not the archive that MVTec published (its SHA-256 is wrong): delete it to have it "
            "downloaded"
        )
    _unpack(archive, folder, missing)
    print(f"{archive} may be deleted now; it is needed for further categories only.")


# -- download ------------------------------------------------------------------------------------------


def _download(archive: Path, example: Path) -> None:
    try:
        downloads.download(URL, archive, SHA256, "MVTec AD")
    except ConnectionError as error:
        raise ConnectionError(
            f"MVTec AD could not be downloaded ({error}): run this again with a network, or put {URL} "
            f"at {archive}, or the unpacked categories at {example} and so on"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{error}: run this again, or put the archive that MVTec published at {archive}"
        ) from None


# -- unpack --------------------------------------------------------------------------------------------


def _unpack(archive: Path, folder: Path, categories: Sequence[str]) -> None:
    """Unpack categories to a hidden folder beside their places, and move them there when all are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder)).resolve()
    try:
        with (
            archive.open("rb") as stream,
            downloads.reading_with_bar(stream, "MVTec AD, unpacking") as reader,
        ):
            with tarfile.open(fileobj=reader, mode="r|xz", tarinfo=_Member) as tar:
                n_members = n_bytes = 0
                for member in tar:
                    n_members, n_bytes = n_members + 1, n_bytes + member.size
                    _check_size(member, n_members, n_bytes)
                    _unpack_member(tar, member, temporary, categories)
        for category in categories:
            if not (temporary / category / "train" / "good").is_dir():
                raise ValueError(f"it holds no {category}/train/good")
        for category in categories:
            os.replace(temporary / category, folder / category)
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{archive} cannot be unpacked ({error}): delete it, and run this again"
        ) from error
    except OSError as error:
        if error.errno not in NAMES_REFUSED:
            raise  # a full disk is not the archive's fault
        raise ValueError(
            f"{archive} cannot be unpacked ({error.strerror}: one of its names): delete it, and run this again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Member(tarfile.TarInfo):
    """A member of the archive whose size is looked at before anything of it is read; tarfile reads a long name into memory at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        _check_size(member)
        return member


def _check_size(member: tarfile.TarInfo, n_members: int = 1, n_bytes: int = 0) -> None:
    """Refuse a member that MVTec AD cannot have, being the `n_members`-th, with `n_bytes` in all members up to it."""
    for what, size, most in (
        (f"its member {member.name!r} has {member.size} bytes", member.size, MOST_BYTES_OF_ONE),
        (f"it has {n_members} members or more", n_members, MOST_MEMBERS),
        (f"it unpacks to {n_bytes} bytes or more", n_bytes, MOST_BYTES),
    ):
        if not 0 <= size <= most:
            raise ValueError(f"unsafe: {what}, at most {most} are expected")


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, wanted: Sequence[str]
) -> None:
    """Write a member of the archive if it belongs to one of the categories.

    Only plain files are written, and of them only the content, so no link can lead out of `folder`. This is
    stricter than tarfile's own "data" filter, and the same in Pythons too old to have that.
    """
    target = (folder / member.name).resolve()
    if not target.is_relative_to(folder) or ".." in Path(member.name).parts:
        raise ValueError(f"unsafe: its member {member.name!r} leads out of the folder")
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"unsafe: its member {member.name!r} is a link or a device")
    if member.isfile() and target.relative_to(folder).parts[:1] in {
        (category,) for category in wanted
    }:
        target.parent.mkdir(parents=True, exist_ok=True)
        content = tar.extractfile(member)
        assert content is not None  # it is a file
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
