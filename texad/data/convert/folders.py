"""Labels by folders: one for good images, and one for the others or for each kind of defect."""

from collections.abc import Sequence
from pathlib import Path

from texad.data.convert.marks import Labels, Mark, images
from texad.data.names import BAD, MASKS, NEUTRAL, plain
from texad.errors import DataError


def read_folders(source: Path, labels: Labels) -> list[Mark]:
    """List the marks of images that are sorted into folders.

    Folders named train, test, images and the like may be around or in those of the labels. Masks
    are `<stem>_mask.*` beside the image, or they are in a folder `masks` or `ground_truth`, and
    there in a folder of the defect's name or not.

    Raises
    ------
    DataError
        A ValueError: folders contradict each other, or it is not clear what a mask belongs to.
    """
    files = images(source, labels)
    by_stem: dict[tuple[Path, str], Path] = {}
    for file in files:
        if (other := by_stem.setdefault((file.parent, file.stem.casefold()), file)) is not file:
            raise DataError(
                f"{other} and {file.name} differ only in their endings: if one is the other's "
                f"mask, put it into a folder {source / 'masks'}, or let its name end in _mask; "
                "else rename it"
            )
    marked: list[tuple[Path, str]] = []
    masks: dict[tuple[str, str], Path] = {}
    n_loose = 0
    for file in files:
        names = [
            name for name in file.relative_to(source).parent.parts if plain(name) not in NEUTRAL
        ]
        kinds = [name for name in names if plain(name) not in MASKS]
        stem = file.stem.casefold()
        of_image = stem.removesuffix("_mask")
        if len(kinds) < len(names) or of_image != stem and (file.parent, of_image) in by_stem:
            masks[kinds[-1].casefold() if kinds else "", of_image] = file
        elif kinds:
            marked.append((file, labels.defect(_kind(source, file, kinds, labels))))
        else:
            n_loose += 1
    if not marked:
        raise DataError(
            f"{source} has no folder that says what the images are: put good ones into "
            f"{source / 'good'}, others into a folder for each kind of defect; if all are good, "
            f"import nothing, but texad fit {source}"
        )
    if n_loose:
        labels.notes.append(
            f"{n_loose} images passed over, which are in no folder that says what they are"
        )
    marks: list[Mark] = []
    owners: dict[Path, Path] = {}
    for file, defect in marked:
        folders = (file.parent.name, defect, "") if defect != "good" else ()
        keys = [(name.casefold(), file.stem.casefold()) for name in folders]
        mask = next((masks[key] for key in keys if key in masks), None)
        if mask and owners.setdefault(mask, file) != file:
            raise DataError(
                f"{mask} may be the mask of {file} or of {owners[mask]}: put it into a folder of "
                "the defect's name"
            )
        marks.append(Mark(file, defect, str(file), mask or ()))
    return marks


def _kind(source: Path, file: Path, kinds: Sequence[str], labels: Labels) -> str:
    """Choose the folder that says what an image is, of those that it is in."""
    good = [name for name in kinds if labels.is_good(name)]
    if good and good[0] != kinds[0]:
        raise DataError(
            f"{file} would be good by its folder {good[0]}, but that is in the folder {kinds[0]}: "
            f"import {source / kinds[0]} by itself if that is another surface, else rename one of "
            "the two"
        )
    return kinds[1] if not good and len(kinds) > 1 and plain(kinds[0]) in BAD else kinds[0]
