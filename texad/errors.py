"""What can go wrong in a way that the user can mend; each error is one line, in notebooks too."""

from pathlib import Path


def printable(name: str | Path) -> str:
    """Name on one line: a newline, a control sequence or half a letter is shown as Python would write it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(name))


class _OneLine:
    """Shows an error in a notebook as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class DataError(_OneLine, ValueError):
    """Something is wrong with the data."""

    def __str__(self) -> str:
        return printable(super().__str__())  # names of files and folders may have anything in them


class ImageError(DataError):
    """A file that cannot be read as an image.

    Attributes
    ----------
    path : str or Path
    reason : str
        What is wrong with it, in a few words.
    """

    def __init__(self, path: str | Path, reason: str):
        super().__init__(path, reason)  # what another process needs to make it again
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"image {printable(self.path)} cannot be read ({self.reason}): "
            "replace it by a PNG, JPEG, BMP or TIFF of 8 bits, or remove it"
        )


class RunError(_OneLine, ValueError):
    """Something is wrong with a run, or a stage that it builds on is missing."""


class DamagedError(RunError):
    """A file is not what the package wrote there."""


class DiskFullError(_OneLine, OSError):
    """There is no room for a file."""
