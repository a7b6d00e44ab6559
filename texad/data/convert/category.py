"""From the layouts that people have to the one that this package reads: MVTec AD's, see `datasets`.

A split of the source is kept. If it has none, some of the good images are kept for testing, and
all the others are for learning; every defective image is for testing. Where a defect is drawn, in
whatever way, it becomes a mask: a PNG of the image's size, upright as the image is shown. Images
are copied as they are, or linked.
"""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path

import numpy as np

from texad.data import splitting
from texad.data.convert import recognise
from texad.data.convert.marks import Labels, Mark
from texad.data.convert.outlines import Polygon
from texad.data.convert.source import Source
from texad.data.convert.table import GROUPS
from texad.data.convert.writing import Entry, write, write_groups
from texad.data.names import GOOD, GOOD_CELLS, clean, image_stem, split_of
from texad.data.screening import screen
from texad.data.walking import SUFFIXES, natural
from texad.errors import DataError, check_choice, check_range, printable
from texad.io.atomic import filling
from texad.io.images import check_image

COMBINED = "combined"  # as MVTec AD calls images with several kinds of defect
MOST_NOTES = 20  # of one sort
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes
    ----------
    root : Path
        The category's folder, absolute; of several objects, the data set's.
    kind : str
        Kind of the source, one of `recognise.READERS`.
    n_train, n_good : int
        Number of good images to learn from, and to test with.
    defects, masks : Counter of str
        How many images and masks each kind of defect has.
    good_labels : list of str
        The labels that were taken for good; none if what has no annotation was.
    notes : list of str
        What the user should know.
    objects : dict of str to Imported
        The categories, if the source has several objects; then the numbers above are of all.
    """

    root: Path
    kind: str
    n_train: int
    n_good: int
    defects: Counter[str]
    masks: Counter[str]
    good_labels: list[str]
    notes: list[str]
    objects: dict[str, "Imported"] = field(default_factory=dict)

    def __str__(self) -> str:
        """What to tell the user, with the commands that may follow."""
        lines = [f"{self.root}: imported as {self.kind}"]
        for name, one in (self.objects or {"": self}).items():
            lines += [f"{name}:"] if name else []
            lines += one.counts()
            lines += [f"  note: {note}" for note in one.notes] if name else []
        lines += [f"  note: {note}" for note in self.notes]
        root = next(iter(self.objects.values()), self).root
        of_dataset = ["--dataset", str(root.parent)]
        of_dataset += [] if self.objects else ["--category", root.name]
        fit = ["texad", "fit", str(root), "--out", f"{root.name}.safetensors"]
        return "\n".join(
            [
                *map(printable, lines),
                f"next: {shlex.join(['texad', 'run', *of_dataset])}",
                f"or:   {shlex.join(fit)}",
            ]
        )

    def counts(self) -> list[str]:
        """A line for each folder of images."""
        labels = ", ".join(self.good_labels)
        good = f"labelled {labels}" if labels else "without annotation"
        return [
            f"  train/good      {self.n_train:6d} images to learn from ({good})",
            f"  test/good       {self.n_good:6d} images",
            *(
                f"  test/{name:<10} {count:6d} images, {self.masks[name]} with a mask"
                for name, count in self.defects.items()
            ),
        ]


def import_category(
    source: str | Path,
    target: str | Path,
    kind: str | None = None,
    *,
    good: Sequence[str] = (),
    test_fraction: float | None = None,
    seed: int = 0,
    link: bool = False,
    image_folder: str | Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    mask_column: str | None = None,
    progress: bool = False,
) -> Imported:
    """Bring labelled images into MVTec AD's layout.

    Parameters
    ----------
    source : str or Path
        A folder, or the CSV, JSON, XML or `data.yaml` that speaks of the images.
    target : str or Path
        The category's folder, DATASET/CATEGORY. It must not exist, and appears only when it is
        complete. If the source has several objects, each becomes a category in this folder.
    kind : str or None
        One of `recognise.READERS`; None: guessed.
    good : sequence of str
        Which folders, labels or categories are good; none: those called good, ok, normal and the
        like, and in a CSV also 0, false and no.
    test_fraction : float, optional
        Fraction of the good images that is for testing, at least 0 and below 1. If it is not 0, at
        least one is. By default the split of the source is kept; if it has none, 0.2.
    seed : int, default 0
        Decides which these are.
    link : bool, default False
        Link to the images instead of copying them.
    image_folder : str, Path or None
        Where the paths in a CSV, JSON or XML start; None: around the file.
    path_column, label_column, mask_column : str or None
        Columns of a CSV; None: guessed.
    progress : bool, default False
        Show a bar.

    Returns
    -------
    Imported

    Raises
    ------
    DataError
        A ValueError: the source is not as it should be, or has no good images; it names the entry.
    FileNotFoundError, FileExistsError
        There is no source, or the target exists.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> for i in range(5):
    ...     for label in ("ok", "scratch"):
    ...         (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
    ...         Image.new("RGB", (64, 64)).save(folder / "photos" / label / f"{i}.png")
    >>> made = import_category(folder / "photos", folder / "data" / "steel")
    >>> made.n_train, made.n_good, dict(made.defects)
    (4, 1, {'scratch': 5})
    """
    check_range(
        "the test fraction",
        TEST_FRACTION if test_fraction is None else test_fraction,
        at_least=0,
        below=1,
        hint="0.2 keeps one good image in five for testing",
        error=DataError,
    )
    origin, root = _source(source, kind is None and test_fraction is None), _target(target)
    if root.is_relative_to(origin):
        raise DataError(
            f"{root} would be within {origin}, and imported the next time: choose another place"
        )
    if kind is not None:
        check_choice("kind", kind, recognise.READERS, error=DataError)
    kind = kind or recognise.guess(origin)
    if kind == "folders":
        good = good or recognise.good_beside_bad(origin)
    labels = Labels(good, GOOD_CELLS if kind == "csv" else GOOD)
    folder = _absolute(image_folder) if image_folder else None
    of_source = Source(origin, labels, folder, (path_column, label_column, mask_column))
    marks = _sound(_marks(of_source, kind), labels.notes)
    for unused in (each for each in good if not any(map(Labels([each]).is_good, labels.good))):
        raise DataError(
            f"nothing is labelled {unused!r}, which was named as good: the labels are "
            f"{labels.listed()}"
        )
    readable, unreadable = screen(_merged(marks), lambda each: check_image(each.path), progress)
    labels.notes += _first(
        [f"{entry.path} ({reason})" for entry, reason in unreadable],
        "left out, since it cannot be read:",
    )
    of_object: dict[str, list[Entry]] = {}
    for entry, size in readable:
        name = clean(entry.marks[0].category) if entry.marks[0].category else ""
        of_object.setdefault(name, []).append(replace(entry, size=size))
    data_set = recognise.layout([origin, *recognise.objects(origin)])
    made = {}
    with filling(root) as folder:
        for name, entries in (of_object or {"": []}).items():
            below = name if len(of_object) > 1 else ""
            in_pieces = data_set.endswith("KolektorSDD")
            train, test, notes = _divided(entries, test_fraction, seed, labels, in_pieces)
            parts = [*(("train", entry) for entry in train), *(("test", entry) for entry in test)]
            masks, empty = write(folder / below, parts, link, progress)
            if in_pieces:
                write_groups(folder / below / GROUPS, parts)
                notes.append(f"{GROUPS} says which images show one piece")
            notes += _first(empty, "left out, since it marks nothing of the image:")
            defects = Counter(sorted(entry.defect for entry in test if entry.defect != "good"))
            n_good = len(test) - defects.total()
            made[name] = Imported(
                root / below, kind, len(train), n_good, defects, masks, sorted(labels.good), notes
            )
    kind += data_set
    total = next(iter(made.values()))
    for one in list(made.values())[1:]:
        total = replace(
            total,
            n_train=total.n_train + one.n_train,
            n_good=total.n_good + one.n_good,
            defects=total.defects + one.defects,
            masks=total.masks + one.masks,
        )
    if len(made) > 1:
        return replace(total, root=root, kind=kind, notes=labels.notes, objects=made)
    return replace(total, kind=kind, notes=labels.notes + total.notes)


# -- what is said of the images --------------------------------------------------------------------


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _source(source: str | Path, is_free: bool) -> Path:
    """The source, absolute; if nothing is asked for, it is refused if it can be used as it is."""
    path = _absolute(source)
    if not str(source) or not path.exists():
        raise FileNotFoundError(
            f"there is no {str(source)!r} to import: name a folder, or the .csv, .json, .xml or "
            ".yaml that speaks of the images"
        )
    parts = {folder.name for folder in path.glob("[!.]*/") if folder.is_dir()}
    if (
        is_free
        and {"train", "test"} <= parts <= {"train", "test", "ground_truth"}
        and {file.name for file in (path / "train").glob("[!.]*")} == {"good"}
    ):
        raise DataError(
            f"{path} is laid out as MVTec AD already: use it as it is, with --dataset "
            f"{path.parent} --category {path.name}, or split it anew by --test-fraction 0.2"
        )
    return path


def _target(target: str | Path) -> Path:
    path = _absolute(target)
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} exists, and nothing is overwritten: name another category, or remove it"
        )
    if path.name == "all" or path.name != clean(path.name):
        raise DataError(
            f"a category cannot be called {path.name!r}: choose another name for --to "
            "DATASET/CATEGORY"
        )
    if (path.parent / "train" / "good").is_dir():
        raise DataError(
            f"{path.parent} is itself a category: name a folder of categories, as in --to "
            "DATASET/CATEGORY"
        )
    return path


def _marks(source: Source, kind: str) -> list[Mark]:
    """What is said of the images, each with its part of a split and its object."""
    if source.image_folder and kind in ("folders", "pairs", "yolo"):
        raise DataError(f"--images is not for {kind}: leave it out, or say --kind csv")
    if any(source.columns) and kind != "csv":
        raise DataError(
            "--path-column, --label-column and --mask-column are for csv, "
            f"not for {kind}: leave them out, or say --kind csv"
        )
    if kind in ("folders", "pairs", "yolo") and not source.images:
        raise DataError(
            f"{source.folder} holds no image, and neither do its sub-folders "
            f"({', '.join(SUFFIXES)})"
        )
    objects = recognise.objects(source.path) if kind in ("folders", "pairs") else []
    marks = []
    for part in objects or [source.path]:
        one = replace(source, path=part) if objects else source
        for mark in recognise.READERS[kind](one):
            is_below = mark.path.is_relative_to(one.top)
            inner = mark.path.relative_to(one.top).parent if is_below else Path()
            category = part.name if objects else mark.category
            split = mark.split or split_of(inner.parts)
            marks.append(replace(mark, split=split, category=category))
    for name, path in list(source.moved.items())[:1]:
        source.labels.notes.append(
            f"{len(source.moved)} paths lead elsewhere: their images were found by their names, "
            f"{name!r} as {path}"
        )
    return marks


def _sound(marks: Sequence[Mark], notes: list[str]) -> list[Mark]:
    """Leave out outlines that are none, and note them all."""
    faults, sound, n = [], [], 0
    for mark in marks:
        found = [shape.fault() if isinstance(shape, Polygon) else "" for shape in mark.shapes]
        faults += [f"{mark.where} {fault}" for fault in found if fault]
        shapes = (shape for shape, fault in zip(mark.shapes, found, strict=True) if not fault)
        sound.append(replace(mark, shapes=tuple(shapes)))
        n += len(found)
    if faults and len(faults) == n:
        raise DataError(f"{faults[0]}, and no other outline is better: export the labels again")
    notes += _first(faults, "left out:")
    return sound


def _divided(
    entries: Sequence[Entry], fraction: float | None, seed: int, labels: Labels, in_pieces: bool
) -> tuple[list[Entry], list[Entry], list[str]]:
    """Images to learn from, images to test with, and notes on how they were divided."""
    good = [entry for entry in entries if entry.defect == "good"]
    defective = [entry for entry in entries if entry.defect != "good"]
    if len(good) < 2:
        raise DataError(
            f"too few good images ({len(good)}): at least 2 are needed, to learn from and to "
            f"test with; the labels are {labels.listed()}: say which of them are good by --good "
            "LABEL, or add images"
        )
    notes: list[str] = []
    parts = {entry.split for entry in entries} - {""}
    in_test = "test" if "test" in parts else "validation"
    test = [entry for entry in good if entry.split == in_test]
    train = [entry for entry in good if entry.split != in_test]
    if fraction is None and train and test:
        notes.append("the split is that of the source")
        if n := sum(entry.split == "validation" for entry in train):
            notes.append(f"{n} good images of its validation part are in train/good")
        if n := sum(entry.split == "train" for entry in defective):
            notes.append(f"{n} defective images of its training part are in test, too")
    else:
        if len(parts) > 1:
            why = (
                "its good images are in one part"
                if fraction is None
                else "--test-fraction is given"
            )
            notes.append(f"the split is not that of the source, since {why}")
        rng = np.random.default_rng(seed)
        pieces = [entry.piece for entry in good] if in_pieces else None
        share = TEST_FRACTION if fraction is None else fraction
        both = splitting.split(len(good), share, rng, pieces)
        train, test = ([good[i] for i in part] for part in both)
    if not test and not defective:
        raise DataError(
            "no image would be left to test with, since none is defective: let the test fraction "
            "be more than 0"
        )
    if n := sum(len({mark.defect for mark in entry.marks}) > 1 for entry in defective):
        notes.append(f"{n} images have several kinds of defect: they are in test/{COMBINED}")
    if not defective:
        notes.append(
            "no defective image: a detector can be fit, but nothing here tells which defects it "
            "finds"
        )
    return train, test + defective, notes


def _merged(marks: Sequence[Mark]) -> list[Entry]:
    """Gather what is said of each image, in natural order of the images."""
    of_image: dict[Path, list[Mark]] = {}
    for mark in marks:
        of_image.setdefault(mark.path.resolve(), []).append(mark)
    entries: list[Entry] = []
    taken: set[tuple[str, str]] = set()
    for said in sorted(of_image.values(), key=lambda said: natural(str(said[0].path))):
        kinds = {mark.defect: mark for mark in reversed(said)}
        good = kinds.pop("good", None)
        if good and kinds:
            other = next(iter(kinds.values()))
            raise DataError(
                f"{good.path} is good by {good.where}, but {other.defect} by {other.where}: remove "
                "one of the two"
            )
        defect = COMBINED if len(kinds) > 1 else next(iter(kinds), "good")
        name = _name(said[0].path, said[0].category + defect, taken)
        entries.append(Entry(said[0].path, name, defect, said))
    return entries


def _name(path: Path, defect: str, taken: set[tuple[str, str]]) -> str:
    """Choose a name that no other image of the defect has.

    It is the image's own if possible, else its folders go before it, one after the other, and else
    a number after all of them.
    """
    parts = path.with_suffix("").parts
    names = [clean("_".join(parts[-n:])) for n in range(1, len(parts) + 1)]
    for name in chain(names, (f"{names[-1]}_{i}" for i in count(2))):
        if image_stem(name) != name:  # so is the mask of another one called
            name = f"{name}_image"
        if (key := (defect.casefold(), name.casefold())) not in taken:
            break
    taken.add(key)
    return name


def _first(reasons: Sequence[str], what: str) -> list[str]:
    more = [f"{what} {len(reasons) - MOST_NOTES} more"] if len(reasons) > MOST_NOTES else []
    return [f"{what} {reason}" for reason in reasons[:MOST_NOTES]] + more
