"""What is said of images: one `Mark` for each thing said of one image.

Each reader (`folders`, `table`, `coco`, `yolo`) lists marks; `category` makes a category of them.
No image is opened here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from texad.data.convert.outlines import Polygon, Runs
from texad.data.names import GOOD, clean, plain
from texad.data.walking import SUFFIXES, is_image, walk
from texad.errors import DataError

# Formats of pictures that are not read: worth a note, unlike other files.
OTHER_PICTURES = ".webp .gif .heic .avif .jp2 .raw .dng .pgm .ppm .npy".split()


@dataclass(frozen=True)
class Mark:
    """One thing that is said of one image.

    Attributes
    ----------
    path : Path
        The image.
    defect : str
        "good", or the kind of defect: a name that a folder may have.
    where : str
        Where it is said.
    shapes : tuple of Polygon or Runs, or Path
        Where the defect is, all in all; a path is that of a mask.
    frame : (int, int) or None
        Width and height of the image as the source knows it; None if it does not say.
    """

    path: Path
    defect: str
    where: str
    shapes: tuple[Polygon | Runs, ...] | Path = ()
    frame: tuple[int, int] | None = None


@dataclass
class Labels:
    """Which labels are good, and what the others are called.

    Attributes
    ----------
    named : sequence of str
        Those that the user calls good, in upper or lower case; if there are none, `usual` holds.
    usual : frozenset of str
        As `names.plain` writes them.
    good, bad : Counter of str
        The labels that occurred, and how often.
    notes : list of str
        What the user should know of how the source was read.
    """

    named: Sequence[str] = ()
    usual: frozenset[str] = GOOD
    good: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    _spelt: dict[str, str] = field(default_factory=dict)

    def is_good(self, label: str) -> bool:
        """Tell whether a label means that there is no defect."""
        if self.named:
            return label.strip().casefold() in {name.strip().casefold() for name in self.named}
        return plain(label) in self.usual

    def defect(self, label: str) -> str:
        """Count a label, and return `good` or its name for a folder.

        Labels that differ only in upper and lower case are one.

        Raises
        ------
        DataError
            The label is called good, but the user named others.
        """
        is_good = self.is_good(label)
        (self.good if is_good else self.bad)[label] += 1
        if is_good:
            return "good"
        name = clean(label)
        if name.casefold() == "good":
            raise DataError(
                f"label {label!r} is not among those named as good: name it, too, or call it "
                "something else"
            )
        return self._spelt.setdefault(name.casefold(), name)

    def listed(self) -> str:
        """The labels that occurred, for a message."""
        return (
            ", ".join(
                f"{label} ({count})" for label, count in (self.good + self.bad).most_common(20)
            )
            or "none"
        )


def read_text(file: Path) -> str:
    """Read a file of labels, in UTF-8 with or without a byte order mark.

    Raises
    ------
    DataError
        A ValueError: it is in another encoding.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file} is no text in UTF-8: save it as UTF-8") from None


def images(folder: Path, labels: Labels) -> list[Path]:
    """List the images of a folder and those below it, see `walking.walk`.

    Pictures of a format that is not read are noted in `labels`.

    Raises
    ------
    DataError
        A ValueError: there is none.
    """
    files = [file for _, _, below in walk(folder) for file in below]
    labels.notes += [
        f"{count} of {suffix} passed over: convert what is to be used to PNG"
        for suffix, count in Counter(file.suffix.lower() for file in files).items()
        if suffix in OTHER_PICTURES
    ]
    if not (found := [file for file in files if is_image(file.name)]):
        raise DataError(
            f"{folder} holds no image, and neither do its sub-folders ({', '.join(SUFFIXES)})"
        )
    return found


def find(
    name: str,
    roots: Iterable[Path],
    where: str,
    absolute: bool = False,
    hint: str = "say where the images are by --images FOLDER",
) -> Path:
    """Find the image that a table or an annotation means.

    Parameters
    ----------
    name : str
        A path, with slashes or backslashes, relative to one of `roots`.
    roots : iterable of Path
        Tried in turn.
    where : str
        Where it is said.
    absolute : bool, default False
        Whether any other file of this machine is allowed, too.
    hint : str, optional
        What to do if there is no such file.

    Raises
    ------
    DataError
        A ValueError: there is no such file, it leads out of the roots, or its name is not that of
        an image.
    """
    name, roots = name.strip(), list(roots)
    windows = PureWindowsPath(name)
    if ".." in windows.parts or ((windows.drive or windows.root) and not absolute):
        raise DataError(
            f"{where}: {name!r} leads out of the folder of the images: write a path that starts in "
            "it"
        )
    if not is_image(windows.name):
        raise DataError(
            f"{where}: {name!r} is no image by its name ({', '.join(SUFFIXES)}): convert it to "
            "PNG, or remove the entry"
        )
    for file in (root / each for root in roots for each in (name, windows.as_posix())):
        if file.is_file():
            return file
    raise DataError(f"{where}: there is no file {name!r} in {' or '.join(map(str, roots))}: {hint}")
