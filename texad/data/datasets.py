"""Images on disk, in the layout of MVTec AD.

A category is one kind of surface: defect-free images to learn from, and test images with a folder
for each kind of defect::

    <category>/train/good/*                         defect-free
    <category>/test/good/*                          defect-free
    <category>/test/<defect>/*                      defective
    <category>/ground_truth/<defect>/<stem>_mask.*  where the defect is

A mask may also be called `<stem>`, `<stem>_GT` or `<stem>_label`, or there may be a folder `<stem>`
of several masks, as in MVTec LOCO AD.

A data set is a folder of categories. Two are known by name: "synthetic" is drawn on the spot,
"mvtec" is downloaded once. What comes after this module sees paths and labels; `texad.io.images`
makes RGB images of them, whatever the files are like. Nothing is opened here: which files can be
read at all, `screening.readable` finds out.

MVTec AD, a comprehensive real-world dataset for unsupervised anomaly detection, Bergmann et al.,
CVPR 2019.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from texad.data import mvtec, synthetic
from texad.data.names import masks_beside, unmatched
from texad.data.walking import SUFFIXES, is_image, passed_over, walk
from texad.errors import DataError, did_you_mean
from texad.io.atomic import sha256
from texad.io.paths import data_root

EMBEDDED = ("synthetic", "mvtec")


@dataclass(frozen=True)
class Sample:
    """One image of a category.

    Attributes
    ----------
    path : Path
        Absolute.
    split : str
        "train" or "test".
    defect : str
        "good", or the name of the defect's folder.
    label : int
        0 normal, 1 anomalous.
    mask : Path or None
        The ground truth, a file or a folder of files; None for good images, and for defective ones
        without mask.
    """

    path: Path
    split: str
    defect: str
    label: int
    mask: Path | None


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out.

    Attributes
    ----------
    sample : Sample
    reason : str
        What is wrong with the image or its mask, in a few words.
    """

    sample: Sample
    reason: str


@dataclass(frozen=True)
class Category:
    """The images of one kind of surface.

    They are in natural order (2 before 10), the test images by defect first.

    Attributes
    ----------
    dataset : str
        "synthetic", "mvtec", or the name of the data set's folder.
    name : str
        Of the category.
    root : Path
        Absolute; holds train and test.
    train, test : tuple of Sample
    unreadable : tuple of Unreadable
        What `screening.readable` left out of them; until then, empty.
    notes : tuple of str
        What the user should know: files that were passed over.
    """

    dataset: str
    name: str
    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    unreadable: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()


# -- which data sets and categories there are ------------------------------------------------------


def is_embedded(dataset: str | Path) -> bool:
    """Tell the names "synthetic" and "mvtec" from a folder; a `Path` is always a folder."""
    return dataset in EMBEDDED


def name(dataset: str | Path) -> str:
    """Name of a data set: "synthetic", "mvtec", or the folder's own.

    Raises
    ------
    FileNotFoundError
        If there is no such data set.
    """
    return _folder(dataset).name


def categories(dataset: str | Path) -> list[str]:
    """List the categories that "all" stands for, sorted. Nothing is made or downloaded.

    Parameters
    ----------
    dataset : str or Path
        "synthetic" or "mvtec" (five textures each), or a folder (its sub-folders that hold
        `train/good`).

    Raises
    ------
    DataError
        A ValueError: the folder holds no category, or is one itself.
    FileNotFoundError
        If there is no such data set.
    """
    if is_embedded(dataset):
        return sorted(mvtec.TEXTURES)  # which the synthetic ones are called after
    folder = _folder(dataset)
    names = sorted(
        sub.name
        for sub in folder.iterdir()
        if _train(sub).is_dir() and not sub.name.startswith(".")
    )
    if not names and _train(folder).is_dir():
        raise DataError(
            f"{folder} is itself a category: pass its parent {folder.parent} as the data set and "
            f"{folder.name!r} as the category"
        )
    if not names:
        raise DataError(
            f"{folder} holds no category: put defect-free images into {_train(folder / 'NAME')}"
        )
    return names


def select(dataset: str | Path, category: str) -> list[str]:
    """Turn what the user asked for into names of categories. Nothing is made or downloaded.

    Parameters
    ----------
    dataset : str or Path
        "synthetic", "mvtec", or a folder.
    category : str
        "all", a name, or names with commas between. Of MVTec AD any of its 15 categories may be
        named, while "all" stands for the five textures.

    Returns
    -------
    list of str
        Each name once; in the order given, or sorted for "all".

    Raises
    ------
    DataError
        A ValueError: a category is unknown; one line lists those there are, and the nearest name.
    FileNotFoundError
        If there is no such data set.
    """
    listed = categories(dataset)
    known = list(mvtec.CATEGORIES) if dataset == "mvtec" else listed
    if category == "all":
        return listed
    # The name of a folder may have a comma in it. Only listed names pass: none leads out of the
    # data set.
    names = [category] if category in known else [part.strip() for part in category.split(",")]
    for unknown in (each for each in names if each not in known):
        hint = did_you_mean(unknown, known)
        if not is_embedded(dataset) and unknown in os.listdir(_folder(dataset)):
            hint = f" (there is no folder {_train(_folder(dataset) / unknown)})"
        raise DataError(
            f"{name(dataset)} has no category {unknown!r}{hint}: choose from {', '.join(known)}"
        )
    return list(dict.fromkeys(names))


def prepare(dataset: str | Path, names: Sequence[str]) -> None:
    """Make or download the categories that are not on disk yet; a folder needs nothing.

    Parameters
    ----------
    dataset : str or Path
    names : sequence of str
        As `select` returns them.

    Raises
    ------
    ConnectionError, ValueError, FileExistsError
        See `texad.data.mvtec.prepare` and `texad.data.synthetic.write`.
    """
    if dataset == "synthetic":
        for category in names:
            synthetic.write(_folder(dataset), category, seed=0, progress=True)
    elif dataset == "mvtec":
        mvtec.prepare(_folder(dataset), names)


def _folder(dataset: str | Path) -> Path:
    if is_embedded(dataset):
        return data_root() / dataset
    folder = Path(dataset).expanduser().resolve()
    if str(dataset) and folder.is_dir():
        return folder
    hint = did_you_mean(Path(dataset).name, EMBEDDED)
    raise FileNotFoundError(
        f"data set {str(dataset)!r} is no folder{hint}: choose synthetic, mvtec, or a folder whose "
        "sub-folders hold train/good"
    )


def _train(root: Path) -> Path:
    return root / "train" / "good"


# -- the images of a category ----------------------------------------------------------------------


def load_category(dataset: str | Path, category: str) -> Category:
    """List the images of a category, making or downloading it first if it is missing.

    Images and masks are the files whose names end as `walking.SUFFIXES` says, in upper or lower
    case. Hidden files are passed over, and so are pictures of other formats and masks without an
    image: the last two are noted.

    Parameters
    ----------
    dataset : str or Path
        "synthetic", "mvtec", or a folder.
    category : str
        One name.

    Raises
    ------
    DataError
        A ValueError: there is no such category, its `train/good` or `test` has no images, a folder
        of good test images is not called `good`, images have masks beside them, or a folder may
        not be listed.
    FileNotFoundError
        If there is no such data set.
    ConnectionError
        If MVTec AD is neither on disk nor can be downloaded.

    Examples
    --------
    >>> import tempfile
    >>> folder = synthetic.write(tempfile.mkdtemp(), "wood", n_train=3, n_good=2, size=64)
    >>> category = load_category(folder.parent, "wood")
    >>> len(category.train), category.test[0].defect, category.test[0].label
    (3, 'color', 1)
    """
    names = select(dataset, category)
    if len(names) > 1:
        raise DataError(
            f"only one category can be loaded, not {category!r}: choose from {', '.join(names)}"
        )
    prepare(dataset, names)
    root = _folder(dataset) / names[0]
    train = _samples(root, "train", "good")
    folder = root / "test"
    defects = next(walk(folder))[1] if folder.is_dir() else []
    test = [sample for defect in defects for sample in _samples(root, "test", defect)]
    if not train:
        raise DataError(
            f"{_train(root)} has no images: put defect-free ones there ({', '.join(SUFFIXES)})"
        )
    for misnamed in (each for each in defects if each.strip().lower() == "good" != each):
        raise DataError(
            f"{folder / misnamed} would count as a kind of defect: rename it to good, or give "
            "the defect another name"
        )
    if not test:
        raise DataError(
            f"{folder} has no images in sub-folders: put defect-free ones into {folder / 'good'}, "
            f"defective ones into a folder for each kind of defect; or bring what you have into "
            "this layout by texad import"
        )
    samples = (*train, *test)
    pairs = masks_beside(sample.path for sample in samples)
    for mask, image in pairs.items():
        raise DataError(
            f"{mask} seems to be the mask of {image.name}, and no image to learn from or to judge: "
            "bring them into this layout by texad import, or rename one of the two"
        )
    return Category(
        *(name(dataset), names[0], root, tuple(train), tuple(test)),
        notes=tuple(_notes(root, samples)),
    )


def _notes(root: Path, samples: Sequence[Sample]) -> list[str]:
    """What was passed over: pictures that are not read, and masks that match no image."""
    drawn, truth = {sample.mask for sample in samples}, root / "ground_truth"
    found = [file for _, _, files in walk(truth) for file in files] if truth.is_dir() else []
    left = [
        file
        for file in found
        if is_image(file.name)
        and file.relative_to(truth).parts[0] != "good"
        and not {file, file.parent} & drawn
    ]
    notes = [unmatched(left)] if left else []
    for folder in dict.fromkeys(sample.path.parent for sample in samples):
        others = passed_over(file.name for file in next(walk(folder))[2])
        notes += [f"{n} of {ending} in {folder} passed over" for ending, n in others.items()]
    return notes


def fingerprint(category: Category, table: Path | None = None) -> str:
    """SHA-256 over names and contents of all images and masks, in hexadecimal.

    Names are relative to the category's folder, so a copy elsewhere has the same fingerprint. What
    was left out as unreadable counts, too: once it is repaired, the data are others.

    Parameters
    ----------
    category : Category
    table : Path or None
        The table of groups, see `groups.table_file`; it counts, too.
    """
    samples = (
        category.train + category.test + tuple(left_out.sample for left_out in category.unreadable)
    )
    files = {sample.path for sample in samples}
    for mask in filter(None, (sample.mask for sample in samples)):
        files |= {*mask.iterdir()} if mask.is_dir() else {mask}
    lines = sorted(
        f"{file.relative_to(category.root).as_posix()}\0{_content(file)}\n" for file in files
    )
    if table:
        lines.append(f"groups\0{_content(table)}\n")
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def _content(file: Path) -> str:
    """SHA-256 of a file; "unreadable" if it cannot be opened, or is a pipe or a device."""
    try:
        return sha256(file) if file.is_file() else "unreadable"
    except OSError:
        return "unreadable"


def _samples(root: Path, split: str, defect: str) -> list[Sample]:
    drawn = root / "ground_truth" / defect
    masks: dict[str, Path] = {}
    if defect != "good" and drawn.is_dir():
        _, below, files = next(walk(drawn))
        masks = {name: drawn / name for name in below}
        masks |= {file.stem: file for file in reversed(files) if is_image(file.name)}
    endings = ("_mask", "", "_GT", "_gt", "_Label", "_label")
    return [
        Sample(
            path,
            split,
            defect,
            label=int(defect != "good"),
            mask=next((masks[name] for end in endings if (name := path.stem + end) in masks), None),
        )
        for path in _images(root / split / defect)
    ]


def _images(folder: Path) -> list[Path]:
    # A broken link is among them: it is to fail when it is read, not to go missing.
    files = next(walk(folder))[2] if folder.is_dir() else []
    return [file for file in files if is_image(file.name)]
