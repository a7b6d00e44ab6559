"""Names that come with the data, made harmless for where they are shown: anybody may have named a folder, and with anything.

Terminals obey control sequences: there `texad.io.images.printable` stands between. Pages have `texad.site.markdown.text`. Here are pictures
and tables.

CSV injection, OWASP: https://owasp.org/www-community/attacks/CSV_Injection.
"""

import re
from collections.abc import Callable

import pandas as pd

from texad.errors import printable

FORMULA = re.compile(
    r"'*[=+\-@\t\r\n]"
)  # how a cell starts that a spreadsheet would work out; its apostrophes may be ours already


def for_picture(text: object) -> str:
    """Lines of text for matplotlib, which would set what stands between two dollar signs as mathematics.

    Parameters
    ----------
    text : object
        Shown as `str` writes it.

    Returns
    -------
    str
        With newlines; other control characters are shown as Python would write them, since no SVG may hold them.
    """
    return "\n".join(printable(line) for line in str(text).split("\n")).replace("$", r"\$")


def for_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts no spreadsheet takes for formulas: an apostrophe goes before those that start like one.

    Parameters
    ----------
    table : DataFrame

    Returns
    -------
    DataFrame
        A new one. `from_spreadsheet` takes the apostrophes away again.
    """
    return _of_texts(table, cell)


def cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula, see `for_spreadsheet`."""
    return f"'{text}" if FORMULA.match(text) else text


def from_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """The table that was given to `for_spreadsheet`."""
    return _of_texts(
        table, lambda text: text[1:] if text.startswith("'") and FORMULA.match(text) else text
    )


def _of_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.assign(
        **{
            name: table[name].map(lambda value: change(value) if isinstance(value, str) else value)
            for name in texts
        }
    )
