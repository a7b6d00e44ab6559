"""What the names of folders and labels say of an image."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

# As `plain` writes them: in small letters, without what is between the words.
GOOD = frozenset(
    "good ok okay normal defectfree nodefect nodefects nondefective pass passed".split()
)
# In a column that says whether there is a defect; 00 is 0.0.
GOOD_CELLS = GOOD | {"0", "00", "false", "no", "none"}
YES = frozenset("1 10 true yes".split())
BAD = frozenset(
    "bad ng nok notok nogood notgood defect defects defective anomaly anomalies anomalous abnormal "
    "fail failed reject rejected".split()
)
# Names of folders, and cells of a column, that say which part of a split something belongs to.
SPLITS = {
    **dict.fromkeys("train training learn".split(), "train"),
    **dict.fromkeys("val valid validation dev".split(), "validation"),
    **dict.fromkeys("test testing testpublic".split(), "test"),
}
# These say nothing of what is in a folder.
NEUTRAL = frozenset(SPLITS) | set(
    "testprivate testprivatemixed image images img imgs jpegimages data".split()
)
MASKS = frozenset("mask masks groundtruth gt".split())
MASK_ENDING = re.compile(r"[-_ .](mask|gt|label|groundtruth|ground_truth)$", re.IGNORECASE)
MOST_BYTES = 120  # of a name: with what is put before and after it, every file system takes it


def plain(label: str) -> str:
    """Label in small letters, without spaces, dashes and the like.

    Examples
    --------
    >>> plain("Defect-free")
    'defectfree'
    """
    return re.sub(r"[\W_]", "", label.casefold())


def clean(name: str) -> str:
    """Name for a file or folder that every system allows, and that is not hidden.

    Examples
    --------
    >>> clean("cut: 3/4")
    'cut_ 3_4'
    """
    name = unicodedata.normalize("NFC", name)
    name = "".join(
        letter if letter.isprintable() and letter not in '/\\:*?"<>|' else "_" for letter in name
    )
    while len(name.encode()) > MOST_BYTES:
        name = name[1:]  # the end tells more: that is where numbers are
    return name.strip(" .") or "_"


def split_of(names: Sequence[str]) -> str:
    """Part of a split that the first telling name stands for; empty if none tells.

    Examples
    --------
    >>> split_of(["images", "val2017", "good"])
    'validation'
    """
    parts = (SPLITS.get(plain(name).rstrip("0123456789"), "") for name in names)
    return next(filter(None, parts), "")


def image_stem(stem: str) -> str:
    """Stem of the image that a mask belongs to.

    Examples
    --------
    >>> image_stem("10000_GT"), image_stem("10000")
    ('10000', '10000')
    """
    return MASK_ENDING.sub("", stem)


def masks_beside(files: Iterable[Path]) -> dict[Path, Path]:
    """Masks that have their image beside them, each with this image.

    Examples
    --------
    >>> masks_beside([Path("a/1.jpg"), Path("a/1_label.bmp"), Path("a/2_mask.png")])
    {PosixPath('a/1_label.bmp'): PosixPath('a/1.jpg')}
    """
    files = list(files)
    by_stem = {(file.parent, file.stem.casefold()): file for file in files}
    found = {}
    for file in files:
        image = by_stem.get((file.parent, image_stem(file.stem).casefold()))
        if image and image_stem(file.stem) != file.stem:
            found[file] = image
    return found


def unmatched(masks: Sequence[Path]) -> str:
    """Note on masks that belong to no image, for instance since they are named in another way."""
    names = " and ".join(str(Path(*mask.parts[-3:])) for mask in masks[:2])
    return f"{len(masks)} mask files match no image by their names, such as {names}"
