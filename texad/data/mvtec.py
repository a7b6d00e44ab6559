"""MVTec AD: download once, check, unpack.

The archive has 4.9 GB, so a download that was cut off is resumed, and only the categories asked for
are unpacked. The archive is kept, so that another category needs no second download.

MVTec AD, a comprehensive real-world dataset for unsupervised anomaly detection, Bergmann et al.,
CVPR 2019.
"""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from texad.io import download as downloads

URL = (
    "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
    "420938113-1629960298/mvtec_anomaly_detection.tar.xz"
)
SHA256 = "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"
LICENCE = (
    "MVTec AD (4.9 GB) by MVTec Software GmbH, licensed under CC BY-NC-SA 4.0: for research and "
    "teaching, not for commercial use. https://creativecommons.org/licenses/by-nc-sa/4.0/"
)
ARCHIVE = "mvtec_anomaly_detection.tar.xz"
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = tuple(
    "bottle cable capsule hazelnut metal_nut pill screw toothbrush transistor zipper".split()
)
CATEGORIES = tuple(sorted(TEXTURES + OBJECTS))


def prepare(folder: Path, categories: Sequence[str]) -> None:
    """Unpack categories from the archive, which is downloaded unless it lies beside `folder`.

    Parameters
    ----------
    folder : Path
        A category becomes `folder`/<category>; one that is there already is left alone.
    categories : sequence of str
        Some of `CATEGORIES`.

    Raises
    ------
    ConnectionError
        If the archive cannot be downloaded; the message says what to do without a network.
    ValueError
        If the archive is not the one that MVTec published, or a category's folder is there but
        incomplete.
    """
    missing = [name for name in categories if not (folder / name / "train" / "good").is_dir()]
    for incomplete in (folder / name for name in missing if (folder / name).exists()):
        raise ValueError(
            f"{incomplete} has no train/good: complete it, or move it away to have it unpacked"
        )
    if not missing:
        return
    archive = folder.parent / ARCHIVE
    if not archive.exists():
        print(LICENCE)
        try:
            downloads.download(URL, archive, SHA256, "MVTec AD")
        except (ConnectionError, ValueError) as error:
            raise type(error)(
                f"MVTec AD could not be downloaded ({error}): run this again with a network, or "
                f"put {URL} at {archive}, or the unpacked categories at {folder / missing[0]} and "
                "so on"
            ) from error
    elif downloads.hash_with_bar(archive, "MVTec AD") != SHA256:
        raise ValueError(
            f"{archive} is not the archive that MVTec published (its SHA-256 is wrong): delete it "
            "to have it downloaded"
        )
    _unpack(archive, folder, missing)
    print(f"{archive} may be deleted now; it is needed for further categories only.")


def _unpack(archive: Path, folder: Path, categories: Sequence[str]) -> None:
    """Unpack categories to a hidden folder, and move them to their places when all are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
    try:
        with (
            archive.open("rb") as stream,
            downloads.reading_with_bar(stream, "MVTec AD, unpacking") as reader,
            tarfile.open(fileobj=reader, mode="r|xz") as tar,
        ):
            # Old patch versions of Python know no filter; the archive's SHA-256 was checked anyway.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            for member in tar:
                if PurePosixPath(member.name).parts[:1] in {(name,) for name in categories}:
                    tar.extract(member, temporary)
        for category in categories:
            if not (temporary / category / "train" / "good").is_dir():
                raise ValueError(f"it holds no {category}/train/good")
        for category in categories:
            os.replace(temporary / category, folder / category)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(
            f"{archive} cannot be unpacked ({error}): delete it, and run this again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
