"""Names that come with the data, made harmless for where they are shown.

Anybody may have named a folder, and with anything. Terminals obey control sequences: there,
`texad.errors.printable` is applied. Pages are made by `texad.io.templates`. Here are pictures and
tables.

CSV injection, OWASP: https://owasp.org/www-community/attacks/CSV_Injection.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from texad.errors import printable
from texad.io.atomic import replacing

# How a cell starts that a spreadsheet would work out; its apostrophes may be ours already.
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def for_picture(text: object) -> str:
    """Escape text for matplotlib, which sets what is between two dollar signs as mathematics.

    Parameters
    ----------
    text : object
        Shown as `str` writes it.

    Returns
    -------
    str
        With newlines; other control characters are shown as Python would write them, since no SVG
        may hold them.

    Examples
    --------
    >>> print(for_picture("5 $ a piece"))
    5 \\$ a piece
    """
    return "\n".join(printable(line) for line in str(text).split("\n")).replace("$", r"\$")


def for_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """Put an apostrophe before the texts of a table that a spreadsheet would take for formulas.

    Parameters
    ----------
    table : DataFrame

    Returns
    -------
    DataFrame
        A new one. `from_spreadsheet` takes the apostrophes away again.
    """
    return _of_texts(table, cell)


def write_table(file: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all, and as `for_spreadsheet` makes it."""
    with replacing(file) as temporary:
        for_spreadsheet(table).to_csv(temporary, index=False)


def cell(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would take for a formula.

    Examples
    --------
    >>> cell("=1+1"), cell("crack")
    ("'=1+1", 'crack')
    """
    return f"'{text}" if FORMULA.match(text) else text


def from_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """Restore the table that was given to `for_spreadsheet`."""
    return _of_texts(
        table, lambda text: text[1:] if text.startswith("'") and FORMULA.match(text) else text
    )


def _of_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    return table.assign(
        **{
            name: table[name].map(lambda value: change(value) if isinstance(value, str) else value)
            for name in table.select_dtypes(exclude=["number", "bool"]).columns
        }
    )
