"""A source of labels: its files, the images that it names, and what is found on the way.

This is the one place that turns a name in a table or an annotation into the path of an image.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from texad.data.convert.marks import Labels, Mark
from texad.data.names import BAD, MASKS, NEUTRAL, masks_beside, plain
from texad.data.walking import SUFFIXES, is_image, passed_over, walk
from texad.errors import DataError

# What identifies a kind of JSON: keys that its object, or the first of its list, has.
KEYS = {
    "coco": [{"images", "annotations"}],
    "labelme": [{"shapes", "imagePath"}],
    "via": [{"_via_img_metadata"}, {"filename", "regions"}, {"filename", "region_attributes"}],
    "label-studio": [{"data", "annotations"}, {"annotation_id", "annotator"}],
}
FOLDERS = ("", "images", "JPEGImages")  # of images, beside annotations
ROOTS = {"annotations": "cvat", "annotation": "voc"}  # of an XML


@dataclass
class Source:
    """What is imported.

    Attributes
    ----------
    path : Path
        A file or a folder, absolute.
    labels : Labels
    image_folder : Path or None
        Where the user says that the images are.
    columns : tuple of str or None
        Columns of paths, labels and masks that the user names.
    moved : dict of str to Path
        Names that lead elsewhere, and the images that were taken for them.
    """

    path: Path
    labels: Labels
    image_folder: Path | None = None
    columns: tuple[str | None, ...] = (None, None, None)
    moved: dict[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The source itself, or the folder of the file that it is."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def top(self) -> Path:
        """The folder around the images."""
        return self.image_folder or self.folder

    # -- images ------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> list[Path]:
        """Files of the folder and those below it, see `walking.walk`."""
        return [file for _, _, below in walk(self.folder) for file in below]

    @cached_property
    def images(self) -> list[Path]:
        """Images, if there are any; pictures of a format that is not read are noted."""
        files = [file for _, _, below in walk(self.top) for file in below]
        self.labels.notes += [
            f"{count} of {suffix} passed over: convert what is to be used to PNG"
            for suffix, count in passed_over(file.name for file in files).items()
        ]
        return [file for file in files if is_image(file.name)]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Images by their names, whole, without ending, and without the number of an upload."""
        tops = [self.top]
        if self.path.is_file() and (self.folder.parent / "images").is_dir():
            tops.append(self.folder.parent / "images")
        files = (file for top in tops for _, _, below in walk(top) for file in below)
        found: dict[str, list[Path]] = {}
        for file in {file.resolve(): file for file in files if is_image(file.name)}.values():
            for name in {file.name.casefold(), file.stem.casefold()}:
                found.setdefault(name, []).append(file)
        return found

    def find(
        self,
        name: str,
        where: str,
        roots: Sequence[Path],
        *,
        absolute: bool = False,
        of_image: Path | None = None,
    ) -> Path:
        """Find the image that a table or an annotation means.

        Parameters
        ----------
        name : str
            A path with slashes or backslashes, or the end of an address. Where it leads elsewhere,
            its last part decides if only one image of the source is called so, or if only one is in
            folders of the same names, too.
        where : str
            Where it is said.
        roots : sequence of Path
            Where relative paths may start, tried in turn.
        absolute : bool, default False
            Whether any other file of this machine is allowed, too.
        of_image : Path or None
            What is looked for is the mask of this image.

        Raises
        ------
        DataError
            A ValueError: there is no such image, or there are several.
        """
        if found := existing(name, roots, self.folder, absolute):
            return found
        parts = [part.casefold() for part in PureWindowsPath(name.strip()).parts]
        base = parts[-1] if parts else ""
        names = (base, re.sub("^[0-9a-f]{8}-", "", base), base.rpartition(".")[0])
        files = next((self._by_name[each] for each in names if each in self._by_name), [])
        depth = len(self.top.parts)
        same: dict[int, list[Path]] = {}  # by the number of folders that are the same, from the end
        for file in files:
            folders = [part.casefold() for part in file.parts[:-1]]
            if file != of_image and (of_image or not MASKS & set(map(plain, folders[depth:]))):
                pairs = zip(parts[-2::-1], folders[::-1], strict=False)
                n_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                same.setdefault(n_same, []).append(file)
        nearest = same[max(same)] if same else []
        if len(nearest) > 1:
            raise DataError(
                f"{where}: {name!r} may be {nearest[0]} or {nearest[1]}: say which folder is meant "
                "by --images FOLDER, or rename one of the two"
            )
        if not nearest:
            raise missing(name, where, roots, absolute=absolute)
        if nearest[0].name.casefold() != base or len(parts) > 1:
            self.moved[name] = nearest[0]
        return nearest[0]

    def roots(self, file: Path, subset: str = "") -> list[Path]:
        """Where the images of a file of annotations may be, those of its subset first."""
        around = [top / name for top in (file.parent, file.parent.parent) for name in FOLDERS]
        wide = around
        if self.image_folder:  # of several files, each has its own images
            around = [self.image_folder]
            wide = [self.image_folder, *([] if self.path.is_file() else [self.image_folder.parent])]
        words = [subset] if subset else file.stem.split("_")
        names = [*("_".join(words[i:]) for i in range(len(words))), *words]
        folders = [top / name for top in wide for name in names if name]
        return [folder for folder in folders if folder.is_dir()] + around

    # -- what is said of them ----------------------------------------------------------------------

    def judged(self, path: Path, where: str, marks: Sequence[Mark]) -> list[Mark]:
        """Keep the marks of an image that speak of defects; if none does, it is good.

        An image of which nothing is said is not good if it is in a folder of bad ones, or in any
        other than that of the good ones, if there is such a folder.
        """
        if defects := [mark for mark in marks if mark.defect != "good"]:
            return defects
        is_below = path.is_relative_to(self.top)
        names = path.relative_to(self.top).parent.parts if is_below else path.parts[-2:-1]
        known = BAD if not self._is_sorted else {*map(plain, names)} - NEUTRAL
        bad = [name for name in names if plain(name) in known]
        is_bad = bad and not marks and not any(map(self.labels.is_good, names))
        return [Mark(path, self.labels.defect(bad[-1]) if is_bad else "good", where)]

    @cached_property
    def _is_sorted(self) -> bool:
        """Whether some of the images are in a folder of good ones."""
        folders = {file.relative_to(self.top).parent for file in self.images}
        return any(self.labels.is_good(name) for folder in folders for name in folder.parts)

    def others(self, marks: Sequence[Mark], are_good: bool) -> list[Mark]:
        """Note the images that nothing is said of: they are taken for good, or passed over."""
        named = {mark.path.resolve() for mark in marks}
        masks = masks_beside(self.images)
        left = [
            file
            for file in self.images
            if file not in masks
            and file.resolve() not in named
            and not any(plain(name) in MASKS for name in file.relative_to(self.top).parts[:-1])
        ]
        if left:
            what = "taken for good, except in folders of bad ones" if are_good else "passed over"
            self.labels.notes.append(
                f"{len(left)} images without annotation {what}, such as {left[0].name}"
            )
        return [mark for file in left if are_good for mark in self.judged(file, str(file), ())]

    # -- documents ---------------------------------------------------------------------------------

    def documents(self, kind: str) -> Iterator[tuple[Path, Any]]:
        """Read the files of annotations that are of a kind; those of others are passed over.

        Raises
        ------
        DataError
            A ValueError: a file is damaged, or there is none of the kind.
        """
        n_read = 0
        for file in self._document_files():
            content = read_document(file)
            if kind_of(content) == kind or file == self.path:
                n_read += 1
                yield file, content
        if not n_read:
            raise DataError(
                f"{self.path} holds no file of {kind}, also in its sub-folders: name it"
            )

    def kind(self) -> str:
        """Kind of the first document that is of a known one; empty if there is none."""
        for file in self._document_files():
            with suppress(*([] if file == self.path else [DataError, OSError])):
                if found := kind_of(read_document(file)):
                    return found
        return ""

    def _document_files(self) -> list[Path]:
        files = [self.path] if self.path.is_file() else self.files
        return [file for file in files if file.suffix.lower() in (".json", ".xml")]


def existing(
    name: str, roots: Sequence[Path], folder: Path | None = None, absolute: bool = False
) -> Path | None:
    """Find an image where a path leads, with slashes or backslashes, from the first root possible.

    Parameters
    ----------
    name : str
    roots : sequence of Path
        Where the path may start; it may not lead out of there.
    folder : Path or None
        But into this one it may.
    absolute : bool, default False
        Whether it may be the absolute path of any file.
    """
    windows = PureWindowsPath(name.strip())
    for root in roots if is_image(windows.name) else ():
        for each in (name.strip(), windows.as_posix()):
            file = Path(os.path.normpath(root / each))
            is_within = any(file.is_relative_to(top) for top in (root, folder) if top)
            if (is_within or absolute and ".." not in windows.parts) and file.is_file():
                return file
    return None


def missing(
    name: str,
    where: str,
    roots: Sequence[Path],
    hint: str = "say where the images are by --images FOLDER",
    absolute: bool = False,
) -> DataError:
    """What to raise if there is no image where a path leads."""
    windows = PureWindowsPath(name.strip())
    if ".." in windows.parts or ((windows.drive or windows.root) and not absolute):
        return DataError(
            f"{where}: {name!r} leads out of the folder of the images, and no image in it is "
            f"called {windows.name!r}: {hint}"
        )
    if not is_image(windows.name):
        return DataError(
            f"{where}: {name!r} is no image by its name ({', '.join(SUFFIXES)}): convert it to "
            "PNG, or remove the entry"
        )
    return DataError(
        f"{where}: there is no file {name!r} in {' or '.join(map(str, roots))}: {hint}"
    )


def kind_of(content: Any) -> str:
    """Tell which kind of annotations a document holds; empty if it is of no known kind.

    Examples
    --------
    >>> kind_of({"images": [], "annotations": [], "categories": []})
    'coco'
    """
    if isinstance(content, ElementTree.Element):
        return ROOTS.get(content.tag, "")
    first = content[:1] if isinstance(content, list) else [content]
    first += [*content.values()][:1] if isinstance(content, dict) else []
    keys = [set(each) for each in first if isinstance(each, dict)]
    kinds = (kind for kind, known in KEYS.items() for each in known if any(each <= k for k in keys))
    return next(kinds, "")


def read_document(file: Path) -> Any:
    """Read a JSON, or the root of an XML.

    Raises
    ------
    DataError
        A ValueError: it is none.
    """
    try:
        text = read_text(file)
        if file.suffix.lower() != ".xml":
            # NaN and the like are read as text, which is no number.
            return json.loads(text, parse_constant=str)
        if "<!ENTITY" in text:  # which could fill the memory
            raise ValueError("it defines entities")
        return ElementTree.fromstring(text.encode())
    except (ValueError, RecursionError, ElementTree.ParseError) as error:
        what = file.suffix[1:].upper()
        raise DataError(f"{file} is no {what} ({error}): export it again") from None


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


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what goes wrong with damaged content into a DataError that says where it is."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
        raise DataError(f"{where} {what}: correct it, or export it again") from None


def numbers(values: Iterable[Any]) -> list[float]:
    """Coordinates as floats.

    Raises
    ------
    ValueError
        One is no number, or far too large to be a coordinate.
    """
    found = [float(value) for value in values]
    if not all(abs(value) <= 1e9 for value in found):
        raise ValueError("a coordinate is no number, or beyond 1e9")
    return found


def file_name(address: str) -> str:
    """The path in an address such as "/data/local-files/?d=images/a%20b.png".

    Examples
    --------
    >>> file_name("/data/local-files/?d=images/a%20b.png")
    'images/a b.png'
    """
    return unquote(address).rpartition("?d=")[2].partition("?")[0]


def frame_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Size of an image as a document says it; None if it says none."""
    return (int(width), int(height)) if width and height else None
