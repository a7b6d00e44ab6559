"""Errors that the user can act on, each one line in notebooks too, and helpers for their words."""

import difflib
import operator
from collections.abc import Collection, Iterable
from pathlib import Path


def printable(name: str | Path) -> str:
    """Name on one line: a newline, a control sequence or half a letter is escaped as by `repr`.

    Examples
    --------
    >>> print(printable("a\\nb"))
    a\\nb
    """
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
    what : {"image", "mask"}
    """

    def __init__(self, path: str | Path, reason: str, what: str = "image"):
        super().__init__(path, reason, what)  # what another process needs to make it again
        self.path, self.reason, self.what = path, reason, what

    def __str__(self) -> str:
        return (
            f"{self.what} {printable(self.path)} cannot be read ({self.reason}): "
            "replace it by a PNG, JPEG, BMP or TIFF of 8 bits, or remove it"
        )


class RunError(_OneLine, ValueError):
    """Something is wrong with a run, or a stage that it builds on is missing."""


class DamagedError(RunError):
    """A file is not what the package wrote there."""


class DiskFullError(_OneLine, OSError):
    """There is no room for a file."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Hint at the known name that is nearest to a mistyped one, in upper or lower case.

    Returns
    -------
    str
        To be put after the mistyped name; empty if none is near.

    Examples
    --------
    >>> did_you_mean("Lether", ["leather", "wood"])
    " (did you mean 'leather'?)"
    """
    as_written = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), as_written, n=1)
    return f" (did you mean {as_written[near[0]]!r}?)" if near else ""


def check_choice(
    name: str,
    value: str,
    choices: Collection[str],
    hint: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Raise an error unless a word is one of those there are.

    Parameters
    ----------
    name : str
        What the user calls the choice.
    value : str
    choices : collection of str
    hint : str, optional
        An example, or the default.
    error : type of exception, default ValueError

    Examples
    --------
    >>> check_choice("category", "lether", ["leather", "wood"])
    Traceback (most recent call last):
    ValueError: category must be one of leather, wood, not 'lether' (did you mean 'leather'?)
    """
    if value not in choices:
        raise error(
            f"{name} must be one of {', '.join(choices)}{hint and f' ({hint})'}, not {value!r}"
            f"{did_you_mean(str(value), choices)}"
        )


def check_range(
    name: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    multiple_of: int | None = None,
    hint: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Raise an error unless a number is in a range; NaN is in none.

    Parameters
    ----------
    name : str
        What the user calls the number.
    value : float
    at_least, above, below, at_most : float, optional
        The ends of the range.
    multiple_of : int, optional
    hint : str, optional
        An example of what the number means.
    error : type of exception, default ValueError

    Examples
    --------
    >>> check_range("fraction", 1.2, at_least=0, below=1, hint="0.2 is one image in five")
    Traceback (most recent call last):
    ValueError: fraction must be at least 0 and below 1 (0.2 is one image in five), not 1.2
    """
    ends = (
        ("at least", operator.ge, at_least),
        ("above", operator.gt, above),
        ("below", operator.lt, below),
        ("at most", operator.le, at_most),
        ("a multiple of", lambda number, step: not number % step, multiple_of),
    )
    given = [(word, is_kept, end) for word, is_kept, end in ends if end is not None]
    if not all(is_kept(value, end) for _, is_kept, end in given):
        words = " and ".join(f"{word} {end}" for word, _, end in given)
        raise error(f"{name} must be {words}{hint and f' ({hint})'}, not {value}")
