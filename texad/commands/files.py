"""Files that the commands are about: what may be written, and new good images."""

import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from texad.commands.messages import say, words
from texad.data.inputs import GoodImages, good_images
from texad.detector import AnomalyDetector


def check_writable(file: Path) -> None:
    """Check that a file can be written, before anything is computed for it.

    Raises
    ------
    ValueError, OSError
        It is a folder, or cannot be written.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name a file in it, such as {file / 'steel'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise OSError(
            f"{file} cannot be written ({error.strerror}): choose another place"
        ) from error


def check_target(file: Path) -> None:
    """Check that a detector can be written to a file: one may be replaced, another file may not.

    Raises
    ------
    ValueError, OSError
        It is another file, or cannot be written.
    """
    check_writable(file)
    with suppress(SafetensorError, OSError), safe_open(file, framework="np") as stored:
        if "texad" in (stored.metadata() or {}):
            return
    if file.exists():
        raise ValueError(
            f"{file} is there already, and is no detector: choose another --out, or move it away"
        )


def new_images(
    detector: AnomalyDetector,
    folder: str,
    known: Iterable[str],
    unreadable_limit: float,
    progress: bool,
) -> tuple[GoodImages, list[str]]:
    """Find new good images, without those that the detector knows, and say what was found.

    Parameters
    ----------
    detector : AnomalyDetector
        Fitted.
    folder, unreadable_limit, progress
        As in `texad.data.inputs.good_images`.
    known : iterable of {"train", "calibration"}
        Which images of the detector are left out.

    Returns
    -------
    GoodImages
    list of str
        What was said of them, on the standard error.

    Raises
    ------
    ValueError
        The folder is none of good images, or the detector knows all of them.
    """
    good = good_images(folder, "test", unreadable_limit, progress)
    images, seen = detector.origin_.get("images"), None
    if isinstance(images, dict):  # else it was made in Python
        seen = {digest for part in known for digest in images.get(part, ())} & set(good.images)
    notes = words("images", good=good, seen=seen)
    for digest in seen or ():
        del good.images[digest]
    if not good.images:
        raise ValueError(
            f"{good.root} holds only images that the detector knows: take new ones, which it has "
            "not seen"
        )
    say(*notes, to=sys.stderr)
    return good, notes
