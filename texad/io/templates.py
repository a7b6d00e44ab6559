"""Templates of HTML and SVG, which escape all that is put into them, and of plain text."""

from collections.abc import Callable
from pathlib import Path

import jinja2

from texad.errors import printable


def _on_one_line(value: object) -> object:
    """Printable text; what is HTML already stays as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))


def templates(
    folder: Path,
    finalize: Callable[[object], object] = _on_one_line,
    *,
    autoescape: bool = True,
) -> jinja2.Environment:
    """Make the environment of the templates in a folder.

    What is put into a template is escaped, and control characters of names, which may come from
    anywhere, are shown as Python would write them.

    Parameters
    ----------
    folder : Path
    finalize : callable, optional
        Takes what is put into a template, returns it as it is shown; by default text on one line.
    autoescape : bool, default True
        Escape for HTML; false for templates of plain text.

    Returns
    -------
    jinja2.Environment

    Examples
    --------
    >>> page = templates(Path()).from_string("<p>{{ name }}</p>")
    >>> print(page.render(name="<script>\\x1b"))
    <p>&lt;script&gt;\\x1b</p>
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=autoescape,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
