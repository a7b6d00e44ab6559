"""Which kind of labels a source has."""

from collections.abc import Callable, Iterable
from pathlib import Path

from texad.data.convert.coco import read_coco
from texad.data.convert.cvat import read_cvat
from texad.data.convert.folders import are_pairs, read_folders, read_pairs
from texad.data.convert.label_studio import read_label_studio
from texad.data.convert.labelme import read_labelme
from texad.data.convert.marks import Labels, Mark
from texad.data.convert.source import Source
from texad.data.convert.table import VISA, read_csv, tables_of
from texad.data.convert.via import read_via
from texad.data.convert.voc import read_voc
from texad.data.convert.yolo import class_file, label_file, read_yolo
from texad.data.names import BAD, plain, split_of
from texad.data.walking import walk
from texad.errors import DataError

READERS: dict[str, Callable[[Source], list[Mark]]] = {
    "folders": read_folders,
    "pairs": read_pairs,
    "csv": read_csv,
    "coco": read_coco,
    "yolo": read_yolo,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "voc": read_voc,
    "via": read_via,
}
KIND_OF = {".csv": "csv", ".tsv": "csv", ".yaml": "yolo", ".yml": "yolo"}
BAD_ENDS = BAD | {"def", "defect"}  # of folders' names
# Public data sets, by what only they have; they are read as any other folder of their kind.
LAYOUTS = {
    "MVTec AD 2": "test_public/good",
    "MVTec LOCO AD": "test/*_anomalies",
    "BTAD": "test/ko",
    "VisA": "Data/Images/Normal",
    "DAGM 2007": "T*/Label",
    "KolektorSDD2": "train/*_GT.*",
    "KolektorSDD": "kos*/*_label.*",
}


def guess(path: Path) -> str:
    """Guess which of READERS a source is for.

    Raises
    ------
    DataError
        A ValueError: it is a file of another kind, or a folder without images.
    """
    source = Source(path, Labels())
    if path.is_file():
        if not (kind := KIND_OF.get(path.suffix.lower()) or source.kind()):
            raise DataError(
                f"{path} is neither a folder nor a .csv, .yaml, .json or .xml of a known kind: "
                "name one of those, or say what it is by --kind"
            )
        return kind
    if kind := source.kind():
        return kind
    names = [name for _, below, _ in walk(path) for name in below]
    if (path / VISA).is_file() or (
        len(tables_of(path)) == 1 and not any(map(source.labels.is_good, names))
    ):
        return "csv"
    if class_file(path) or any(label_file(path, image) for image in source.images):
        return "yolo"
    return "pairs" if are_pairs(source) else "folders"


def layout(folders: Iterable[Path]) -> str:
    """Words on the public data set that one of the folders is laid out as; empty if it is none."""
    names = (
        name for folder in folders for name, pattern in LAYOUTS.items() if any(folder.glob(pattern))
    )
    return next((f", in the layout of {name}" for name in names), "")


def good_beside_bad(folder: Path) -> list[str]:
    """Name of the good one of two folders X and X_def, as in the first edition of DAGM 2007."""
    names = next(walk(folder))[1] if folder.is_dir() else []
    first, second = names if len(names) == 2 else ("", "")
    return [first] if second.startswith(first) and plain(second[len(first) :]) in BAD_ENDS else []


def objects(folder: Path) -> list[Path]:
    """Folders of a data set's objects, if each of its folders is one with a split of its own."""
    below = [Path(folder, name) for name in next(walk(folder))[1]] if folder.is_dir() else []
    parts = [{split_of([name]) for name in next(walk(each))[1]} for each in below]
    are_objects = all({"train", "test"} <= each for each in parts)
    return below if are_objects or all((each / "Data").is_dir() for each in below) else []
