"""Templates of HTML and SVG, which escape all that is put into them."""

from pathlib import Path

import jinja2

from texad.errors import printable


def templates(folder: Path) -> jinja2.Environment:
    """Make the environment of the templates in a folder.

    What is put into a template is escaped, and control characters of names, which may come from
    anywhere, are shown as Python would write them.

    Parameters
    ----------
    folder : Path

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
        autoescape=True,
        finalize=_on_one_line,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _on_one_line(value: object) -> object:
    """Printable text; what is HTML already stays as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))
