"""What is said of images: one `Mark` for each thing said of one image.

Each reader (`folders`, `table`, `coco`, ...) lists the marks of a `source.Source`, and `category`
makes a category of them. No image is opened here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from texad.data.convert.outlines import Polygon, Runs
from texad.data.names import GOOD, clean, plain
from texad.errors import DataError


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
    shapes : tuple of Polygon, Runs or Path
        Where the defect is, all in all; a path is that of a mask.
    frame : (int, int) or None
        Width and height of the image as the source knows it; None if it does not say.
    split : str
        "train", "validation" or "test", if the source says more than the image's path does.
    category : str
        The object that the image shows, if the source has several.
    """

    path: Path
    defect: str
    where: str
    shapes: tuple[Polygon | Runs | Path, ...] = ()
    frame: tuple[int, int] | None = None
    split: str = ""
    category: str = ""


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
