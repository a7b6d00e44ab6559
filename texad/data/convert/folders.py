"""Labels by folders: one for good images, and one for the others or for each kind of defect.

Or by masks alone: a mask beside each image, or for each defective one, of which a black one means
that the image is good.
"""

from collections.abc import Sequence
from pathlib import Path

from texad.data.convert.marks import Labels, Mark
from texad.data.convert.source import Source
from texad.data.names import (
    BAD,
    MASKS,
    NEUTRAL,
    SPLITS,
    image_stem,
    masks_beside,
    plain,
    unmatched,
)
from texad.errors import DataError
from texad.io.images import read_mask

Key = tuple[tuple[str, ...], str]  # folders that tell something, and a stem


def read_folders(source: Source) -> list[Mark]:
    """List the marks of images that are sorted into folders.

    Folders named train, test, images and the like may be around or in those of the labels. Masks
    are `<stem>_mask.*` (`_GT`, `_label`) beside the image, or they are in a folder `masks` or
    `ground_truth`, and there in a folder of the defect's name or not; there may be a folder of
    several masks for an image.

    Raises
    ------
    DataError
        A ValueError: folders contradict each other, or it is not clear what a mask belongs to.
    """
    labels = source.labels
    marked: list[tuple[Path, str]] = []
    files, masks = _sorted(source)
    n_loose = 0
    for file in files:
        kinds = [name for name in _folders(source, file) if plain(name) not in NEUTRAL]
        if kinds:
            marked.append((file, labels.defect(_kind(source.folder, file, kinds, labels))))
        else:
            n_loose += 1
    if not marked:
        raise DataError(
            f"{source.folder} has no folder that says what the images are: put good ones into "
            f"{source.folder / 'good'}, others into a folder for each kind of defect; if all are "
            f"good, import nothing, but texad fit {source.folder}"
        )
    if n_loose:
        labels.notes.append(
            f"{n_loose} images passed over, which are in no folder that says what they are"
        )
    owners = _owners(source, [each for each in marked if each[1] != "good"], masks)
    return [Mark(file, kind, str(file), tuple(owners.get(file, ()))) for file, kind in marked]


def read_pairs(source: Source) -> list[Mark]:
    """List the marks of images of which only masks tell whether there is a defect.

    An image without mask, or with a black one, is good.

    Raises
    ------
    DataError
        A ValueError: no image has a mask, or a mask cannot be read.
    """
    files, masks = _sorted(source)
    owners = _owners(source, [(file, "") for file in files], masks)
    if not owners:
        raise DataError(
            f"{source.folder} has no image with a mask: let its name be the image's with _mask "
            f"behind, or put it into {source.folder / 'masks'}"
        )
    if n_without := len(files) - len(owners):
        source.labels.notes.append(f"{n_without} images without a mask taken for good")
    marks = []
    for file in files:
        found = [mask for mask in owners.get(file, ()) if read_mask(mask).any()]
        defect = source.labels.defect("defect") if found else "good"
        marks.append(Mark(file, defect, str(file), tuple(found)))
    return marks


def are_pairs(source: Source) -> bool:
    """Tell whether images have masks, and no folder says which of the images are good or bad."""
    files, masks = _sorted(source)
    names = {name for file in files for name in _folders(source, file)}
    if any(source.labels.is_good(name) or plain(name) in BAD for name in names):
        return False
    return bool(_owners(source, [(file, "") for file in files], masks, False))


def _folders(source: Source, file: Path) -> tuple[str, ...]:
    return file.relative_to(source.folder).parent.parts


def _sorted(source: Source) -> tuple[list[Path], dict[Key, list[Path]]]:
    """Images, and masks by the folders that they are in and the stem of their image."""
    beside = masks_beside(source.images)
    files: list[Path] = []
    masks: dict[Key, list[Path]] = {}
    by_stem: dict[tuple[Path, str], Path] = {}
    for file in source.images:
        if (other := by_stem.setdefault((file.parent, file.stem.casefold()), file)) is not file:
            raise DataError(
                f"{other} and {file.name} differ only in their endings: if one is the other's "
                f"mask, put it into a folder {source.folder / 'masks'}, or let its name end in "
                "_mask; else rename it"
            )
        names = [name.casefold() for name in _folders(source, file)]
        kinds = [name for name in names if plain(name) not in MASKS]
        stem = image_stem(file.stem).casefold()
        if kinds and plain(kinds[-1]) in ("label", "labels") and stem != file.stem.casefold():
            kinds = kinds[:-1]  # as in DAGM
        if len(kinds) < len(names) or file in beside:
            masks.setdefault((_telling(kinds), stem), []).append(file)
        else:
            files.append(file)
    return files, masks


def _telling(names: Sequence[str]) -> tuple[str, ...]:
    """Those names of folders that tell a defect, or a part of a split."""
    return tuple(name for name in names if plain(name) in SPLITS or plain(name) not in NEUTRAL)


def _owners(
    source: Source,
    marked: Sequence[tuple[Path, str]],
    masks: dict[Key, list[Path]],
    with_note: bool = True,
) -> dict[Path, list[Path]]:
    """Masks of each image that has any."""
    # Several masks of one image may be in a folder of its name.
    of_folder: dict[Key, list[Path]] = {}
    for (kinds, _), found in masks.items():
        if kinds:
            of_folder.setdefault((kinds[:-1], kinds[-1]), []).extend(found)
    owners: dict[Path, list[Path]] = {}
    owner_of: dict[Path, Path] = {}
    for file, defect in marked:
        names = _telling([name.casefold() for name in _folders(source, file)])
        unsplit = tuple(name for name in names if plain(name) not in SPLITS)
        folders = [names, unsplit, (file.parent.name.casefold(),), (defect.casefold(),), ()]
        keys = [(folder, file.stem.casefold()) for folder in folders]
        found = next((by[key] for by in (masks, of_folder) for key in keys if key in by), [])
        for mask in found:
            if owner_of.setdefault(mask, file) != file:
                raise DataError(
                    f"{mask} may be the mask of {file} or of {owner_of[mask]}: put it into a "
                    "folder of the defect's name"
                )
        if found:
            owners[file] = found
    left = [
        mask
        for (kinds, _), found in masks.items()
        for mask in found
        if mask not in owner_of and not any(map(source.labels.is_good, kinds))
    ]
    if left and with_note:
        source.labels.notes.append(unmatched(left))
    return owners


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
